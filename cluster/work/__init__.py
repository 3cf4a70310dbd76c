"""What a worker can do, and how it runs a lease."""
