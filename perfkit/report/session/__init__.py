"""A report on the user's own work: what ran while a `with` block was open, and what limited it."""
