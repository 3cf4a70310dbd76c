"""Models as folders: what describes them, and where they lie."""
