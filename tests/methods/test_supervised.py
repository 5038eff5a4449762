"""Supervised learning of the way back: what the network answers is refined, and nothing that was simulated by luck."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve import examples as examples_module
from invsolve.data.solution import FoundBy, Status
from invsolve.methods.bfgs import Bfgs
from invsolve.methods.solver_network import SolverNetwork
from invsolve.models.base import ForwardModel
from invsolve.models.parameters import Parameter, Uniform


class Cubic(ForwardModel):
    """y = (x, x³, …) with x in [−2, 2], NaN or an exception where x > `fails`. Records every x that it is asked for."""

    parameters = (Parameter("x", lower=-2.0, upper=2.0, prior=Uniform(-1.8, 1.8)),)

    def __init__(self, fails: float = np.inf, *, raises: bool = False) -> None:
        super().__init__()
        self.fails, self.raises = fails, raises
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor, identifiers: Any) -> Tensor:
        self.asked.append(x.detach().clone())
        if self.raises and bool((x > self.fails).any()):
            raise ValueError("too large")
        y = torch.cat([x, x**3], dim=1)
        return y if self.raises else torch.where(x > self.fails, torch.nan, y)


def cubics(n: int = 24, most: float = 1.5) -> invsolve.Dataset:
    x = np.linspace(-1.5, most, n)[:, None]
    return invsolve.Dataset(targets=np.concatenate([x, x**3], axis=1), x_true=x)


def packets() -> invsolve.Dataset:
    return invsolve.generate("wave-packet", 48, seed=3, model_options={"samples": 32})


def off(solution: invsolve.Solution, data: invsolve.Dataset) -> np.ndarray:
    return np.abs(solution.x - np.asarray(data.x_true)).max(1)


def small(method: str, **more: Any) -> dict[str, Any]:
    """Options with which a method is quick."""
    network = {"width": 32, "depth": 2}
    return network | ({"starts": 4} if method == "neural-adjoint" else {}) | more


def test_its_answers_are_close_before_any_refinement() -> None:
    data = packets()
    solution = invsolve.solve(data, method="supervised", refine="none")
    assert np.median(off(solution, data)) < 0.3  # of a range of 20
    assert (solution.loss <= solution.loss_initial).all()
    assert set(solution.gradients) == {1}  # that of the scoring: the network never sees the loss


def test_refined_it_solves_what_bfgs_does_not() -> None:
    data = packets()
    solution, local = (invsolve.solve(data, method=m) for m in ("supervised", "bfgs"))
    assert (off(solution, data) < 0.3).mean() > 0.98 > (off(local, data) < 0.3).mean() + 0.3
    assert solution.found_by is not None
    assert solution.starts is not None
    assert set(solution.found_by) == {FoundBy.NETWORK}
    assert set(solution.starts) == {1}


def test_evaluations_are_pairs_answer_and_scorings() -> None:
    solution = invsolve.solve(cubics(), Cubic(), "supervised", options={"simulations": 5}, refine="none")
    assert set(solution.evaluations) == {1 + 5 + 1 + 1}  # start, pairs, the answer, and the result


def test_a_lucky_simulation_is_no_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the points are near solutions; a network that answers nothing but x0 has no part in that."""
    monkeypatch.setattr(SolverNetwork, "all_solutions", lambda self, examples, z0: z0)
    options = {"simulations": 8, "pairs": 512}
    solution = invsolve.solve(cubics(64), Cubic(), "supervised", options=options, refine="none")
    assert (solution.x == 0).all()
    luckier = invsolve.solve(cubics(64), Cubic(), "jpo", options=options | {"passes": 0}, refine="none")
    assert luckier.loss.mean() < 0.5 * solution.loss.mean()


def test_the_refinement_begins_at_the_answer_even_where_x0_is_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Tensor] = []
    solve = Bfgs.solve

    def recording(self: Any, problem: Any, z0: Tensor, *more: Any) -> Any:
        begun.append(z0)
        return solve(self, problem, z0, *more)

    answer = torch.linspace(0.4, 1.1, 8, dtype=torch.float64)[:, None]  # in typical changes, 1.8
    monkeypatch.setattr(SolverNetwork, "all_solutions", lambda *_: answer)
    monkeypatch.setattr(Bfgs, "solve", recording)
    x = np.full((8, 1), 0.05)
    data = invsolve.Dataset(targets=np.concatenate([x, x**3], axis=1), x_true=x)
    # Of the last of the answers, 1.98, F says nothing: there it begins at x0.
    solution = invsolve.solve(data, Cubic(1.9), "supervised", options={"simulations": 2})
    torch.testing.assert_close(begun[0][:-1], answer[:-1])
    assert begun[0][-1] == 0
    assert solution.found_by is not None
    assert solution.found_by.tolist() == [FoundBy.NETWORK] * 7 + [FoundBy.LOCAL]
    assert off(solution, data).max() < 1e-4


