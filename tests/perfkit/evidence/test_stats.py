"""Verdicts against known answers, and against a machine that drifts as ours do."""

import json
import math
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from _pytest.mark import ParameterSet
from hypothesis import given
from hypothesis import strategies as st

from perfkit.evidence.stats import Comparison, abba, compare_blocks
from perfkit.evidence.verdicts import Verdict

CLAIMS = {Verdict.FASTER, Verdict.SLOWER}


def slow(*values: object) -> list[ParameterSet]:
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def test_orders_are_random_and_every_other_one_is_a_reversal() -> None:
    order = abba(200, seed=1)
    assert set(order) == {"AB", "BA"}
    assert all(b == a[::-1] for a, b in list(pairwise(order))[::2])
    assert 60 <= order.count("AB") <= 140
    assert len({"".join(abba(12, seed)) for seed in range(20)}) > 10


def test_a_third_arm_takes_part_in_the_order() -> None:
    order = abba(7, seed=2, arms="ABC")
    assert ["".join(sorted(group)) for group in order] == ["ABC"] * 7
    assert order == abba(7, seed=2, arms="ABC")
    assert abba(0, seed=2) == []


@pytest.mark.parametrize(("count", "arms"), [(-1, "AB"), (2, "AA"), (2, "")])
def test_an_order_that_makes_no_sense_is_refused(count: int, arms: str) -> None:
    with pytest.raises(ValueError, match=r"must"):
        abba(count, 1, arms)


STEADY = [100.0, 101.0, 99.0, 100.0, 100.5, 99.5, 100.0, 100.0]


def scaled(factor: float) -> list[float]:
    """STEADY times a factor, with a disturbance of its own."""
    return [factor * x * (1 + 0.002 * (-1) ** i) for i, x in enumerate(STEADY)]


@pytest.mark.parametrize(
    ("factor", "direction", "verdict"),
    [
        (1.3, "higher", Verdict.FASTER),
        (1.3, "lower", Verdict.SLOWER),
        (0.7, "higher", Verdict.SLOWER),
        (0.7, "lower", Verdict.FASTER),
        (1.0, "higher", Verdict.SAME),
        (1.0, "lower", Verdict.SAME),
    ],
)
@pytest.mark.parametrize("blocks", [4, 7])
def test_a_verdict_knows_which_way_is_better(
    factor: float, direction: str, verdict: Verdict, blocks: int
) -> None:
    found = compare_blocks(
        STEADY[:blocks],
        scaled(factor)[:blocks],
        STEADY[:blocks][::-1],
        direction=direction,  # type: ignore[arg-type]
    )
    assert found.verdict is verdict
    assert found.ratio == pytest.approx(factor, rel=0.01)
    assert found.low <= factor <= found.high
    assert found.aa_ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("blocks", [0, 3])
def test_fewer_than_four_pairs_give_no_verdict(blocks: int) -> None:
    found = compare_blocks(STEADY[:blocks], scaled(2)[:blocks], direction="higher")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "fewer than 4" in found.reason


def test_a_control_that_differs_from_itself_spoils_the_verdict() -> None:
    found = compare_blocks(STEADY, scaled(1.5), scaled(1.1), direction="higher")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "A/A control" in found.reason
    assert found.aa_low > 1


def test_a_control_off_by_less_than_the_band_spoils_nothing() -> None:
    control = [x * 1.01 for x in STEADY]
    assert compare_blocks(STEADY, scaled(1.5), control, direction="higher").verdict == "faster"


def test_a_difference_no_larger_than_the_controls_is_not_claimed() -> None:
    control = [x * (1 + 0.04 + 0.1 * (-1) ** i) for i, x in enumerate(STEADY)]
    found = compare_blocks(STEADY, scaled(1.035), control, direction="higher")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "control's ratio" in found.reason
    assert compare_blocks(STEADY, scaled(1.035), direction="higher").verdict is Verdict.FASTER


def test_without_a_control_a_difference_must_clear_the_band() -> None:
    b = [x * (1.025 + 0.008 * (-1) ** i) for i, x in enumerate(STEADY)]
    alone = compare_blocks(STEADY, b, direction="higher")
    assert alone.verdict is Verdict.INCONCLUSIVE
    assert "without a control" in alone.reason
    assert compare_blocks(STEADY, b, STEADY, direction="higher").verdict is Verdict.FASTER


def test_a_wide_interval_around_1_is_not_called_the_same() -> None:
    noisy = [x * (1 + 0.2 * (-1) ** i) for i, x in enumerate(STEADY)]
    found = compare_blocks(STEADY, noisy, direction="lower")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "includes 1" in found.reason


