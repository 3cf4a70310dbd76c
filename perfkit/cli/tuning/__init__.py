"""``perfkit tune`` and ``perfkit doctor``: make this machine and its spec faster."""
