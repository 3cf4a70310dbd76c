"""What the graphics cards do: where they are, how busy, and which kernels they ran."""
