"""The neural adjoint: a network that stands in for F, and descents through it that cost no evaluation of F."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.checkpoints import Checkpoints
from invsolve.control import Control
from invsolve.examples import Examples
from invsolve.methods.candidates import Candidates
from invsolve.methods.neural_adjoint import NeuralAdjoint
from invsolve.methods.simulations import Lessons, Plan
from invsolve.methods.surrogate import Surrogate
from invsolve.problem import Problem
from invsolve.registry import load_model
from tests.methods.test_supervised import Cubic, cubics, off, packets, small


def trained(data: invsolve.Dataset, model: Any, d: int, passes: int, **options: Any) -> tuple[Surrogate, Examples]:
    torch.manual_seed(0)
    loaded = load_model(model) if not isinstance(model, Cubic) else model
    examples = Examples(data, (d,), lambda rows: Problem(loaded, rows, (d,), torch.device("cpu"), torch.float64))
    loss, _ = examples.score(64)
    surrogate = Surrogate(NeuralAdjoint.Options(**options), examples, 1)
    candidates = Candidates.at(examples.coordinates.to_solver(examples.x0), loss)
    plan = Plan(passes, "prior", torch.ones(examples.n, dtype=torch.bool), **NeuralAdjoint.lessons)
    Lessons(plan, surrogate, examples, candidates, 1).run(Control(), Checkpoints())
    return surrogate, examples


def test_the_network_learns_f_and_its_derivative() -> None:
    surrogate, examples = trained(cubics(), Cubic(), 1, passes=40)
    x = torch.linspace(-1.6, 1.6, 33, dtype=torch.float64)[:, None].requires_grad_()
    y = surrogate(x, None)
    assert y.dtype == torch.float64
    assert (y - torch.cat([x, x**3], 1)).abs().max() < 0.15  # of ±4
    (slope,) = torch.autograd.grad(y[:, 1].sum(), x)
    assert (slope - 3 * x**2).abs().max() < 1.5  # of 0 to 7.7
    assert examples.evaluations.tolist() == [41] * 24


@pytest.mark.parametrize("asked", [1, 3])
def test_evaluations_are_pairs_answers_and_scorings(asked: int) -> None:
    """None for the descents, whose gradients are the network's."""
    model = Cubic()
    options = {"simulations": 6, "starts": 5, "asked": asked}
    solution = invsolve.solve(cubics(), model, "neural-adjoint", options=options, refine="none")
    assert set(solution.evaluations) == {1 + 6 + asked + 1}  # start, pairs, answers, and the result
    assert set(solution.gradients) == {1}  # of the result
    assert sum(len(x) for x in model.asked) == solution.evaluations.sum()


def test_it_solves_billiards_which_bfgs_and_the_mean_of_solutions_do_not() -> None:
    """Where the ball is missed the gradient is zero, and several velocities send it to the same place."""
    data = invsolve.generate("billiards", 48, seed=3)
    found = {m: invsolve.solve(data, method=m).loss < 1e-8 for m in ("bfgs", "neural-adjoint")}
    assert found["neural-adjoint"].mean() > 0.9 > found["bfgs"].mean() + 0.1


def test_more_starts_find_better_solutions() -> None:
    """The network's loss has as many minima as that of F."""
    solved = []
    for starts in (1, 16):
        options = {"starts": starts, "simulations": 40, "width": 64}
        solved.append(off(invsolve.solve(packets(), method="neural-adjoint", options=options), packets()) < 0.3)
    assert solved[1].mean() > 0.95 > solved[0].mean() + 0.2


def test_points_stay_inside_the_region_of_the_training() -> None:
    """The prior, which is narrower than the bounds: the network knows nothing of what is beyond."""
    model = Cubic()
    far = np.array([[1.9], [-1.95], [0.5]])
    data = invsolve.Dataset(targets=np.concatenate([far, far**3], 1))
    solution = invsolve.solve(
        data, model, "neural-adjoint", options=small("neural-adjoint", simulations=60), refine="none"
    )
    assert torch.cat(model.asked).abs().max() <= 1.8
    assert (np.abs(solution.x[:2, 0]) > 1.5).all()  # the nearest that it may be
    fine = invsolve.solve(data, Cubic(), "neural-adjoint", options=small("neural-adjoint", simulations=60))
    np.testing.assert_allclose(fine.x, far, atol=1e-4)  # a refinement may leave it


