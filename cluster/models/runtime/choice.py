"""The provider and the precision of a model on this host: tried once, then remembered.

Without a card (`cluster.vocabulary.cards.CARD` is not set) and with a fixed precision there is
nothing to choose and nothing is tried. Otherwise `cluster.models.runtime.candidates` compares
answers and times, and the result is kept in the cache for this card, driver, runtime, file and
wish.

**A card that can't be used is an error, not a slow success**: where a card is asked for and Vulkan
does not show it, loading fails, unless the extra [gpu] is not installed at all. A card that is
there, but wrong or slower for a model, leaves the model to the CPU, and the notes of the model say
so; with the provider "webgpu" that fails too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from cluster.models.providers.placement import Node, nodes_on
from cluster.models.providers.usage import check_used, engine_times_ns
from cluster.models.providers.webgpu import (
    NEEDS_PLUGIN,
    WEBGPU,
    check_options,
    claim_card,
    claimed_card,
    has_plugin,
)
from cluster.models.repository.manifest import ModelError
from cluster.models.runtime.cache import sha256_hex
from cluster.models.runtime.candidates import (
    INPUTS,
    OWN,
    PART_ROWS,
    PROVIDERS,
    SAMPLE,
    Candidate,
    Request,
    Row,
    answers_name,
    outputs_name,
    try_candidates,
)
from cluster.models.runtime.convert_precision import PRECISIONS
from cluster.models.runtime.golden import (
    SAME,
    difference,
    read_groups,
    read_tensors,
    run_all,
    write_groups,
)
from cluster.models.runtime.loss import Exam
from cluster.models.runtime.session import CPU, OpenSession, Provider, load_runtime
from cluster.models.runtime.sharing import Workshop, processor
from cluster.scratch import ScratchFolder
from cluster.vocabulary.cards import CARD
from cluster.vocabulary.errors import did_you_mean

#: Raised with every change of what a trial does or asks.
VERSION = 4
AUTO = "auto"
#: The precision of a file that is not converted.
AS_IS = PRECISIONS[0]
#: What `AUTO` may cost by default.
BUDGET_POINTS = 0.5
ROWS = "rows.json"
SHADERS = "shaders"


class Wish(NamedTuple):
    """What is wanted for a model: a provider ("cpu", "webgpu"), a precision, or `AUTO` for the
    fastest. ``budget_points`` is the loss of accuracy that an automatic precision may cost.
    ``options`` are those of the WebGPU provider.
    """

    provider: str = AUTO
    precision: str = AS_IS
    budget_points: float = BUDGET_POINTS
    options: Mapping[str, str] = {}

    def check(self) -> None:
        """Raise ModelError for a provider, a precision or an option that there is not."""
        for what, word, known in (
            ("provider", self.provider, (AUTO, *PROVIDERS)),
            ("precision", self.precision, (AUTO, *PRECISIONS)),
        ):
            if word not in known:
                hint = did_you_mean(word, known) or f"; there are {', '.join(known)}"
                raise ModelError(f"there is no {what} {word!r}{hint}")
        check_options(self.options)


class Choice(NamedTuple):
    """The precision and the providers to open the model ``name`` with (none: any but a card), and
    the ``notes`` that say why. After a trial ``row`` has the figures of what was chosen, and two
    files have its inputs and outputs.
    """

    name: str
    precision: str
    preference: tuple[Provider, ...] = ()
    notes: tuple[str, ...] = ()
    row: Row | None = None
    inputs: Path | None = None
    outputs: Path | None = None

    def accept(self, opened: OpenSession) -> None:
        """Have a session on the card answer the inputs of the trial, which also warms it up.

        Raises:
            ModelError: it answers otherwise than in the trial, another device did the work, or
                nodes are on the CPU that were not there.
        """
        if self.row is None or self.row.provider == "cpu":
            return
        try:
            self._check(opened, set(self.row.cpu_nodes))
        except ModelError as error:
            raise ModelError(f"model {self.name!r} on {opened.device}: {error}") from error

    def _check(self, opened: OpenSession, cpu_nodes: set[Node]) -> None:
        assert self.inputs is not None
        assert self.outputs is not None
        strays = set(nodes_on(opened.session, CPU)) - cpu_nodes
        if strays:
            raise ModelError(f"{min(strays)} is on the CPU, and was not in the trial")
        before = engine_times_ns()
        outputs = run_all(opened.session, read_tensors(self.inputs))
        if not claimed_card().is_software:
            check_used(claimed_card().pci, before, engine_times_ns())
        apart = difference(read_tensors(self.outputs), outputs)
        if apart > SAME:
            raise ModelError(f"its answers are {apart:.2g} from those of its trial")


def choose(
    name: str,
    make_workshop: Callable[[], Workshop],
    wish: Wish,
    make_exam: Callable[[Path], Exam],
    depends_on: Callable[[], object],
    *,
    threads: int = 1,
    rows_max: int = PART_ROWS,
) -> Choice:
    """How to open the model ``name`` on this host, by a trial if there is anything to choose; only
    then its workshop is made. ``make_exam`` takes the ONNX file; the exam ``depends_on`` this and
    the model's files. The card is claimed if one takes part.

    Raises:
        ModelError: the wish can't be met.
    """
    wish.check()
    is_bound = wish.provider == AUTO and CARD in os.environ
    with_card = wish.provider == "webgpu" or (is_bound and has_plugin())
    if not with_card and wish.precision != AUTO:
        notes = (f"not tried on the card: {NEEDS_PLUGIN}",) if is_bound else ()
        return Choice(name, wish.precision, (CPU,) if wish.provider == "cpu" else (), notes)
    workshop = make_workshop()
    cache = workshop.cache
    runtime = load_runtime(name)
    try:
        card = claim_card(runtime, cache.folder / SHADERS) if with_card else None
    except ModelError as error:
        raise ModelError(f"model {name!r}: {error}") from error
    providers = [it for it in PROVIDERS if wish.provider in (it, AUTO) and (it == "cpu" or card)]
    request, failed = candidates(workshop, wish, providers, threads, rows_max)
    request = msgspec.structs.replace(request, only_faster="cpu" in providers)
    key = (
        VERSION, workshop.hashes(), str(card), card and card.driver, runtime.__version__,
        _version("onnxruntime-ep-webgpu"), processor(), threads, rows_max,
        wish._replace(budget_points=0.0), depends_on(),
    )  # fmt: skip
    entry = f"{name}-choice-{sha256_hex(repr(key).encode())[:16]}"

    def build(folder: Path) -> None:
        rows = try_all(request, make_exam(Path(request.plain)), folder)
        (folder / ROWS).write_bytes(msgspec.json.encode((*rows, *failed)))

    try:
        found = cache.entry(entry, build)
    except (ModelError, OSError) as error:
        # An OSError is the cache's.
        if wish.provider != AUTO or wish.precision == AUTO:
            raise ModelError(f"model {name!r}: it can't be tried: {error}") from error
        return Choice(name, wish.precision, (CPU,), (f"not tried on {card}: {error}",))
    rows = msgspec.json.decode((found.folder / ROWS).read_bytes(), type=tuple[Row, ...])
    if any(row.may_pass for row in rows):
        cache.discard(entry)  # the next load tries again
    return _decide(name, wish, rows, found.folder)


def try_all(request: Request, exam: Exam, folder: Path) -> list[Row]:
    """The rows of a trial, whose sample and its outputs stay in ``folder``. The precision of the
    file as it is has no loss, and one that was not asked everything has none that is known.

    Raises:
        ModelError: the model's own file fails, or its answers can't be judged.
    """
    with ScratchFolder("trial-") as name:
        place = Path(name)
        if exam.groups:
            write_groups(place / INPUTS, exam.groups)
        rows = try_candidates(request, place)
        own = read_groups(place / OWN)
        for at, row in enumerate(rows):
            answers = place / answers_name(at)
            if exam.judge and not row.trouble and row.precision != AS_IS and answers.exists():
                loss = exam.judge(own, read_groups(answers))
                rows[at] = msgspec.structs.replace(row, loss=loss)
        for file in (SAMPLE, *map(outputs_name, range(len(rows)))):
            if (place / file).exists():
                shutil.copy(place / file, folder / file)
    return rows


def candidates(
    workshop: Workshop, wish: Wish, providers: Sequence[str], threads: int, rows_max: int
) -> tuple[Request, list[Row]]:
    """What to try, and rows for what can't be made.

    Raises:
        ModelError: the wish can't be met, or the model's file can't be made.
    """
    wish.check()
    tried, failed = [], []
    for precision in PRECISIONS if wish.precision == AUTO else (wish.precision,):
        for provider in providers:
            options = dict(wish.options) if provider != "cpu" else {}
            try:
                file = workshop.in_precision(precision, on_card=provider != "cpu")
                tried.append(Candidate(precision, provider, str(file.path), options))
            except ModelError as error:
                failed.append(Row(precision, provider, None, trouble=str(error)))
    plain, shaders = workshop.plain().path, workshop.cache.folder / SHADERS
    request = Request(workshop.name, str(plain), tuple(tried), str(shaders), threads, rows_max)
    return request, failed


def fastest(wish: Wish, rows: Sequence[Row]) -> int | None:
    """The number of the fastest row that is right and surely within the budget; None without."""
    fit = {
        at: row.items_per_s
        for at, row in enumerate(rows)
        if not row.trouble and row.items_per_s and (wish.precision != AUTO or _is_fit(wish, row))
    }
    return max(fit, key=fit.__getitem__, default=None)


def _is_fit(wish: Wish, row: Row) -> bool:
    """Whether a row is surely within the budget. What answers like the model's own file, as another
    device would, loses nothing; without a known loss only that file itself is fit.
    """
    if row.precision == AS_IS or row.loss is None:
        return row.precision == AS_IS
    same = row.difference is not None and row.difference <= SAME
    return same or row.loss.verdict(wish.budget_points) == "within"


def _decide(name: str, wish: Wish, rows: tuple[Row, ...], folder: Path) -> Choice:
    at = fastest(wish, rows)
    others = "; ".join(str(row) for number, row in enumerate(rows) if number != at)
    if at is None:
        raise ModelError(f"model {name!r} can't be served so: {others}")
    best = rows[at]
    note = f"chosen {best}" + (f"; {others}" if others else "")
    preference: tuple[Provider, ...] = (CPU,)
    if best.provider == "webgpu":
        preference = ((WEBGPU, dict(wish.options)),)
    files = folder / SAMPLE, folder / outputs_name(at)
    return Choice(name, best.precision, preference, (note,), best, *files)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # it loads a parser of e-mail

    try:
        return version(package)
    except PackageNotFoundError:
        return ""
