"""A cluster while it works: looks at its status, their history, and a board that shows them."""
