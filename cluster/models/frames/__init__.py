"""Arrays as bytes: one alone in `tensor`, several with names in `tensors`."""
