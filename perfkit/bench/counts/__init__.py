"""What a task costs in messages, bytes and allocations: figures that repeat exactly."""
