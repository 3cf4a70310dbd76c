"""What every command shares: its options and settings, its output, and its progress."""
