"""The time of a card's engines, from descriptors as amdgpu shows them, says which card worked."""

from pathlib import Path

import pytest

from cluster.models.providers.usage import check_used, engine_times_ns
from cluster.models.repository.manifest import ModelError

#: As an RX 580 with Linux 6.1 shows a client, shortened.
AMDGPU = """pos:\t0
flags:\t02100002
drm-driver:\tamdgpu
drm-client-id:\t{client}
drm-pdev:\t{pci}
drm-memory-vram:\t 98304 KiB
drm-engine-capacity-gfx:\t2 ns
drm-engine-gfx:\t{gfx} ns
drm-engine-compute:\t{compute} ns
"""
A, B = "0000:03:00.0", "0000:04:00.0"


def process(folder: Path, *texts: str) -> Path:
    (folder / "fdinfo").mkdir()
    for number, text in enumerate(texts):
        (folder / "fdinfo" / str(number)).write_text(text)
    return folder


def client(pci: str, number: int, gfx: int, compute: int = 0) -> str:
    return AMDGPU.format(pci=pci, client=number, gfx=gfx, compute=compute)


def test_engines_of_a_card_add_up_and_a_client_counts_once(tmp_path: Path) -> None:
    other = "drm-driver:\tvirtio_gpu\ndrm-pdev:\t0000:05:00.0\ndrm-engine-gfx:\t9 ns\n"
    found = process(
        tmp_path, client(A, 1, 10, 5), client(A, 1, 10, 5), client(A, 2, 100), client(B, 3, 7),
        other, "pos:\t0\n", "",
    )  # fmt: skip
    assert engine_times_ns(found) == {A: 115, B: 7}


def test_a_process_without_a_card_has_no_times(tmp_path: Path) -> None:
    assert engine_times_ns(tmp_path) == {}
    assert engine_times_ns() == {}


def test_a_card_that_worked_passes() -> None:
    check_used(A, {A: 5}, {A: 6, B: 9})
    check_used(A, {}, {A: 1})


@pytest.mark.parametrize(
    ("pci", "before", "after", "complaint"),
    [
        (A, {A: 5}, {A: 5}, f"the card at {A} did not do the work: this process has {A} open, and"),
        (A, {B: 1}, {A: 0, B: 2}, f"{B} did; PERFKIT_CARD names the card that is wanted"),
        (A, {}, {}, "this process has no card of amdgpu's open"),
        (None, {}, {B: 1}, f"the card at an unknown address did not do the work: {B} did"),
    ],
)
def test_a_card_that_did_not_work_is_told_with_what_did(
    pci: str | None, before: dict[str, int], after: dict[str, int], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        check_used(pci, before, after)
