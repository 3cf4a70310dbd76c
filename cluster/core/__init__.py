"""Who works on what: the scheduler and its parts, sans-IO."""
