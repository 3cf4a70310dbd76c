"""The faster parts, and the specs that name them: twins of the plain parts in `cluster`."""
