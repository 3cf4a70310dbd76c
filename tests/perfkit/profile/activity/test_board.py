"""The board of a live view: its rows and bands, gaps for the unknown, and its lines of text."""

import re
from typing import Any

from cluster.vocabulary.errors import Unreachable
from cluster.vocabulary.printable import printable
from cluster.vocabulary.status import HostStatus, Status, WorkerStatus
from cluster.vocabulary.task import Gpu, GpuLoad, Load
from perfkit.profile.activity.board import HOSTS_SHOWN, ROWS_OF_WORKERS, Board, board_of
from perfkit.profile.activity.lines import as_lines, as_text
from perfkit.profile.activity.looks import Activity
from perfkit.profile.activity.sparklines import PLAIN_RAMP
from tests.perfkit.statuses import HOSTILE, status, worker, workers_with_cards


def board(*workers: WorkerStatus, now_s: float = 1.0, **facts: Any) -> Board:
    return board_after(status(*workers, **facts), now_s=now_s)


def board_after(*answers: Status | Unreachable, now_s: float = 1.0) -> Board:
    """The board at `now_s` after these answers at 0 s."""
    left = iter(answers)

    def answer(_: float) -> Status:
        found = next(left)
        if isinstance(found, Unreachable):
            raise found
        return found

    activity = Activity(answer, clock=lambda: 0.0)
    for _ in answers:
        activity.look()
    return board_of(activity, "tcp://x", now_s)


def cells(shown: Board, name: str) -> dict[str, str]:
    (line,) = (line for line in shown.lines if line.name.startswith(name))
    return {column: gauge.text for column, gauge in line.gauges.items()}


def test_workers_are_below_their_host_and_several_cards_below_their_worker() -> None:
    gpus = [Gpu("vega", 8 << 30), Gpu("polaris", 4 << 30)]
    hot = GpuLoad(1 << 30, 93.4, 104.2, 148.6, trouble="c is overheated")
    both = hot, GpuLoad(asleep=True)
    shown = board(
        worker("b", host="h-2", service_s_p50=0.0012, service_s_p99=0.0456),
        worker("a", host="h-1", gpus=gpus, load=Load(gpus=both, runs_on=("WebGPU · RX 580",))),
        worker("c", host="h-2", gpus=gpus[:1], load=Load(gpus=(GpuLoad(8 << 30, 0.0),))),
    )
    rows = [(line.depth, line.name, line.is_bad) for line in shown.lines]
    assert rows == [
        (0, "h-1, 1 worker", False), (1, "a", False), (2, "card 0 · vega", True),
        (2, "card 1 · polaris", False), (0, "h-2, 2 workers", False), (1, "b", False),
        (1, "c · vega", False),
    ]  # fmt: skip
    assert cells(shown, "card 0") == {
        "busy": "93 %", "VRAM": "7 GiB of 8 GiB", "temperature": "104 °C", "power": "149 W"
    }  # fmt: skip
    assert cells(shown, "card 1") == {
        "busy": "asleep", "VRAM": "– of 4 GiB", "temperature": "–", "power": "–"
    }  # fmt: skip
    assert cells(shown, "b") == {
        "in flight": "1 of 2", "p50": "1.2 ms", "p99": "46 ms", "heartbeat": "0.1 s",
        "serves": "digits, echo",
    }  # fmt: skip
    assert cells(shown, "a")["runs on"] == "WebGPU · RX 580"
    assert cells(shown, "c · vega") == cells(shown, "b") | {
        "busy": "0 %", "VRAM": "0 GiB of 8 GiB", "temperature": "–", "power": "–", "p50": "–",
        "p99": "–",
    }  # fmt: skip
    assert shown.remarks == ("a gets no work for one card: c is overheated",)


