"""The vendor's tools as a last resort: optional, slow, and asked about all cards at once.

Most cards lack a sensor or two, so the tools would run at every sample, each for a second of
processor time; and they wake the cards that sleep. They are asked only on request, and an answer is
kept for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from perfkit.gpu.device.schema import Found, Trouble
from perfkit.gpu.sources import amdsmi
from perfkit.gpu.sources.asking import ToolError
from perfkit.gpu.sources.smi import ask_amd_smi, ask_rocm_smi

CACHE_S = 2.0
#: A tool that failed is left alone for longer: it is missing, or the driver hangs.
RETRY_S = 60.0


class Tool:
    """A tool that is asked at most once every `cache_s`.

    `ask` gives the known fields of each card by PCI address, or by `card0` without one, and raises
    ToolError; `clock` counts seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Mapping[str, Found]],
        cache_s: float = CACHE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._cache_s = cache_s
        self._clock = clock
        self._until_s: float | None = None
        self._cards: Mapping[str, Found] = {}
        #: why no card is known
        self.error: str | None = None

    @property
    def has_answered(self) -> bool:
        """Whether it knew of a card when it was asked last."""
        return bool(self._cards)

    def cards(self) -> Mapping[str, Found]:
        """The known fields of each card, at most `cache_s` old; no card while the tool fails."""
        now = self._clock()
        if self._until_s is None or now >= self._until_s:
            try:
                self._cards, self.error = self._ask(), None
            except ToolError as error:
                self._cards, self.error = {}, str(error)
            self._until_s = now + (self._cache_s if self.error is None else RETRY_S)
        return self._cards

    def read(self, keys: Sequence[str | None], wanted: Collection[str], found: Found) -> None:
        """Add the fields wanted of the card with one of these keys, the best first.

        A tool's reason joins those of the sources before it. The error of a tool that fails is no
        field's trouble, unless nothing else says why the field has no value.
        """
        cards = self.cards()
        mine = next((cards[key] for key in keys if key is not None and key in cards), Found())
        for name in wanted:
            if name in mine.values:
                found.values.setdefault(name, mine.values[name])
            elif name in mine.troubles:
                reason = mine.troubles[name].text
                before = found.troubles.get(name)
                found.troubles[name] = (
                    Trouble(f"{before.text}; {reason}", before.errno) if before else Trouble(reason)
                )
            elif self.error is not None:
                found.troubles.setdefault(name, Trouble(self.error))


def vendor_tools() -> tuple[Tool, ...]:
    """The module amdsmi, then rocm-smi, then amd-smi; one answer serves all cards."""
    return Tool(amdsmi.ask), Tool(ask_rocm_smi), Tool(ask_amd_smi)
