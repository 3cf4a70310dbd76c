"""A cluster under a virtual clock, with the costs that were measured on a real one."""
