"""Models: those that come with the cluster, those of its users, and the code that serves both.

A folder with a ``config.toml`` here is a model that comes with the cluster; its ONNX file lies
beside it or inside an installed package. The rooms, from the bottom up:

- `frames`: arrays as bytes;
- `repository`: what a model's folder says;
- `providers` and `runtime`: from a file to a session that runs it, on the CPU or a card;
- `kinds`: from payloads to arrays and back, a module for each kind of model.

`inference` finds and loads models, `manager` keeps those of a worker, `adding` and `checking` do
what a user asks for at the terminal.
"""
