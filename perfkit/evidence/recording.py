"""A measurement from its start to its saved form: when it began, on what machine, how long it took.

The machine's state is read before the measurement: afterwards its load is our own.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from cluster.spec import ClusterSpec
from perfkit.evidence.environment import fingerprint
from perfkit.evidence.results import Result
from perfkit.evidence.samples import Interval


class Recording:
    """A measurement that begins when this is made; `result` ends it."""

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

        Its parameters name the method of the interval.
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
