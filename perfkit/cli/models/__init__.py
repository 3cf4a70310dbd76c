"""Models at the terminal: the user's own ones, their payloads and their answers."""
