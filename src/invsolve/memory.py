"""When memory runs out: what is evaluated together is halved until it fits, and that size is kept for the run.

And a model that keeps what it computes: resident memory that grows with what is evaluated.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from invsolve.errors import OptionError

T = TypeVar("T")

MORE_MEMORY = "free some, use fewer --threads, --dtype float32 or another --device"

_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "ALLOC_FAILED")
"""What a RuntimeError says that is one of memory: torch's allocators, the C++ library, cuBLAS and cuFFT."""

_DEARER = ("loss", "gradient", "Jacobian")  # of the same rows, in the order of what they take


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that there is no memory left, on the CPU or a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def release() -> None:
    """Give back what is not needed any more, so that others, and larger blocks, find room."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # of the GNU C library
        ctypes.CDLL(None).malloc_trim(0)


class Fitting:
    """How many rows fit into memory together, as far as that was found out by failing.

    `tell` is called with the rows that did not fit and those that did, once they have.
    """

    def __init__(self) -> None:
        self._most: dict[str, int] = {}  # by what is computed of them
        self._failed: int | None = None  # since the last time that was told
        self.failed: int | None = None  # rows that did not fit; None where all did
        self.seconds = 0.0  # that giving memory back took
        self.tell: Callable[[int, int], None] = lambda failed, fits: None
        self.growth = Growth()

    @property
    def least(self) -> int | None:
        """Rows that fit whatever is computed of them; None where all did."""
        return min(self._most.values(), default=None)

    @property
    def known(self) -> tuple[int, int] | None:
        """Rows that did not fit, and those that did; None where all did."""
        return None if self.failed is None or self.least is None else (self.failed, self.least)

    def learn(self, failed: int, fits: int, what: str = "loss") -> None:
        """So many rows did not fit, but perhaps so many do: also for what takes more memory than `what`."""
        self.failed = failed if self.failed is None else min(self.failed, failed)
        for dearer in _DEARER[_DEARER.index(what) :]:
            self._most[dearer] = min(fits, self._most.get(dearer, fits))

    def in_parts(self, compute: Callable[[slice | None], T], n: int, what: str, name: str) -> list[T]:
        """`compute` of n rows (None), or of one part of them after another where they do not fit together.

        Args:
            what: is computed: "loss", "gradient" or "Jacobian".
            name: of the model.

        Raises:
            OptionError: a single row does not fit.
        """
        found: list[T] = []
        start = 0
        while True:
            stop = min(n, start + self._most.get(what, n))
            try:
                found.append(compute(None if stop - start == n else slice(start, stop)))
            except Exception as error:
                if not ran_out(error):
                    raise
                if stop - start <= 1:
                    raise OptionError(
                        f"there is not enough memory for a single example of model '{name}' (its {what}); {MORE_MEMORY}"
                    ) from None
            else:
                if self._failed is not None:
                    self.tell(self._failed, stop - start)
                    self._failed = None
                self.growth.look(stop - start)
                start = stop
                if start >= n:
                    return found
                continue
            # Here the exception is gone, and with it what it held.
            began = time.monotonic()
            release()
            self.seconds += time.monotonic() - began
            self._failed = self._failed or stop - start
            self.learn(stop - start, (stop - start) // 2, what)


GROWN = 500e6  # bytes, below which growth may be anything
PART_OF_FREE = 0.2  # of the memory that is free at first, likewise
_SAMPLES = 64  # that are kept: then every second one, and they are taken half as often
_STEADY = 0.5  # of the mean rate, that none of the quarters may fall below


class Growth:
    """Whether resident memory grows steadily with the rows that are evaluated, beyond what this program holds.

    After the first quarter of the evaluations, in which a program warms up, it must have grown by much in all, and in
    four parts alike. `expected` are bytes that it may grow by without that; `held` those of results
    that are kept. `tell` is called with the words, once.
    """

    def __init__(self) -> None:
        self.words = ""
        self.expected = self.held = 0
        self.tell: Callable[[str], None] = lambda words: None
        self._process = 0

    def _begin(self) -> None:
        self._process = os.getpid()  # a worker's memory is its own
        self._rows = self._calls = 0
        self._every = 1
        self._samples: list[tuple[int, int]] = []  # rows evaluated, and bytes
        self._free = available_memory(torch.device("cpu"))

    def look(self, rows: int) -> None:
        """So many rows more have been evaluated."""
        if self._process != os.getpid():
            self._begin()
        self._rows += rows
        self._calls += 1
        if self.words or self._calls % self._every:
            return
        self._samples.append((self._rows, resident() - self.held))
        if 2 * len(self._samples) >= _SAMPLES:
            self._judge()
        if len(self._samples) == _SAMPLES:
            self._samples, self._every = self._samples[::2], 2 * self._every

    def _judge(self) -> None:
        last = len(self._samples) - 1
        first, step = last // 4, (last - last // 4) / 4
        at = [self._samples[first + round(i * step)] for i in range(5)]
        rows, grown = at[-1][0] - at[0][0], at[-1][1] - at[0][1]
        if grown <= max(GROWN, PART_OF_FREE * self._free) + self.expected:
            return
        if all((b[1] - a[1]) / (b[0] - a[0]) > _STEADY * grown / rows for a, b in itertools.pairwise(at)):
            self.words = (
                f"memory grew by {grown / 1e6:.0f} MB over {rows} evaluations, {grown / rows / 1e3:.3g} kB each: the "
                f"model may keep what it computes (a list, a cache, or a tensor that is not detached)"
            )
            self.tell(self.words)


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    lines = _lines(Path("/proc/self/statm"))
    return int(lines[0].split()[1]) * os.sysconf("SC_PAGE_SIZE") if lines else 0


def available_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device; on the CPU within the limits of a container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = 1024 * int(line.split()[1])
    limit, used = (_lines(Path("/sys/fs/cgroup") / f"memory.{what}") for what in ("max", "current"))
    if limit and used and limit[0].isdecimal():
        free = min(free, int(limit[0]) - int(used[0]))
    return max(free, 1)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
