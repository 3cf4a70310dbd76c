"""What a cluster is given to do while it is measured, and the rounds in which it is."""
