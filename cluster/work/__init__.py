"""What a worker can do, and how it works through a lease."""