def test_further_starts_and_how_many_agree_are_options_that_work() -> None:
    data = cubics(8)
    data.targets = np.asarray(data.targets) + np.random.default_rng(1).normal(0, 0.1, (8, 2))  # no fit is perfect
    counts = []
    for more in ({}, {"restarts": 6}, {"restarts": 6, "agree": 4}):
        solution = invsolve.solve(data, Cubic(), "supervised", options={"simulations": 4, **more})
        assert solution.starts is not None
        counts.append(int(solution.starts.min()))
    assert counts == [1, 2, 4]


@pytest.mark.parametrize("method", ["supervised", "neural-adjoint"])
@pytest.mark.parametrize("refine", ["bfgs", "none"])
def test_the_budget_holds_for_all_stages_together(method: str, refine: str) -> None:
    for most in (3, 4, 5, 9, 40):
        model = Cubic()
        solution = invsolve.solve(
            cubics(12), model, method, max_evaluations=most, refine=refine, options=small(method, pairs=300)
        )
        assert solution.evaluations.max() <= most
        assert solution.evaluations.sum() == sum(len(x) for x in model.asked)
        assert (solution.loss <= solution.loss_initial).all()


@pytest.mark.parametrize("method", ["supervised", "neural-adjoint"])
@pytest.mark.parametrize("raises", [False, True])
def test_where_f_fails_for_some_points_the_others_are_learned_from(method: str, raises: bool) -> None:
    data = cubics(24, most=0.9)
    model, options = Cubic(1.0, raises=raises), small(method, simulations=30)
    solution = invsolve.solve(data, model, method, options=options, refine="none")
    assert np.median(off(solution, data)) < 0.15
    assert (solution.loss <= solution.loss_initial).all()


@pytest.mark.parametrize("method", ["supervised", "neural-adjoint"])
def test_where_f_fails_for_all_points_but_x0_the_start_remains(method: str) -> None:
    def lonely(x: Tensor, identifiers: object) -> Tensor:
        return torch.where(x == 1, x, torch.nan).repeat(1, 3)

    data = invsolve.Dataset(targets=np.full((6, 3), 2.0), x0=np.ones(1))
    solution = invsolve.solve(data, lonely, method, options=small(method, simulations=3))
    assert (solution.x == 1).all()
    assert Status.NONFINITE not in solution.status


@pytest.mark.parametrize("method", ["supervised", "neural-adjoint"])
def test_data_larger_than_memory_come_in_windows(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = cubics(40)
    monkeypatch.setattr(examples_module, "WINDOW", 16 * 8)  # eight examples of two numbers each
    sizes: list[int] = []
    load = examples_module.Examples._load

    def recording(self: Any, blocks: Any, *crew: Any) -> Any:
        sizes.append(sum(stop - start for start, stop in blocks))
        return load(self, blocks, *crew)

    monkeypatch.setattr(examples_module.Examples, "_load", recording)
    solution = invsolve.solve(data, Cubic(), method, options=small(method, simulations=20), refine="none")
    assert max(sizes) == 8
    assert np.median(off(solution, data)) < 0.1
    assert len(set(solution.evaluations)) == 1


@pytest.mark.parametrize("method", ["supervised", "neural-adjoint"])
def test_the_seed_decides(method: str) -> None:
    one, again, other = (
        invsolve.solve(cubics(), Cubic(), method, options=small(method, simulations=4), refine="none", seed=s)
        for s in (4, 4, 5)
    )
    assert np.array_equal(one.x, again.x)
    assert not np.array_equal(one.x, other.x)


@pytest.mark.parametrize("method", ["supervised", "neural-adjoint"])
def test_a_single_example_can_be_solved(method: str) -> None:
    data = cubics(1)
    solution = invsolve.solve(data, Cubic(), method, options=small(method, simulations=40))
    assert off(solution, data)[0] < 1e-4
