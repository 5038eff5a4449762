"""What the C library does with memory that is freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, up to a gigabyte, for the next tensor.

    glibc gives large blocks back to the system at once, and every round then waits for pages that are zeroed anew:
    a fifth to a half of the time of large batches. Elsewhere, and where the user has set this, nothing is done. It is
    for processes of our own, not for the user's.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**30)
        mallopt(_MMAP_THRESHOLD, 2**25)