def test_what_is_not_known_is_a_gap_and_no_bar() -> None:
    shown = board(worker("a", gpus=[Gpu()], credit=0, held=0))
    gauges = shown.lines[1].gauges
    unknown = "busy", "VRAM", "temperature", "power", "p50", "p99"
    assert {name: gauges[name].text for name in unknown} == dict.fromkeys(unknown, "–")
    assert [gauge.share for gauge in gauges.values()] == [None] * len(gauges)


def test_many_workers_are_a_band_for_each_host() -> None:
    workers = workers_with_cards(hosts=3, workers=ROWS_OF_WORKERS)
    shown = board(*workers)
    assert [line.name for line in shown.lines] == [f"host-{n}, 20 workers" for n in range(3)]
    held = sum(it.held for it in workers if it.host == "host-1")
    band = cells(shown, "host-1")
    assert band["in flight"] == f"{held} of 80"
    assert re.fullmatch(r"\d+ % \(\d+ to \d+\)", band["busy"])
    assert re.fullmatch(r"\d+ W \(\d+ to \d+\)", band["power"])
    assert re.fullmatch(r"[\d.]+ ms \([\d.]+ to [\d.]+\)", band["p99"])
    assert all(0 <= line.gauges["busy"].share <= 1 for line in shown.lines)


def test_of_many_hosts_those_with_the_stalest_workers_are_shown() -> None:
    hosts = HOSTS_SHOWN + 5
    shown = board(*(worker(f"w-{n}", host=f"h-{n:02}", silent_s=n / 10) for n in range(hosts)))
    names = [line.name for line in shown.lines]
    assert names[0] == "h-05, 1 worker"
    assert names[HOSTS_SHOWN:] == ["… and 5 more hosts, all heard of since"]
    assert ("stalest worker", "w-24, heard 2.4 s ago") in shown.facts


def test_tasks_are_told_by_state_and_restarts_of_workers_as_remarks() -> None:
    shown = board(
        queued={"high": 2, "normal": 1_000},
        assigned=3,
        delayed=4,
        counters={"done": 5, "dead-lettered": 6, "worker_deaths": 1, "failed": 0},
        hosts=[HostStatus("h", 2, 3, 0.1, "gave up w-1"), HostStatus("i", 1, 1, 0.1)],
    )
    assert dict(shown.facts) == {
        "workers": "none", "queued": "1,002 (2 high, 1,000 normal)", "assigned": "3",
        "waiting for a retry": "4", "done": "5", "dead-lettered": "6", "worker deaths": "1",
    }  # fmt: skip
    assert shown.remarks == (
        "h started workers again 3 times. gave up w-1",
        "i started workers again once.",
    )


def test_without_an_answer_the_last_figures_stay_and_are_said_to_be_old() -> None:
    gone = Unreachable("away")
    late = board_after(status(worker("a")), gone, now_s=5.0)
    assert (late.is_fresh, late.state) == (False, "no answer for 5.0 s")
    assert [line.name for line in late.lines] == ["h, 1 worker", "a"]
    assert [curve.text for curve in late.curves] == ["0", "unknown"]
    assert [value for _, value in late.curves[0].series] == [0, None]
    assert board_after(status(), gone, now_s=0.5).is_fresh
    assert board_after(gone).lines == ()


def test_the_lines_of_a_board_fit_a_terminal_and_stay_ascii_with_an_ascii_ramp() -> None:
    shown = board(*workers_with_cards(2, 2), counters={"done": 5})
    lines = as_text(shown, 120).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[-1].split()[:4] == ["gpu-1-1", "·", "vega", "–"]
    plain = "".join(piece.text for line in as_lines(shown, 80, PLAIN_RAMP) for piece in line)
    assert plain.isascii()


def test_text_from_elsewhere_does_not_steer_a_terminal() -> None:
    workers = [worker(HOSTILE, host=HOSTILE, models=[HOSTILE], load=Load(gpu_trouble=HOSTILE))]
    text = as_text(board(*workers, policy=HOSTILE))
    assert not re.search("[\x00-\x09\x0b-\x1f\x80-\x9f\u202e]", text)
    assert text.count(printable(HOSTILE)) == 7
