"""Whether this code is slower than a saved baseline: what is measured, and how it is judged."""
