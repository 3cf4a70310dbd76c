"""From the start of a measurement to its saved form: when it began, on what, and how long it took.

The machine's state is read before the measurement and not after it, when its load is our own.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from cluster.spec import ClusterSpec
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.results import Result
from perfkit.evidence.stats import Interval


class Recording:
    """Begins when it is made; `result` ends it."""

    def __init__(self) -> None:
        self._environment = fingerprint()
        self._started = datetime.now(UTC)
        self._began_s = time.perf_counter()

    def result(
        self,
        experiment: str,
        spec: ClusterSpec,
        figure: Interval,
        unit: str,
        samples: list[float],
        *,
        parameters: dict[str, Any] | None = None,
        engine: str = "zmq",
        **facts: Any,
    ) -> Result:
        """The result with this figure; `facts` are further fields of Result.

        How the interval was made is noted among its parameters.
        """
        return Result(
            experiment=experiment,
            spec=spec.name,
            engine=engine,
            value=figure.value,
            unit=unit,
            low=figure.low,
            high=figure.high,
            samples=samples,
            environment=self._environment,
            parameters={**(parameters or {}), "interval": figure.method},
            started_utc=self._started.isoformat(),
            duration_s=time.perf_counter() - self._began_s,
            **facts,
        )
