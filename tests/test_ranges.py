"""Ranges: they grow while they are quick and their data small, cover each example once, and are shared fairly."""

from __future__ import annotations

import heapq

import pytest

from invsolve import ranges
from invsolve.cluster.team import EACH
from invsolve.ranges import Range, Ranges, split


def taken(plan: Ranges, seconds: float = 0.0) -> list[Range]:
    found = []
    while (given := plan.take()) is not None:
        found.append(given)
        plan.took(given[1] - given[0], seconds)
    return found


def test_ranges_double_while_they_are_quick() -> None:
    sizes = [stop - start for start, stop in taken(Ranges(10**6, [], 512))]
    assert sizes[:6] == [4096, 8192, 16384, 32768, 65536, 131072]
    assert max(sizes) <= 1.5 * ranges.MEMORY / 512
    assert {stop - start for start, stop in taken(Ranges(4096 * 9, [], 512), seconds=60.0)} == {4096}


def test_large_examples_make_small_ranges() -> None:
    sizes = [stop - start for start, stop in taken(Ranges(1000, [], ranges.MEMORY // 100))]
    assert max(sizes) <= 150


@pytest.mark.parametrize("n", [1, 5, 4096, 4097, 50_000])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_example_is_handed_out_once(n: int, workers: int) -> None:
    plan = Ranges(n, [], 8)
    plan.share(workers)
    found = taken(plan)
    assert [i for start, stop in found for i in range(start, stop)] == list(range(n))
    assert plan.left == 0


def test_only_the_gaps_are_handed_out() -> None:
    plan = Ranges(30, [(3, 7), (7, 9), (20, 25)], 8)
    assert plan.left == 19
    assert taken(plan) == [(0, 3), (9, 20), (25, 30)]
    assert taken(Ranges(9, [(0, 9)], 8)) == []


def test_what_is_given_back_is_handed_out_anew_on_its_own() -> None:
    plan = Ranges(10_000, [], 8)
    given = plan.take()
    assert given == (0, 4096)
    plan.give_back(given)
    plan.share(2)
    assert taken(plan)[:3] == [(0, 2500), (2500, 4096), (4096, 6596)]


@pytest.mark.parametrize(("n", "workers"), [(256, 2), (10_000, 2), (200_000, 2), (300_000, 16)])
def test_workers_end_at_about_the_same_time(n: int, workers: int) -> None:
    """Each takes the next range when it is done; all rows cost the same, and a range as much as 100 rows besides."""
    plan = Ranges(n, [], 512)
    plan.share(workers)
    busy = [0.0] * workers
    while (given := plan.take()) is not None:
        plan.took(given[1] - given[0], 0.0)
        busy[busy.index(min(busy))] += given[1] - given[0] + 100
    assert max(busy) <= 1.1 * n / workers + 200


@pytest.mark.parametrize(("each", "longer"), [(0.03, 1.12), (0.008, 1.65)])
def test_of_many_workers_ranges_come_in_slowly_enough(each: float, longer: float) -> None:
    """A hundred million examples that take `each`, 3,200 workers, and a driver that takes 15 ms for each range.

    Of few seconds of work for each worker the driver is what is waited for, but less than with ranges that do not grow.
    """
    workers, driver = 3200, 0.0
    plan = Ranges(10**8, [], 32)
    plan.share(workers, 8, EACH * workers)
    ended = [(0.0, 0)] * workers  # when, with a range of how many
    while (given := plan.take()) is not None:
        now, rows = heapq.heappop(ended)
        if rows:
            plan.took(rows, each * rows)
        driver = max(driver, now) + 0.015
        heapq.heappush(ended, (driver + each * (given[1] - given[0]), given[1] - given[0]))
    assert max(ended)[0] < longer * each * 10**8 / workers


def test_splitting() -> None:
    assert list(split(7, 3)) == [(0, 3), (3, 6), (6, 7)]
