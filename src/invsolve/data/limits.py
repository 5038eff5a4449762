"""A limit to what the process may take while a library reads a file that may lie about sizes."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Iterator

_lock = threading.RLock()
_within = 0  # reads under way, in all threads
_before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_PAGE = resource.getpagesize()


@contextlib.contextmanager
def growth_limited(more: int) -> Iterator[None]:
    """Meanwhile the process may grow by `more` bytes; what asks for them gets a MemoryError, or none from malloc.

    The limit is the process's, so that `more` should leave room for what other threads do. Only Linux knows such a
    limit (RLIMIT_AS); elsewhere there is none.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    _enter(more)
    try:
        yield
    finally:
        _leave()


def _enter(more: int) -> None:
    global _within, _before  # noqa: PLW0603
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm", "rb") as statm:
            most = int(statm.read().split()[0]) * _PAGE + more
        if _within == 0:
            _before = soft, hard
        else:  # of another thread: the larger limit holds for both
            most = max(most, soft)
        _within += 1
        most = min([most, *(limit for limit in _before if limit != resource.RLIM_INFINITY)])
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _leave() -> None:
    global _within  # noqa: PLW0603
    with _lock:
        _within -= 1
        if _within == 0:
            resource.setrlimit(resource.RLIMIT_AS, _before)


def _in_child() -> None:
    """A process that was forked while another thread read has no limit of that thread's."""
    global _lock, _within  # noqa: PLW0603
    _lock = threading.RLock()
    if _within:
        _within = 0
        resource.setrlimit(resource.RLIMIT_AS, _before)


os.register_at_fork(after_in_child=_in_child)
