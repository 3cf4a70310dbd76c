"""A probe of cards for workers of tests: one that works, one whose state is unknown."""

import time

from cluster.vocabulary.task import Gpu, GpuLoad, Load


class Cards:
    """Answers as a probe of perfkit.gpu does."""

    def gpus(self) -> tuple[Gpu, ...]:
        return Gpu("polaris", 8 << 30), Gpu()

    def __call__(self) -> Load:
        card = GpuLoad(
            free_bytes=3 << 30,
            busy_pct=42.0,
            temperature_c=61.0,
            power_w=83.4,
            own_memory_bytes=1 << 30,
            own_engine_ns=time.monotonic_ns(),
        )
        return Load(rss_bytes=30 << 20, memory_free_bytes=8 << 30, gpus=(card, GpuLoad()))
