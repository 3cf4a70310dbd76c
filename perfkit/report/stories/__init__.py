"""What each notebook shows and says, made from results."""
