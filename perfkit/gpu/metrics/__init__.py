"""The bytes of `gpu_metrics` by the kernel's own structures, and what its throttle bits mean."""
