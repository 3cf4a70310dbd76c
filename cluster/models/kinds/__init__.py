"""How payloads are read and results are written: one module for each kind of model."""