def test_a_difference_at_the_edge_of_the_band_is_too_small_to_call() -> None:
    b = [x * (1.018 + 0.008 * (-1) ** i) for i, x in enumerate(STEADY)]
    found = compare_blocks(STEADY, b, STEADY, direction="lower")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "too small" in found.reason


def test_one_outlying_pair_does_not_hide_a_difference() -> None:
    b = scaled(1.2)
    b[3] /= 3
    assert compare_blocks(STEADY, b, direction="higher").verdict is Verdict.FASTER


def test_counters_that_never_vary_are_compared_exactly() -> None:
    found = compare_blocks([2] * 8, [1] * 8, [2] * 8, direction="lower")
    assert found.verdict is Verdict.FASTER
    assert found.ratio == pytest.approx(0.5)
    assert found.low == found.ratio == found.high
    assert compare_blocks([2] * 4, [2] * 4, direction="lower").verdict is Verdict.SAME


def test_coarse_figures_with_ties_are_still_bounded() -> None:
    found = compare_blocks([100.0] * 8, [100.0] * 5 + [130.0] * 3, direction="higher")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert 0.7 < found.low < 1 < found.high < 1.6


def test_a_bound_beyond_the_largest_number_is_unknown() -> None:
    found = compare_blocks([1e-300, 1.0], [1.0, 1e-300], direction="higher", confidence=0.999)
    assert found.ratio == pytest.approx(1)
    assert found.high is None


def test_many_samples_of_a_block_count_as_their_median_in_arrays_too() -> None:
    np = pytest.importorskip("numpy")
    samples = np.array([[x, 2 * x, 9 * x] for x in STEADY])
    found = compare_blocks(np.array(STEADY), samples, STEADY, direction="higher")
    medians = [statistics.median(block) for block in samples.tolist()]
    assert found == compare_blocks(STEADY, medians, STEADY, direction="higher")
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


@pytest.mark.parametrize(
    ("a", "b", "options", "complaint"),
    [
        ([1.0, 2.0], [1.0], {}, "a_blocks has 2 blocks and b_blocks 1"),
        ([1.0], [0.0], {}, r"b_blocks\[0\] is 0.0: a ratio needs"),
        ([[1.0, -5.0, -5.0]], [1.0], {}, r"a_blocks\[0\] is -5.0"),
        ([1.0], [[]], {}, r"b_blocks\[0\] has no samples"),
        ([1.0], [1.0], {"direction": "up"}, "direction must be"),
        ([1.0], [1.0], {"same_band": -0.1}, "same_band must be"),
    ],
)
def test_blocks_that_cannot_be_compared_are_refused(
    a: list[float], b: list[float], options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        compare_blocks(a, b, **{"direction": "higher", **options})  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(0.01, 1e6), st.floats(0.01, 1e6)), min_size=4, max_size=7))
def test_swapping_the_arms_inverts_the_verdict(pairs: list[tuple[float, float]]) -> None:
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    swap = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
    there = compare_blocks(a, b, direction="higher", resamples=100)
    back = compare_blocks(b, a, direction="higher", resamples=100)
    assert there.verdict is swap.get(back.verdict, back.verdict)
    assert there.ratio == pytest.approx(1 / back.ratio)


def test_a_comparison_explains_itself_to_a_terminal_and_a_notebook() -> None:
    found = compare_blocks(STEADY, scaled(1.3), STEADY[::-1], direction="higher")
    assert found.describe().startswith("faster: B/A 1.3")
    assert "A/A control 1 (0.99" in found.describe()
    assert "no A/A control" in compare_blocks([], [], direction="higher").describe()
    assert ": B/A 2, no" in compare_blocks([1.0], [2.0], direction="higher").describe()
    assert '<span class="badge faster">faster</span></td>' in found._repr_html_()


NOISE = 0.02
SHIFT = 1.1
#: What identical code differed by between two jobs.
JUMP = math.log(1.26)
#: Rates of real blocks of the baseline, ten from each of two dozen runs on fresh processes.
RECORDED = json.loads(Path(__file__).with_name("recorded_throughput.json").read_text())

Session = dict[str, list[list[float]]]


