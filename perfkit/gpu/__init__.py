"""The AMD cards of a machine: found, sampled, watched; and profiles of their kernels."""
