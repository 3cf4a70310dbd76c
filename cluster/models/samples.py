"""Real inputs with known answers, so that a model is proved right wherever its speed is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.models.manifest import needs_extra
from cluster.models.train_digits import FOLDER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def held_out_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What ``digits`` was never trained on: rows float32[360, 64] of 0 to 16, labels int64[360].

    Raises:
        ModelError: numpy is not installed.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise needs_extra("digits") from error
    with np.load(FOLDER / "held_out.npz", allow_pickle=False) as held_out:
        return held_out["rows"].astype(np.float32), held_out["labels"].astype(np.int64)