def test_gaps_and_errors_count_as_in_the_loss() -> None:
    """What is wrong was not observed, or is known to be uncertain."""
    data = cubics()
    clean = np.array(data.targets)
    for gap in (True, False):
        targets, sigma = clean.copy(), np.full(clean.shape, 0.01)
        targets[:, 0] = np.nan if gap else 1.0
        sigma[:, 0] = 0.01 if gap else 100.0
        wrong = invsolve.Dataset(targets=targets, sigma=sigma, x_true=data.x_true)
        solution = invsolve.solve(
            wrong, Cubic(), "neural-adjoint", options=small("neural-adjoint", simulations=60), refine="none"
        )
        far = np.abs(np.asarray(data.x_true)[:, 0]) > 0.5  # where x³ tells x
        assert np.median(off(solution, data)[far]) < 0.05


def test_the_prior_is_a_part_of_what_the_descent_minimizes() -> None:
    surrogate, examples = trained(cubics(), Cubic(), 1, passes=3)
    rows = cubics().rows(0, 24, (1,))
    problem = Problem(Cubic(), rows, (1,), torch.device("cpu"), torch.float64, prior=True)
    stand_in = surrogate.in_place_of_f(problem, torch.arange(24))
    assert stand_in.penalty is problem.penalty
    assert stand_in.coordinates.upper <= examples.coordinates.upper
    stand_in.evaluate(torch.arange(24), problem.coordinates.to_solver(problem.x0))
    assert problem.evaluations.sum() == 0
    assert stand_in.evaluations.sum() == 24


def test_wild_points_neither_set_the_scale_nor_lead_the_network_astray() -> None:
    """F is absurdly large in one part of where x may be; the examples are elsewhere."""

    def wild(x: Tensor, identifiers: object) -> Tensor:
        return torch.cat([x, x**3], dim=1) * torch.where((x - 0.2).abs() > 1.4, x.new_tensor(1e30), 1.0)

    x = np.linspace(-1, 1.5, 24)[:, None]
    data = invsolve.Dataset(targets=np.concatenate([x, x**3], 1), x0=np.zeros(1), x_true=x)
    solution = invsolve.solve(
        data, wild, "neural-adjoint", options=small("neural-adjoint", simulations=40, asked=1), refine="none"
    )
    assert np.median(off(solution, data)) < 0.25  # of x from −1 to 1.5; where it begins, at 0, 0.5


def test_fields_and_identifiers_on_their_grid() -> None:
    """y is the field that an example brings, made stronger and raised: few pairs suffice where it is seen as one."""
    rng = np.random.default_rng(2)
    field, x = rng.normal(size=(12, 8, 10)), rng.normal(size=(12, 2))

    def scaled(x: Tensor, identifiers: Tensor) -> Tensor:
        return x[:, :1, None] * identifiers + x[:, 1:, None]

    targets = x[:, :1, None] * field + x[:, 1:, None]
    data = invsolve.Dataset(targets=targets, identifiers=field, x0=np.zeros(2), x_true=x)
    options = {"simulations": 20, "channels": 4, "width": 16, "depth": 1, "starts": 4}
    options["iterations"] = 15
    solution = invsolve.solve(data, scaled, "neural-adjoint", options=options, refine="none")
    assert np.median(off(solution, data)) < 0.5 * np.median(np.abs(x).max(1))


def test_a_network_that_does_not_fit_is_refused() -> None:
    with pytest.raises(invsolve.OptionError, match="conv2d.*does not fit.*valid here: mlp, conv1d"):
        invsolve.solve(invsolve.generate("wave-packet", 8), method="neural-adjoint", options={"network": "conv2d"})


def test_too_many_unknowns_are_refused() -> None:
    with pytest.raises(invsolve.InvsolveError, match="neural-adjoint.*d = 20000"):
        invsolve.solve(
            invsolve.Dataset(targets=np.zeros((2, 3)), x0=np.zeros(20000)),
            lambda x, identifiers: x[:, :3],
            "neural-adjoint",
        )
