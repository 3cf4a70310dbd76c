"""The models that come with the cluster, and the code that reads payloads and writes results.

Each folder here is a model: a ``model.toml`` that describes it, and the ONNX file it names, beside
it or inside an installed package. Each kind of model has a module: `rows` for tables of numbers,
`filetypes` for files, `embedding` for texts. `cluster.models.inference` puts them together.
"""
