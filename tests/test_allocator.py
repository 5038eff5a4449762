"""What the program does to its own process before it computes."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

import invsolve
from invsolve import allocator, remote_work
from invsolve.settings import Settings


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of the GNU C library")
@pytest.mark.parametrize("set_by_user", [False, True])
def test_freed_memory_is_kept_unless_the_user_says_otherwise(
    set_by_user: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}
    library = SimpleNamespace(mallopt=lambda what, value: asked.update({what: value}))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: library)
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if set_by_user:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    allocator.keep_freed_memory()
    assert asked == ({} if set_by_user else {-1: 2**30, -3: 2**25})


def test_a_c_library_without_it_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Other:
        def __getattr__(self, name: str) -> None:
            asked.append(name)
            raise AttributeError(name)

    for name in [n for n in os.environ if n.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Other())
    allocator.keep_freed_memory()  # and nothing is raised
    assert asked == ["mallopt"]


def test_so_it_is_on_the_machines_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(remote_work, "keep_freed_memory", lambda: asked.append(True))
    data = invsolve.generate("wave-packet", 2)
    remote_work.RemadeWork(remote_work.Asked(data, None, {}, Settings(method="bfgs")), None)
    assert asked == [True]
