"""Your own code, called again and again: how long a call takes, and which of two is faster."""
