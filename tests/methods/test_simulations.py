"""Pairs that a method makes itself, and a network that learns from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.checkpoints import Checkpoints
from invsolve.control import Control
from invsolve.data.solution import FoundBy
from invsolve.examples import Examples, Window
from invsolve.methods.candidates import Candidates, simulate
from invsolve.methods.pairs import Pairs
from invsolve.methods.simulations import Plan, Simulation
from invsolve.methods.solver_network import NetworkOptions, SolverNetwork
from invsolve.networks.features import Features
from invsolve.problem import Problem
from invsolve.registry import load_model


def examples_of(data: invsolve.Dataset, model: Any) -> Examples:
    loaded = load_model(model)
    shape = (len(loaded.parameters),)
    return Examples(data, shape, lambda rows: Problem(loaded, rows, shape, torch.device("cpu"), torch.float64))


def simulation(data: invsolve.Dataset, model: str, *, experienced: bool = False, **plan: Any) -> Simulation:
    torch.manual_seed(0)
    examples = examples_of(data, model)
    loss, _ = examples.score(64)
    z0 = examples.coordinates.to_solver(examples.x0)
    everyone = torch.ones(examples.n, dtype=torch.bool)
    plan = {"passes": 20, "where": "prior", "which": everyone} | plan
    network, candidates = SolverNetwork(NetworkOptions(), examples), Candidates.at(z0, loss)
    return Simulation(Plan(**plan), network, examples, candidates, 1, experienced=experienced)


def test_a_simulated_loss_is_that_of_the_example() -> None:
    data = invsolve.generate("billiards", 6, seed=1)
    whole = next(iter(examples_of(data, "billiards").windows())).problem
    rows, z = torch.tensor([4, 1]), torch.tensor([[1.0, 0.1], [0.8, 0.0]], dtype=torch.float64)
    loss, y = simulate(whole, rows, z)
    expected, _ = whole.evaluate(rows, z)
    torch.testing.assert_close(loss, expected)
    assert y.shape == (2, 2)
    assert whole.evaluations.tolist() == [0, 2, 0, 0, 2, 0]
    assert whole.gradients.tolist() == [0, 1, 0, 0, 1, 0]


def test_the_oldest_pairs_make_room() -> None:
    like = Features(torch.zeros(3, 0, 4), torch.zeros(3, 2))
    pairs = Pairs(like, 1, most=4)
    for k in range(3):
        pairs.add(Features(torch.zeros(3, 0, 4), torch.full((3, 2), float(k))), torch.full((3, 1), float(k)))
    assert pairs.count == 4
    assert sorted(pairs.answers[:, 0].tolist()) == [1.0, 2.0, 2.0, 2.0]
    assert torch.equal(pairs.features.flat[:, :1], pairs.answers)


def test_the_network_learns_the_way_back() -> None:
    """Of wave packets, whose gradient leads most examples astray."""
    data = invsolve.generate("wave-packet", 64, seed=3)
    run = simulation(data, "wave-packet", passes=60)
    run.run(Control(), Checkpoints())
    assert run.learned
    assert run.errors[-1] < 0.1 * run.errors[0]
    off = (run.network.all_solutions(run.examples, run.z0) - torch.from_numpy(np.asarray(data.x_true)) / 8).abs()
    assert off.median() < 0.05  # of the typical change, 8
    assert set(run.examples.gradients.tolist()) == {0}


def test_only_the_chosen_examples_are_simulated_and_each_pass_is_counted() -> None:
    data = invsolve.generate("wave-packet", 10, seed=3)
    which = torch.arange(10) < 4
    run = simulation(data, "wave-packet", passes=3, which=which)
    run.run(Control(), Checkpoints())
    assert run.examples.evaluations.tolist() == [5] * 4 + [1] * 6  # start; three points; the network's answer
    kinds = set(run.candidates.origin[~which].tolist())
    assert kinds == {int(FoundBy.START)}


def test_points_around_the_best_come_nearer() -> None:
    data = invsolve.generate("wave-packet", 200, seed=3)
    run = simulation(data, "wave-packet", where="best")
    near = [run._near_the_best(torch.arange(200), run.z0, done) - run.z0 for done in (0.0, 0.9)]
    assert near[1].std() < 0.2 * near[0].std()


def test_failing_points_are_no_pairs() -> None:
    def fails(x: torch.Tensor, identifiers: object) -> torch.Tensor:
        return torch.where(x > 0, x, torch.nan).repeat(1, 3)

    data = invsolve.Dataset(targets=np.full((8, 3), 2.0), x0=np.ones(1))
    loaded = load_model(fails)
    examples = Examples(data, (1,), lambda rows: Problem(loaded, rows, (1,), torch.device("cpu"), torch.float64))
    loss, _ = examples.score(8)
    torch.manual_seed(0)
    candidates = Candidates.at(examples.x0.clone(), loss)
    everyone = torch.ones(8, dtype=torch.bool)
    run = Simulation(Plan(12, "prior", everyone), SolverNetwork(NetworkOptions(), examples), examples, candidates, 1)
    run.run(Control(), Checkpoints())
    assert run.pairs is not None
    assert 0 < run.pairs.count < 96
    assert torch.isfinite(run.pairs.answers[: run.pairs.count]).all()
    assert (candidates.loss <= loss).all()


def test_what_a_known_network_is_asked_first_is_taken_from_the_passes() -> None:
    run = simulation(invsolve.generate("billiards", 8, seed=1), "billiards", passes=5, experienced=True)
    run.run(Control(), Checkpoints())
    assert not run.knew
    assert run.plan.passes == 3
    assert int(run.examples.evaluations.max()) == 1 + (1 + 1) + 3 + 1  # start; answer and point; points; answer


@pytest.mark.parametrize("model", ["wave-packet", "kuramoto-sivashinsky"])
def test_data_of_the_same_seed_are_not_met_again(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = invsolve.generate(model, 20, seed=1)
    run = simulation(data, model, passes=2)
    nearest = torch.full((20,), torch.inf, dtype=torch.float64)

    def seen(window: Window, rows: Tensor, z: Tensor, loss: Tensor) -> None:
        which = window.examples[rows]
        off = (run.examples.coordinates.to_user(z) - torch.as_tensor(data.x_true)[which]).abs().amax(1)
        nearest[which] = torch.minimum(nearest[which], off)

    monkeypatch.setattr(run, "seen", seen)
    run.run(Control(), Checkpoints())
    assert torch.isfinite(nearest).all()
    assert (nearest > 1e-9).all()
