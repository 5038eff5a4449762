"""Local solves from several starts: who goes on, and who is done."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import invsolve
from invsolve.control import Control
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.methods.base import Budget
from invsolve.methods.bfgs import Bfgs
from invsolve.methods.search import Search, Starts
from invsolve.problem import Problem
from invsolve.registry import load_model


def two_minima(x: Tensor, identifiers: object) -> Tensor:
    """Of y* = (1, 0): a deep one near 1, a shallow one near −0.85."""
    return torch.cat([x**2, 0.5 * (x - 1)], dim=1)


def search(
    points: list[float], *, agree: int, rows: int = 1, peers: bool = False, seen: RowResults | None = None
) -> Search:
    data = invsolve.Dataset(targets=np.tile([1.0, 0.0], (rows, 1)) + 1e-3, x0=np.full((rows, 1), 0.5))
    problem = Problem(load_model(two_minima), data.rows(0, rows), (1,), torch.device("cpu"), torch.float64)
    z = torch.tensor(points, dtype=torch.float64).expand(rows, -1)[:, :, None]
    origins = torch.full(z.shape[:2], int(FoundBy.MULTISTART), dtype=torch.int8)
    origins[:, 0] = int(FoundBy.LOCAL)
    return Search(Bfgs(), problem, Starts(z, origins, agree, agree, peers=peers, seen=seen), Budget())


def test_agreement_ends_the_search() -> None:
    found = search([0.6, 1.2, -0.8, 0.9], agree=2).run(Control())
    assert found.starts is not None
    assert found.starts.tolist() == [2]
    assert found.found_by is not None
    assert found.found_by.tolist() == [int(FoundBy.LOCAL)]


def test_disagreement_goes_on_and_the_best_is_kept() -> None:
    found = search([-0.86, 0.9, 1.1, -0.8, 1.0], agree=2).run(Control())
    assert found.starts is not None
    assert found.minima is not None
    assert found.starts.tolist() == [4]
    assert found.minima.tolist() == [2]
    assert found.z.item() > 0.9
    assert found.found_by is not None
    assert found.found_by.tolist() == [int(FoundBy.MULTISTART)]


def test_one_far_above_its_peers_needs_more_to_agree() -> None:
    starts = [-0.86, -0.9, -0.84, -0.8, -0.88, -0.82, 0.9, 1.1]
    for peers, expected in ((False, 2), (True, 8)):
        whole = search(starts, agree=2, rows=5, peers=peers)
        whole.ends.z[1:] = whole.ends.z[1:].abs()  # the others find the deep minimum at once
        found = whole.run(Control())
        assert found.starts is not None
        assert found.starts.tolist() == [expected, 2, 2, 2, 2]


def test_where_a_local_solve_ended_none_begins_again() -> None:
    first = search([0.6], agree=1).run(Control())
    for status, origin, solved_anew in (
        (Status.CONVERGED, FoundBy.LOCAL, False),
        (Status.BUDGET, FoundBy.LOCAL, True),  # it was cut short
        (Status.BUDGET, FoundBy.NETWORK, True),
    ):
        known = RowResults(
            z=first.z,
            best=first.best,
            iterations=first.iterations,
            status=torch.full_like(first.status, int(status)),
            found_by=torch.full_like(first.status, int(origin)),
        )
        again = search([first.z.item(), 1.2], agree=1, seen=known)
        found = again.run(Control())
        assert found.starts is not None
        assert found.starts.tolist() == [1]
        assert bool(again.problem.evaluations.any()) == solved_anew


def valley(x: Tensor, identifiers: object) -> Tensor:
    """Of y* = 0: along b = a², which takes long, to a perfect fit at a = 1 or a worse one near a = −2."""
    a, b = x.unbind(1)
    return torch.stack([30 * (b - a**2), 0.1 * (a - 1) * (a + 2), 0.03 * (a - 1)], 1)


def test_dear_solves_race_and_the_best_goes_on_to_its_end() -> None:
    rng = np.random.default_rng(0)
    a = np.concatenate([[-2.5], rng.uniform(-6, -1, 13), [0.5]])
    points = torch.from_numpy(np.stack([a, a**2 + rng.uniform(-2, 2, 15)], 1))
    found, evaluations = {}, {}
    for race in (False, True):
        data = invsolve.Dataset(targets=np.zeros((2, 3)), x0=np.zeros((2, 2)))
        problem = Problem(load_model(valley), data.rows(0, 2), (2,), torch.device("cpu"), torch.float64)
        origins = torch.full((2, 15), int(FoundBy.MULTISTART), dtype=torch.int8)
        starts = Starts(points.expand(2, -1, -1), origins, 15, 2, race=race)
        found[race] = Search(Bfgs(), problem, starts, Budget()).run(Control())
        evaluations[race] = int(problem.evaluations[0])
    assert found[True].best.max() < 1e-8
    assert found[True].status.tolist() == [int(Status.CONVERGED)] * 2
    assert found[False].best.max() < 1e-8
    assert evaluations[True] < 0.5 * evaluations[False]


def test_a_race_keeps_to_the_budget() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(-6, -1, 15)
    points = torch.from_numpy(np.stack([a, a**2 + rng.uniform(-2, 2, 15)], 1))[None]
    for most in (150, 300, 500):
        data = invsolve.Dataset(targets=np.zeros((1, 3)), x0=np.zeros((1, 2)))
        problem = Problem(load_model(valley), data.rows(0, 1), (2,), torch.device("cpu"), torch.float64)
        origins = torch.full((1, 15), int(FoundBy.MULTISTART), dtype=torch.int8)
        search = Search(Bfgs(), problem, Starts(points, origins, 15, 2, race=True), Budget(most))
        found = search.run(Control())
        assert 0.5 * most < int(problem.evaluations) <= most
        assert found.starts is not None
        assert 1 < int(found.starts) <= 15