def recorded_session(seed: int, pairs: int, b_over_a: float) -> Session:
    """Blocks of A, B and the control C, resampled from recorded runs of one code, on a machine with
    a trend, a swing, and jumps up and down.
    """
    rng = random.Random(seed)
    order = "".join(abba(pairs, seed, "ABC"))
    trend, swing = rng.uniform(-0.3, 0.3), rng.uniform(0, 0.1)
    period, phase = rng.uniform(3, 20), rng.uniform(0, 6)
    jumps = [(rng.randrange(len(order)), rng.choice([-JUMP, JUMP])) for _ in range(3)]
    blocks: Session = {"A": [], "B": [], "C": []}
    for i, arm in enumerate(order):
        speed = trend * i / len(order) + swing * math.sin(i / period * 2 * math.pi + phase)
        speed += sum(size for at, size in jumps if at <= i)
        factor = math.exp(speed) * (b_over_a if arm == "B" else 1)
        run = rng.choice(RECORDED["samples_by_run"])
        blocks[arm].append([rate * factor for rate in rng.choices(run, k=len(run))])
    return blocks


def drifting_session(seed: int, pairs: int, b_over_a: float) -> Session:
    """Blocks of A, B and the control C on a machine that is 26 % off, drifts, swings and jumps."""
    rng = random.Random(seed)
    order = "".join(abba(pairs, seed, "ABC"))
    job, trend = rng.gauss(0, 0.26), rng.gauss(0, 0.15)
    period, phase = rng.uniform(3, 20), rng.uniform(0, 6)
    jumps = [(rng.randrange(len(order)), rng.gauss(0, 0.26)) for _ in range(2)]
    blocks: Session = {"A": [], "B": [], "C": []}
    for i, arm in enumerate(order):
        speed = job + trend * i / len(order) + 0.05 * math.sin(i / period * 2 * math.pi + phase)
        speed += sum(size for at, size in jumps if at <= i)
        speed += rng.gauss(0, NOISE) + (math.log(b_over_a) if arm == "B" else 0)
        blocks[arm].append([math.exp(speed + abs(rng.gauss(0, 0.05))) for _ in range(15)])
    return blocks


def verdicts(
    pairs: int,
    b_over_a: float,
    *,
    control: bool,
    draw: Callable[[int, int, float], Session] = drifting_session,
) -> list[Verdict]:
    found = []
    for seed in range(100):
        session = draw(seed, pairs, b_over_a)
        aa_blocks = session["C"] if control else None
        found.append(
            compare_blocks(
                session["A"], session["B"], aa_blocks, direction="higher", resamples=300
            ).verdict
        )
    return found


@pytest.mark.parametrize("control", [True, *slow(False)])
@pytest.mark.parametrize("pairs", [4, *slow(6, 8), 12])
def test_at_most_five_in_a_hundred_comparisons_of_a_with_a_claim_a_difference(
    pairs: int, control: bool
) -> None:
    assert sum(verdict in CLAIMS for verdict in verdicts(pairs, 1.0, control=control)) <= 5


@pytest.mark.parametrize("control", [True, False])
def test_a_shift_of_ten_percent_is_seen_through_the_drift(control: bool) -> None:
    found = verdicts(12, SHIFT, control=control)
    assert found.count(Verdict.FASTER) > 80
    assert Verdict.SLOWER not in found


@pytest.mark.parametrize("control", [True, *slow(False)])
@pytest.mark.parametrize("pairs", [4, *slow(8, 12)])
def test_at_most_five_in_a_hundred_comparisons_of_recorded_blocks_claim_a_difference(
    pairs: int, control: bool
) -> None:
    found = verdicts(pairs, 1.0, control=control, draw=recorded_session)
    assert sum(verdict in CLAIMS for verdict in found) <= 5


@pytest.mark.parametrize("control", [True, *slow(False)])
def test_a_shift_of_ten_percent_of_recorded_blocks_is_seen(control: bool) -> None:
    for b_over_a, verdict in ((SHIFT, Verdict.FASTER), (1 / SHIFT, Verdict.SLOWER)):
        found = verdicts(16, b_over_a, control=control, draw=recorded_session)
        assert found.count(verdict) > 70
        assert CLAIMS & {*found} == {verdict}


def test_a_test_of_unpaired_samples_would_have_claimed_differences_that_are_not_there() -> None:
    """The simulated machine is a hard one: it fools Welch's test on all samples."""
    alarms = 0
    for seed in range(100):
        arms = drifting_session(seed, 8, 1.0)
        a, b = ([x for block in arms[arm] for x in block] for arm in "AB")
        error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
        alarms += abs(statistics.fmean(a) - statistics.fmean(b)) > 1.97 * error
    assert alarms > 20


def test_statistics_start_without_numpy() -> None:
    code = "import perfkit.evidence.stats, perfkit.evidence.results, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "perfkit.evidence.stats" in loaded.stdout.split()
    assert {"numpy", "pandas", "zmq"}.isdisjoint(loaded.stdout.split())
