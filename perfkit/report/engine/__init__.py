"""Runs notebooks: parameters, kernels, progress, outcomes, and the folder a run is published in."""
