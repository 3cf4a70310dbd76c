"""Real inputs with known answers, to prove a model right wherever its speed is shown."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.models.repository.manifest import needs_extra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGITS = Path(__file__).parent / "digits"
GRADED = Path(__file__).parent / "minilm" / "graded.txt"


def held_out_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Data ``digits`` was not trained on: rows float32[360, 64] of 0 to 16, labels int64[360].

    Raises:
        ModelError: numpy is not installed.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise needs_extra("digits") from error
    with np.load(DIGITS / "held_out.npz", allow_pickle=False) as held_out:
        return held_out["rows"].astype(np.float32), held_out["labels"].astype(np.int64)


@lru_cache
def graded_texts() -> tuple[tuple[str, ...], ...]:
    """Families of texts: one, one of like meaning, and one on the same subject that says something
    else. Texts of two families have different subjects.

    There are enough to tell half a point: the interval of a loss is ± 0.15 for int8 of minilm, and
    would be ± 0.25 for half as many. Pairs that share words but no meaning are left out: they tell
    encoders apart, not precisions, and widen the interval to ± 0.65.
    """
    lines = GRADED.read_text("utf-8").splitlines()
    return tuple(tuple(line.split(" | ")) for line in lines if not line.startswith("#"))


#: A text, one of like meaning in other words, and one with some of its words but another meaning.
#: A good embedding finds the first two nearer to each other than the first and the last.
LIKE_AND_UNLIKE: tuple[tuple[str, str, str], ...] = (
    ("A man is eating food.", "Someone has a meal.", "A man is driving a car."),
    ("The bank raised its interest rate.", "Borrowing costs went up.", "We sat on the river bank."),
    ("My computer will not start.", "The laptop fails to boot.", "The race will not start today."),
    ("How old are you?", "What is your age?", "How far are you from the old bridge?"),
    ("The film was dull.", "I found the movie boring.", "The film on the lake was frozen."),
    ("She plays the violin well.", "She is a gifted fiddler.", "She plays tennis on Mondays."),
    ("Water boils at 100 degrees.", "Heat turns liquid into steam.", "Water is cheap here."),
    ("The graphics card runs hot.", "The GPU's temperature is high.", "The birthday card is late."),
)
