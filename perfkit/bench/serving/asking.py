"""The generator's handle: jobs go to its process, and a report with any mistake counts for nothing.

An answer that is wrong, a status other than 200 and a connection that broke end a measurement: a
server that fails fast would win otherwise.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from cluster.local import Process
from cluster.scratch import ScratchFolder
from cluster.vocabulary.printable import count_of
from perfkit.bench.serving.exchange import Job, Questions, Report, request_bytes
from perfkit.bench.serving.generator import read_message, write_message
from perfkit.bench.workloads.load import ExperimentError, WrongResult

MODULE = "perfkit.bench.serving.generator"


class Generator:
    """The load generator's process, during a with block."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(ScratchFolder("generator-")))
            self._process = Process("generator", MODULE, [], folder)
            stack.callback(self._process.kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, job: Job) -> Report:
        """The report of one job; ExperimentError if the generator died."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            write_message(process.stdin, msgspec.msgpack.encode(job))
            message = read_message(process.stdout)
        except OSError:
            message = None
        if message is None:
            raise ExperimentError(f"the load generator ended with {process.wait()}")
        return msgspec.msgpack.decode(message, type=Report)

    def ask(
        self,
        name: str,
        port: int,
        questions: Questions,
        connections: int,
        duration_s: float,
        *,
        rate_per_s: float | None = None,
        seed: int = 0,
    ) -> Report:
        """A report whose answers are all right.

        Raises WrongResult, which calls the server `name`, if one of them was not, and
        ExperimentError if the server did not answer.
        """
        report = self.run(
            Job(
                port=port,
                requests=[
                    request_bytes(questions.path, body, questions.headers)
                    for body in questions.bodies
                ],
                expected=questions.expected,
                compared=questions.compared,
                cosine_min=questions.cosine_min,
                connections=connections,
                duration_s=duration_s,
                rate_per_s=rate_per_s,
                seed=seed,
            )
        )
        refused = report.answers - report.statuses.get(200, 0)
        if report.wrong:
            raise WrongResult(
                f"{name} gave {report.wrong:,} wrong answers of {report.answers:,}: "
                f"{report.mistake}"
            )
        if report.broken or refused or not report.answers:
            raise ExperimentError(
                f"{name} failed {report.broken + refused:,} of "
                f"{count_of(report.answers + report.broken, 'request')}: {report.mistake}"
            )
        return report
