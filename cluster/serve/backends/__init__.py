"""What runs the API's tasks: a cluster, or slots in its own process; others are handed in."""
