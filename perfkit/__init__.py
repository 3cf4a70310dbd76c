"""The instruments, the faster parts and the evidence around the cluster under study."""
