"""What Python and its packages say: builds that are slow, versions with known faults."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from perfkit.bench.tuning.advice import Advice, Standing
from perfkit.evidence.environment import Environment

#: How much faster Debian's profile-guided Python 3.11 answered a lone task than a plain build of
#: the same version, side by side with a bare exchange; taken on another machine.
PGO_GAIN = 1.22
#: How many more requests uvicorn answers with httptools and uvloop than without; as above.
UVLOOP_GAIN = 4.0
#: What each extra brings, for those a user may miss.
EXTRAS: Mapping[str, str] = {
    "infer": "models",
    "serve": "the HTTP API",
    "gpu": "models on cards over Vulkan",
    "lab": "notebooks, reports and perfkit tune",
    "profile": "py-spy and memray",
}
#: Versions below these have a fault that a figure, or a cluster, may meet; each with its source.
FAULTY: Mapping[str, tuple[tuple[int, ...], str]] = {
    "libzmq": ((4, 3, 3), "a peer that never greets can stop others (CVE-2020-15166)"),
    "msgpack": ((1, 2, 1), "an Unpacker that is used again after an error may crash"),
}
#: Variables that make every Python process slow.
SLOWING = ("PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONASYNCIODEBUG", "PYTHONTRACEMALLOC",
           "COVERAGE_PROCESS_START")  # fmt: skip


def software_advice(environment: Environment) -> Iterator[Advice]:
    """What to do about Python and its packages."""
    yield _build(environment)
    yield _switches()
    yield _faulty(environment)
    yield from _requirements()


def _build(environment: Environment) -> Advice:
    found = environment.python_build
    if found is None:
        return Advice("Python build", Standing.UNKNOWN, None, evidence="it does not tell how")
    if "debug" in found:
        return Advice(
            "Python build", Standing.FAULT, found,
            "a debug build checks every object and is several times slower",
            "use the distribution's python3",
        )  # fmt: skip
    if "PGO" in found:
        return Advice("Python build", Standing.FINE, found)
    return Advice(
        "Python build",
        Standing.ADVICE,
        found,
        "a build without profile-guided optimisation runs all Python code slower",
        "use the distribution's python3, or PYTHON_CONFIGURE_OPTS='--enable-optimizations "
        "--with-lto' pyenv install",
        expected=PGO_GAIN,
        evidence="a lone task on Debian's 3.11 and on a plain build, side by side",
    )


def _switches() -> Advice:
    on = [name for name in SLOWING if os.environ.get(name)]
    on += ["-X dev"] if sys.flags.dev_mode and "PYTHONDEVMODE" not in on else []
    on += ["a debugger or a tracer"] if sys.gettrace() is not None else []
    if not on:
        return Advice("Python switches", Standing.FINE, "none that slow it down")
    return Advice(
        "Python switches",
        Standing.FAULT,
        ", ".join(on),
        "figures taken with them are figures of the checks",
        f"unset {' '.join(name for name in on if name in SLOWING)}".rstrip(),
    )


def _faulty(environment: Environment) -> Advice:
    bad = []
    for name, (since, fault) in FAULTY.items():
        found = environment.packages.get(name)
        if found is not None and _numbers(found) < since:
            bad.append(f"{name} {found}: {fault}")
    if not bad:
        return Advice("known faults", Standing.FINE, f"none in {', '.join(FAULTY)}")
    return Advice(
        "known faults", Standing.ADVICE, "; ".join(bad),
        "these versions fail in ways that look like the cluster's",
        "pip install -U pyzmq msgpack",
        evidence="it is about right answers, not about speed",
    )  # fmt: skip


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    found = []
    for part in text.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def _requirements() -> Iterator[Advice]:
    """Packages that are missing or outside the range that perfkit asks for."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(text) for text in requires("perfkit") or ()]
    except (PackageNotFoundError, ModuleNotFoundError):
        reason = "perfkit is not installed but runs from a folder, or there is no packaging"
        yield Advice("packages", Standing.UNKNOWN, None, evidence=reason)
        return
    missing: dict[str, list[str]] = {}
    outside = []
    for one in wanted:
        extra = next((it for it in EXTRAS if one.marker and f'"{it}"' in str(one.marker)), None)
        if one.marker is not None and not one.marker.evaluate({"extra": extra or ""}):
            continue
        found = _version(one.name)
        if found is None:
            missing.setdefault(extra or "", []).append(one.name)
        elif not one.specifier.contains(found, prereleases=True):
            outside.append(f"{one.name} {found} ({one.specifier})")
    yield _range_advice(outside)
    yield _extras_advice(missing)
    if "uvicorn" not in missing.get("serve", ()) and {"httptools", "uvloop"} & {
        *missing.get("serve", ())
    }:
        yield Advice(
            "HTTP parser and loop", Standing.ADVICE, "httptools or uvloop is missing",
            "the HTTP API falls back to pure Python", "pip install 'perfkit[serve]'",
            expected=UVLOOP_GAIN, evidence="requests a second of bare uvicorn with and without",
        )  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _range_advice(outside: list[str]) -> Advice:
    if not outside:
        return Advice("packages", Standing.FINE, "all within the range that is tested")
    return Advice(
        "packages", Standing.ADVICE, "; ".join(outside),
        "perfkit is tested with the versions that it asks for", "pip install -U perfkit",
        evidence="it is about right answers, not about speed",
    )  # fmt: skip


def _extras_advice(missing: Mapping[str, list[str]]) -> Advice:
    named = {extra: missing[extra] for extra in EXTRAS if extra in missing}
    if not named:
        return Advice("extras", Standing.FINE, "all installed")
    return Advice(
        "extras",
        Standing.ADVICE,
        "; ".join(f"{extra}: {', '.join(names)}" for extra, names in named.items()),
        f"without them there is no use of {', '.join(EXTRAS[extra] for extra in named)}",
        f"pip install 'perfkit[{','.join(named)}]'",
        evidence="nothing is gained unless you use them",
    )
