"""The HTTP API: the Open Inference Protocol, embeddings, administration and metrics.

It runs as a process of its own (``python -m cluster.serve``) and gives its requests to a `Backend`:
a client of this cluster, or another engine that is handed in.
"""
