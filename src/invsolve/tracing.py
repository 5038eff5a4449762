"""Whether what runs is being recorded as a graph of operations, to be compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_traced: ContextVar[bool] = ContextVar("traced", default=False)


def is_traced() -> bool:
    """Whether what runs is being recorded."""
    return _traced.get()


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """What runs within is recorded, to be compiled: it must not branch on values."""
    token = _traced.set(True)
    try:
        yield
    finally:
        _traced.reset(token)
