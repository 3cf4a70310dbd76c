"""Which spec is the fastest for your work on this machine, and what holds the machine back.

`tune` searches a spec's knobs under a load of `make_load`, or of your own function by
`function_load`, on living clusters; `doctor` reads the machine and saved results. Names are
imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkit.bench.tuning.checkup import doctor as doctor
    from perfkit.bench.tuning.functions import function_load as function_load
    from perfkit.bench.tuning.loads import make_load as make_load
    from perfkit.bench.tuning.search import tune as tune
else:  # a type checker that saw this __getattr__ would accept any name
    _HOME = {
        "doctor": "checkup",
        "function_load": "functions",
        "make_load": "loads",
        "tune": "search",
    }
    __all__ = list(_HOME)

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
