"""The commands about cards: what they do, and which of their kernels take the time."""
