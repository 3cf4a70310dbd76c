"""The notebook's face: JupyterLab on a copy of the notebooks, the live view, and the magics."""
