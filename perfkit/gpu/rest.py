"""When an idle card may be asked, so that it can fall asleep.

amdgpu lets a card sleep that nobody has used for `autosuspend_delay_ms`, 5 s unless it was changed
(amdgpu_drv.c). To read a sensor, a table of clocks or `gpu_metrics` is to use it: the driver takes
a reference and gives it back with `pm_runtime_put_autosuspend`, and the delay begins anew
(`amdgpu_pm_put_access` in amdgpu_pm.c). So a card that is asked more often never sleeps.

These tell whether it works and count as no use. `power/*` shows what the kernel knows of the device
(drivers/base/power/sysfs.c). `runtime_usage`, which needs CONFIG_PM_ADVANCED_DEBUG, counts what
keeps the card awake: a display, a job until its fence, a ROCm process, `control` at "on".
`mem_info_*` are the driver's own figures (amdgpu_vram_mgr.c, amdgpu_gtt_mgr.c).
"""

from __future__ import annotations

import re
from math import inf
from pathlib import Path

from perfkit.gpu.device.record import PADDING, DeviceFiles

#: A card without work for this long is idle.
IDLE_AFTER_S = 5.0
#: An idle card is left alone for this many delays, which doubles up to PAUSE_MAX_S.
DELAYS, PAUSE_MAX_S = 1.5, 60.0
#: How long it is asked between two such pauses.
LOOK_S = 1.0

#: A card with a longer delay is not meant to sleep.
DELAY_MAX_S = 600.0

_DELAY = re.compile(r"[0-9]{1,9}")
_MEMORY = ("mem_info_vram_used", "mem_info_gtt_used")


class Rest:
    """The pauses of one card. A card that can't sleep has none."""

    def __init__(self, device: Path) -> None:
        self._files = DeviceFiles(device)
        #: Its pause ends then; before, `may_ask` has the answer.
        self.until_s = -inf
        self._idle_since_s: float | None = None
        self._pause_s = 0.0
        self._memory: tuple[str, ...] = ()

    def may_ask(self, now_s: float) -> bool:
        """Whether its sensors may be read now; always, unless it rests and shows no sign of work.

        A card that sleeps may be asked too: the answer is that it sleeps, and it stays asleep.
        """
        if now_s >= self.until_s:
            return True
        if self._is_at_work() or self._text("power/runtime_status").startswith("suspend"):
            self._wake()
            return True
        return False

    def note(self, now_s: float, works: bool) -> None:
        """Take note of an answer of the card; its pause begins once it was idle for long enough.

        A card that sleeps, or is in trouble, counts as at work: it is looked at as often as ever.
        """
        if works:
            self._wake()
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s >= IDLE_AFTER_S:
            self._begin_pause(now_s)

    def close(self) -> None:
        """Close its files."""
        self._files.close()

    def _wake(self) -> None:
        self.until_s, self._idle_since_s, self._pause_s = -inf, None, 0.0

    def _begin_pause(self, now_s: float) -> None:
        delay_s = self._delay_s()
        self._memory = ()
        if delay_s is None or self._is_at_work():
            self._idle_since_s = now_s
            return
        shortest_s = DELAYS * delay_s
        longest_s = max(PAUSE_MAX_S, shortest_s)
        self._pause_s = min(max(shortest_s, 2 * self._pause_s), longest_s)
        self.until_s = now_s + self._pause_s
        self._idle_since_s = self.until_s + LOOK_S - IDLE_AFTER_S
        self._memory = self._used()

    def _delay_s(self) -> float | None:
        """How long the card waits before it sleeps; None if it never does, or hardly ever.

        The file gives EIO without autosuspend, and a delay below 0 forbids it.
        """
        control, status = self._text("power/control"), self._text("power/runtime_status")
        if control != "auto" or status == "unsupported":
            return None
        delay = self._text("power/autosuspend_delay_ms")
        if not _DELAY.fullmatch(delay) or int(delay) > DELAY_MAX_S * 1_000:
            return None
        return int(delay) / 1_000

    def _is_at_work(self) -> bool:
        """Whether something else uses it, or has used its memory since the pause began."""
        usage = self._text("power/runtime_usage")
        return (usage.isdecimal() and usage != "0") or (
            bool(self._memory) and self._used() != self._memory
        )

    def _used(self) -> tuple[str, ...]:
        return tuple(map(self._text, _MEMORY))

    def _text(self, name: str) -> str:
        try:
            return self._files.held(name).read().rstrip(PADDING).decode("ascii", "replace")
        except OSError:
            return ""
