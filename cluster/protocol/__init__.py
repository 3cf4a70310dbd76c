"""What a client and a worker remember and answer, and how messages become frames: sans-IO."""
