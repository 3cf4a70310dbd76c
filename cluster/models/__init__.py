"""The models that come with the cluster, and the code that reads payloads and writes results.

A folder with a ``config.toml`` is a model: it describes the model, whose ONNX file lies beside it
or inside an installed package. Each kind of model has a module: `rows` for tables of numbers,
`filetypes` for files, `embedding` for texts. `cluster.models.inference` puts them together.
"""
