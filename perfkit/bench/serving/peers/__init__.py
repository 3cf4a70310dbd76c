"""Servers that people use instead, each as its own documentation advises: one small script each.

A script runs in a virtual environment of its own, which has its server and ONNX Runtime but nothing
of this project; `network` beside it is all they share. What each one's documentation says about
batching stands at the top of its script, with the source.
"""
