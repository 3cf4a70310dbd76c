"""The models that come with the cluster, and what turns their payloads into numbers and back.

Each folder here is a model: a ``model.toml`` that describes it and the ONNX file that it names,
beside it or inside an installed package. Each kind of model has a module: `rows` for tables of
numbers, `filetypes` for files. `cluster.models.inference` puts them together.
"""
