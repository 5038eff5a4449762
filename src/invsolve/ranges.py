"""Which examples are solved as one piece: ranges that grow while they are quick, and what is left to hand out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

RANGE = 4096  # examples of the first range: a few full batches
PATIENCE = 5.0  # seconds; a range that took less is followed by one of twice the size
WORTHWHILE = 10.0  # seconds of a range, beside which what it costs to hand it to another machine is little
MEMORY = 2**26  # bytes of data and results that a range may bring into memory

Range = tuple[int, int]
"""The examples start ≤ i < stop."""


class Ranges:
    """The examples that are still to be solved, handed out as ranges in their order.

    Every range costs a file, and rounds at its end in which few rows are left to fill a batch. So ranges double while
    they take less than `PATIENCE` seconds, which bounds what a kill can lose, and while their data fit in `MEMORY`.

    Args:
        n: examples in all.
        finished: ranges that need not be solved, in order.
        row_bytes: size of the data of one example, and of what comes of it.
        grain: ranges begin at multiples of it.
    """

    def __init__(self, n: int, finished: Iterable[Range], row_bytes: int, grain: int = 1) -> None:
        self._grain = grain
        self._gaps: list[Range] = []  # the next one last
        begin = 0
        for start, stop in (*finished, (n, n)):
            if begin < start:
                self._gaps.insert(0, (begin, start))
            begin = stop
        self._most = most_rows(row_bytes)
        self._size = min(RANGE, self._most)
        self._workers = self._least = 1
        self._is_shared = False
        self._worthwhile = 0.0  # seconds
        self._pace = 0.0  # examples a second, of the last range

    @property
    def left(self) -> int:
        """Examples that were not handed out yet."""
        return sum(stop - start for start, stop in self._gaps)

    def peek(self) -> Range | None:
        """The range that would be handed out next, or None."""
        if not self._gaps:
            return None
        start, stop = self._gaps[-1]
        rows = self._size
        if self._is_shared:
            # At most half a share of what is left, so that all end at about the same time (guided self-scheduling).
            fair = math.ceil(self.left / self._workers)
            rows = min(rows, max(self._least, min(math.ceil(self._pace * self._worthwhile), fair), math.ceil(fair / 2)))
        rows = math.ceil(rows / self._grain) * self._grain
        # A small rest would not fill a batch.
        return start, stop if stop - start < 1.5 * rows else start + rows

    def take(self) -> Range | None:
        """Hand out the next range, or None if there is none."""
        taken = self.peek()
        if taken is not None:
            _, end = self._gaps.pop()
            if taken[1] < end:
                self._gaps.append((taken[1], end))
        return taken

    def give_back(self, given: Range) -> None:
        """Let the range handed out last be handed out anew, on its own; perhaps in parts."""
        self._gaps.append(given)

    def took(self, rows: int, seconds: float) -> None:
        """Tell how long a range of so many rows took."""
        self._pace = rows / max(seconds, 1e-3)
        if seconds < PATIENCE * max(1.0, self._worthwhile / WORTHWHILE):
            self._size = max(self._size, min(2 * rows, self._most))

    def share(self, workers: int, each: int = 1, worthwhile: float = 0.0) -> None:
        """From now on, the ranges are solved by so many workers at a time.

        None needs to be smaller than a worker's share of all that is left, or of so many of `RANGE`, in `each` parts;
        none is to take less than so many seconds, while there is as much for each worker; where that is more than
        `WORTHWHILE`, they double for longer.
        """
        rounds = each * max(1, math.ceil(self.left / (workers * RANGE)))
        self._workers, self._least = workers, math.ceil(self.left / (workers * rounds))
        self._is_shared, self._worthwhile = workers > 1 or each > 1, worthwhile


def most_rows(row_bytes: int) -> int:
    """How many examples of this size may be in memory at a time."""
    return max(1, MEMORY // row_bytes)


def split(n: int, rows: int) -> Iterator[Range]:
    """Examples 0 to n − 1 in ranges of so many rows."""
    return ((start, min(start + rows, n)) for start in range(0, n, rows))


def group_size(n: int) -> int:
    """How many of n examples are solved together, and with no others, where results are to depend on nothing else.

    Few cost more, for each group ends in rounds of its last rows; of many there would be too few groups for all cores.
    """
    return 1 << round(math.log2(min(max(n / _GROUPS, _LEAST_GROUP), _MOST_GROUP)))


_GROUPS = 16
_LEAST_GROUP, _MOST_GROUP = 64, 1024


def groups(given: Range, size: int) -> list[Range]:
    """The groups in a range that begins with one."""
    start, stop = given
    return [(start + a, start + b) for a, b in split(stop - start, size)]
