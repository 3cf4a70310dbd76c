"""Processes of a host: started, looked after, started again, and ended with their parent."""
