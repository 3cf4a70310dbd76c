"""A card as the system shows it: which one it is, its files, and the schema of its values."""
