"""What each process uses of the cards."""
