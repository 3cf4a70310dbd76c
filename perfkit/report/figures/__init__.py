"""Draws results: SVG pictures of figures that were measured and saved."""
