"""``perfkit model``: the user's own models, in a repository that workers serve from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
import typer
from rich.text import Text

from cluster.vocabulary.errors import ClusterError
from perfkit.cli.models.precision import precision
from perfkit.cli.terminal import options as opt
from perfkit.cli.terminal.command import add_command, examples
from perfkit.cli.terminal.output import FAILED, complain, note, out, plain_table, write_json
from perfkit.evidence.text import quantity, size

if TYPE_CHECKING:
    from cluster.models.checking import Check
    from cluster.models.inference import ModelInfo

app = typer.Typer(
    help="Your own models: add an ONNX file, list, check and remove what is there.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=examples(
        ("an ONNX file of yours", "perfkit model add iris iris.onnx --labels labels.txt"),
        ("serve it over HTTP", "perfkit serve --model iris"),
        ("or to programs, by a coordinator alone", "perfkit cluster up --model iris"),
        ("ask it there", "perfkit cluster submit --model iris flowers.csv"),
    ),
)  # fmt: skip

Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]


def add(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The model.")],
    golden: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="IN.npz OUT.npz",
            help="Inputs by name, and the outputs they must give, as numpy.savez writes them; "
            "compared at each load, on each provider.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE|a,b,c", help="The classes: a line each, or with commas."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="How it is asked: tensors (any graph), rows, text-embedding.  "
            "[dim]\\[default: rows with labels that fit, text-embedding with a tokenizer, else "
            "tensors][/dim]",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The tokenizer.json of a model that embeds texts."),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=1, help="Its version.  [dim]\\[default: the next one][/dim]"),
    ] = None,
    repository: opt.Repository = None,
    config: opt.Config = None,
    as_json: Annotated[Path | None, opt.json_option("The model's description")] = None,
) -> None:
    """Put an ONNX file into the repository, after it has been opened and has run once.

    Weights in files of their own come along. What can't be served is refused with the reason, and
    nothing of it is left. A name that is there already gets one more version.

    Ends with 1 if the model can't be served or a file can't be read.
    """
    from cluster.models.adding import NewModel, add_model, read_labels

    root = _repository(repository, config, must_exist=False)
    with _files_as_errors():
        classes = () if labels is None else read_labels(labels)
        new = NewModel(name, file, golden, classes, kind, tokenizer, version)
        info = add_model(new, root)
    if as_json is not None:
        write_json(msgspec.to_builtins(info), as_json)
        return
    _show(info)
    flag = "" if repository is None else f" --repository {root}"
    note(f"in {root / name}; serve it with `perfkit serve --model {name}{flag}`")


def list_(
    repository: opt.Repository = None,
    config: opt.Config = None,
    as_json: Annotated[Path | None, opt.json_option("What each model's folder says")] = None,
) -> None:
    """List the models that can be served by name: those of the repository, and the built-in ones.

    Nothing is opened, so `perfkit model check` says more.
    """
    from cluster.models.inference import ModelRepository

    root = _repository(repository, config)
    models = ModelRepository()
    found = [_listed(models, name) for name in models.names()]
    if as_json is not None:
        write_json({"repository": str(root), "models": found}, as_json)
        return
    table = plain_table(
        "model", "kind", "versions", "size", "about", left=("model", "kind", "about")
    )
    for one in found:
        bytes_text = "" if one["size_bytes"] is None else size(one["size_bytes"])
        served = " ".join(f"{it}*" if it in one["served"] else it for it in one["versions"])
        about = one["error"] or one["description"]
        cells = (one["name"], one["kind"], served, bytes_text, about)
        table.add_row(*(Text(it, "red" if one["error"] else "") for it in cells))
    out().print(table)
    note(f"the repository is {root}; * is served")


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Models, by name or path.  [dim]\\[default: all of the repository][/dim]",
        ),
    ] = None,
    repository: opt.Repository = None,
    config: opt.Config = None,
    as_json: Annotated[Path | None, opt.json_option("Each check")] = None,
) -> None:
    """Load each version of models on each provider that is here, and compare golden outputs.

    A number may differ by golden_atol + golden_rtol × its golden value, by default 1e-4 and 1e-3;
    config.toml of the model sets both.

    Ends with 1 if a version does not load or its outputs differ.
    """
    from cluster.models.checking import check_models
    from cluster.models.inference import ModelRepository
    from cluster.models.repository.folders import model_folders

    root = _repository(repository, config)
    chosen = names or sorted(model_folders([root]))
    if not chosen:
        note(f"there is no model in {root}; add one with `perfkit model add NAME FILE.onnx`")
    found = list(check_models(ModelRepository(), chosen))
    if as_json is not None:
        write_json(msgspec.to_builtins(found), as_json)
    elif found:
        _show_checks(found)
    if any(one.error for one in found):
        raise typer.Exit(FAILED)


def remove(
    name: Name,
    version: Annotated[
        int | None, typer.Option(min=1, help="Only this version.  [dim]\\[default: all][/dim]")
    ] = None,
    repository: opt.Repository = None,
    config: opt.Config = None,
    as_json: Annotated[Path | None, opt.json_option("What was removed")] = None,
) -> None:
    """Remove a model, or one version of it, from the repository.

    Workers that serve it go on until they are told to unload it, or end.

    Ends with 1 if it is not there.
    """
    from cluster.models.adding import remove_model

    root = _repository(repository, config)
    with _files_as_errors():
        gone = remove_model(name, root, version)
    if as_json is not None:
        write_json({"model": name, "versions": gone, "repository": str(root)}, as_json)
        return
    versions = ", ".join(map(str, gone))
    note(f"removed {name}{f', version {versions}' if versions else ''} from {root}")


def _repository(named: str | None, config: Path | None, *, must_exist: bool = True) -> Path:
    """The folder named here, or by the settings."""
    found = opt.settings(config, repository=named).repository
    return opt.find_repository(found, must_exist=must_exist)


def _show(info: ModelInfo) -> None:
    """What a model takes and gives, in a few lines."""
    lines = Text.assemble((info.name, "bold"), f" version {info.version}, kind {info.kind}, ")
    batch = f"batches of up to {info.batch_items_max}" if info.batches else "one question a run"
    lines.append(f"{size(info.file_size_bytes)}, {batch}")
    if info.golden:
        lines.append(", golden outputs match")
    for what, ports in (("takes", info.inputs), ("gives", info.outputs)):
        for port in ports:
            lines.append(f"\n  {what} {port}")
    if info.labels:
        lines.append(f"\n  labels {', '.join(map(str, info.labels))}")
    out().print(lines)
    for line in info.notes:
        note(line)


def _listed(models: Any, name: str) -> dict[str, Any]:
    """What a folder says, or why it says nothing."""
    from cluster.models.repository.weights import size_bytes

    facts: dict[str, Any] = {
        "name": name, "kind": "", "versions": [], "served": [], "size_bytes": None,
        "description": "", "error": None,
    }  # fmt: skip
    try:
        found = models.find(name)
        facts |= {"kind": found.manifest.kind, "versions": [str(it) for it in sorted(found.files)]}
        served = found.served()
    except ClusterError as error:
        return {**facts, "error": str(error)}
    try:
        facts["size_bytes"] = sum(size_bytes(found.files[it]) for it in served)
    except OSError as error:
        return {**facts, "error": f"cannot read {error.filename}: {error.strerror}"}
    about = found.manifest.description
    return {**facts, "served": [str(it) for it in served], "description": about}


def _show_checks(found: list[Check]) -> None:
    columns = ("model", "version", "provider", "load", "golden outputs")
    table = plain_table(*columns, left=("model", "provider", "golden outputs"))
    for one in found:
        said = "failed" if one.error else "match" if one.golden else "none to compare"
        load = "" if one.load_ms is None else quantity(one.load_ms, "ms")
        cells = (one.name, one.version or "", one.provider or "", load, said)
        table.add_row(*(Text(it, "red" if one.error else "") for it in cells))
    out().print(table)
    for one in found:
        if one.error:
            complain(one.error)


@contextmanager
def _files_as_errors() -> Iterator[None]:
    """Turn an error of the file system into a ClusterError that names the file."""
    try:
        yield
    except OSError as error:
        # Of a copy the second name is that of the target.
        name = error.filename2 or error.filename
        raise ClusterError(f"cannot use {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ClusterError(f"the labels are not text in UTF-8: {error}") from error


add_command(
    app, "add", add,
    ("any graph", "perfkit model add denoise denoise.onnx"),
    ("a classifier of rows", "perfkit model add iris iris.onnx --labels labels.txt"),
    ("a model that embeds texts", "perfkit model add bge model.onnx --tokenizer tokenizer.json"),
    ("with golden outputs", "perfkit model add iris iris.onnx --golden in.npz out.npz"),
    ("one more version", "perfkit model add iris better.onnx --version 3"),
)  # fmt: skip
add_command(
    app, "list", list_,
    ("what can be served", "perfkit model list"),
    ("for a program", "perfkit model list --json | jq '.models[].name'"),
)  # fmt: skip
add_command(
    app, "check", check,
    ("all of the repository", "perfkit model check"),
    ("one, or a folder anywhere", "perfkit model check iris ./exported/"),
)  # fmt: skip
add_command(
    app, "remove", remove,
    ("a model", "perfkit model remove iris"),
    ("one version", "perfkit model remove iris --version 1"),
)  # fmt: skip
add_command(
    app, "precision", precision,
    ("is int8 worth it?", "perfkit model precision minilm"),
    ("on the only card too", "perfkit model precision minilm --card any"),
    ("with inputs of your own", "perfkit model precision iris --golden in.npz --budget 0.1"),
)  # fmt: skip
