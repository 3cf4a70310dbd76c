"""What coverage follows: a context for the lines that others run too, and tables for whole tests.

Tracing doubles what Python costs, and what a start of a process costs. So what takes long is left
out where quick tests run the same lines.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

Tracer = Callable[..., Any] | None
NOTHING: tuple[Tracer, Tracer] = (None, None)

#: The variable by which coverage follows processes, and what it was last.
SETTING = "COVERAGE_PROCESS_CONFIG"
setting: str | None = None

#: Tests whose child processes are measured. In all others children run unmeasured: what most of
#: them run has tests within the test process. (The servers of tests/cluster/serve are measured.)
MEASURED = (
    "tests/cluster/models/runtime/test_choice.py",
    "tests/cluster/supervision/",
    "tests/cluster/test_local_functions.py",
    "tests/cluster/test_model_offers.py",
    "tests/cluster/test_process.py",
    "tests/perfkit/bench/counts/test_gate.py",
    "tests/perfkit/bench/regression/test_planted.py",
    "tests/perfkit/bench/serving/",
    "tests/perfkit/bench/test_bare.py",
    "tests/perfkit/bench/workloads/",
    "tests/perfkit/cli/profiling/",
    "tests/perfkit/cli/terminal/",
    "tests/perfkit/cli/test_serve.py",
    "tests/perfkit/cli/test_status.py",
    "tests/perfkit/cli/test_up.py",
    "tests/perfkit/cli/tuning/",
)

#: Tests that are left out themselves, with the threads that they start.
UNTRACED = (
    "tests/cluster/core/test_backpressure.py",
    "tests/cluster/core/test_policy_properties.py",
    "tests/cluster/core/test_queue.py::test_the_head",
    "tests/cluster/core/test_scheduler_properties.py",
    "tests/cluster/core/test_timers.py::TestTimers",
    "tests/cluster/core/test_unserved.py::test_many",
    "tests/cluster/models/kinds/test_embedding.py::test_a_vector_is",
    "tests/cluster/models/repository/test_textproto.py::test_what_is_written",
    "tests/cluster/models/runtime/test_loss.py::test_a_loss",
    "tests/cluster/models/test_adding.py::test_a_zipmap",
    "tests/cluster/models/test_train_digits.py::test_training_again",
    "tests/cluster/shells/test_client.py::test_a_map",
    "tests/cluster/shells/test_client.py::test_many_threads",
    "tests/cluster/shells/test_client.py::test_nothing_waits",
    "tests/cluster/shells/test_client.py::test_tasks_cancelled",
    "tests/cluster/shells/test_client.py::test_what_does_not_fit",
    "tests/cluster/shells/test_operators.py::test_a_restart",
    "tests/cluster/shells/test_worker.py::test_it_is_heard",
    "tests/cluster/simulation/test_simulator.py::test_a_",
    "tests/cluster/simulation/test_simulator.py::test_every",
    "tests/cluster/simulation/test_simulator.py::test_tasks",
    "tests/cluster/test_local.py::test_killing",
    "tests/cluster/vocabulary/test_lifecycle.py::test_the_scheduler",
    "tests/cluster/work/test_functions.py::test_what_cannot",
    "tests/cluster/work/test_plain_data.py::test_any",
    "tests/faults/test_children.py",
    "tests/faults/test_clients.py",
    "tests/faults/test_corruption.py",
    "tests/faults/test_handlers.py",
    "tests/faults/test_hostile.py",
    "tests/faults/test_interrupts.py",
    "tests/faults/test_pauses.py",
    "tests/faults/test_spec.py::test_a_status",
    "tests/faults/test_workers.py",
    "tests/faults/test_wrong_answers.py",
    "tests/perfkit/bench/counts/test_costs.py::test_a_stream",
    "tests/perfkit/bench/counts/test_gate.py",
    "tests/perfkit/bench/experiments/test_compare.py::test_nothing",
    "tests/perfkit/bench/experiments/test_scaling.py::test_many",
    "tests/perfkit/bench/goals/test_torn.py::test_torn",
    "tests/perfkit/bench/leaks/test_check.py::test_a_policy",
    "tests/perfkit/bench/leaks/test_check.py::test_addresses",
    "tests/perfkit/bench/leaks/test_check.py::test_messages",
    "tests/perfkit/bench/leaks/test_churn.py::test_a_newcomer",
    "tests/perfkit/bench/regression/test_cost.py",
    "tests/perfkit/bench/tuning/test_search.py::test_a_knob",
    "tests/perfkit/bench/tuning/test_search.py::test_the_search",
    "tests/perfkit/bench/workloads/test_served.py::test_files",
    "tests/perfkit/cli/test_baseline.py::test_the_verdict",
    "tests/perfkit/cli/test_bench.py::test_wrong",
    "tests/perfkit/cli/test_cli.py::test_help",
    "tests/perfkit/cli/test_compare.py::test_wrong",
    "tests/perfkit/evidence/test_samples.py::test_intervals",
    "tests/perfkit/evidence/test_stats.py::test_a_shift",
    "tests/perfkit/evidence/test_stats.py::test_at_most",
    "tests/perfkit/evidence/test_trend.py::test_it_agrees",
    "tests/perfkit/gpu/rocprof/test_fuzz.py",
    "tests/perfkit/gpu/rocprof/test_rows.py::test_memory",
    "tests/perfkit/gpu/test_cases_cards.py::test_every",
    "tests/perfkit/gpu/test_fuzz_sources.py",
    "tests/perfkit/optimized/test_policy.py::test_remembered",
    "tests/perfkit/optimized/test_specs.py::test_an_idea",
    "tests/perfkit/pool/test_buffers.py::TestAnyUse",
    "tests/perfkit/pool/test_connections.py::TestAnyUse",
    "tests/perfkit/profile/test_latency.py::test_stages",
    "tests/perfkit/report/figures/test_charts.py::test_any",
    "tests/perfkit/report/page/test_browser.py::test_a_page",
    "tests/test_",
)


@contextmanager
def tracing(own: Tracer = None, threads: Tracer = None) -> Iterator[None]:
    """A context that is traced so, in this thread and in those that it starts."""
    before = tracers()
    _trace(own, threads)
    try:
        yield
    finally:
        _trace(*before)


#: A context without tracing.
untraced = tracing


def tracers() -> tuple[Tracer, Tracer]:
    """What traces this thread, and those that it starts."""
    return sys.gettrace(), threading.gettrace()


def _trace(own: Tracer, threads: Tracer) -> None:
    sys.settrace(own)
    threading.settrace(threads)  # type: ignore[arg-type]


@contextmanager
def children_measured(are: bool = True) -> Iterator[None]:
    """A context in which coverage measures the processes that are started, or does not."""
    global setting
    before = os.environ.pop(SETTING, None)
    setting = before or setting
    if are and setting:
        os.environ[SETTING] = setting
    try:
        yield
    finally:
        os.environ.pop(SETTING, None)
        if before:
            os.environ[SETTING] = before


def leave_matplotlib_out() -> None:
    """Let matplotlib make pictures untraced, in which tests spend seconds: it is not ours."""
    if sys.gettrace() is not None and find_spec("matplotlib") is not None:
        from matplotlib.figure import Figure

        for name in ("subplots", "savefig"):
            setattr(Figure, name, untraced()(getattr(Figure, name)))
