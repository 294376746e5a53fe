"""How the process holds memory while batches go through.

A gate makes and drops thousands of small objects and a few megabytes of arrays with every batch.
Python's cycle collector walks all living objects again and again for nothing, and glibc gives
freed arrays back to the kernel, which then has to clear the same pages for the next batch. Both
were measured to cost a tenth of the time together; both are harmless to switch.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

YOUNG_OBJECTS, MIDDLE_ROUNDS, OLD_ROUNDS = 50_000, 20, 50
# Enough for what a batch makes and drops. More only kept what had been freed apart: 256 MiB of each
# cost 20 MB more at a million sources, and saved no time. Above 32 MiB glibc may refuse the second.
KEEP_BYTES, WITHIN_HEAP_BYTES = 64 << 20, 32 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Spare what lives now from collection, collect less often, and keep freed memory at hand."""
    before = gc.get_threshold()
    _keep_freed_memory()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_ROUNDS, OLD_ROUNDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _keep_freed_memory() -> None:
    # Only glibc has mallopt; elsewhere the allocator keeps its own habits.
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, WITHIN_HEAP_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
