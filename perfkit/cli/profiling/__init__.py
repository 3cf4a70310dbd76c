"""Your own scripts and functions under the instruments, and saved profiles in a browser."""
