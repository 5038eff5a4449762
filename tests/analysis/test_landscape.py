"""Lines and planes through the unknowns, plateaus and barriers."""

from __future__ import annotations

import numpy as np
import torch

from invsolve.analysis.landscape import along, has_barrier, is_flat, losses, orthogonal
from invsolve.data.dataset import Dataset
from invsolve.problem import Problem
from invsolve.registry import load_model


def test_a_line_goes_from_one_point_to_the_other() -> None:
    start, end = torch.zeros(1, 2), torch.tensor([[2.0, 4.0]])
    points = along(start, end, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(points[0], torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]))


def test_the_other_direction_is_orthogonal_and_as_long() -> None:
    direction = torch.randn(5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    side = orthogonal(direction, torch.Generator().manual_seed(2))
    torch.testing.assert_close((side * direction).sum(1), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(side.norm(dim=1), direction.norm(dim=1))


def test_a_plateau_has_a_loss_but_no_gradient() -> None:
    loss = torch.tensor([1.0, 1.0, 1e-12, torch.inf, 1e-20])
    gradient = torch.tensor([[0.0], [0.1], [0.0], [0.0], [1e-25]])
    perfect = torch.tensor([1e-9, 1e-9, 1e-9, 1e-9, 0.0])
    assert is_flat(loss, gradient, 1.0, perfect).tolist() == [True, False, False, False, False]


def test_a_barrier_is_a_rise_on_the_way_down() -> None:
    ways = torch.tensor([[4.0, 3, 2, 1], [4, 2, 3, 1], [4, 2, 2.03, 1], [4, torch.nan, 2, 1], [4, torch.inf, 2, 1]])
    assert has_barrier(ways).tolist() == [False, True, False, True, True]


def test_losses_are_the_models_and_unknown_outside_of_the_bounds() -> None:
    model = load_model("wave-packet", samples=16)
    rows = Dataset(targets=np.zeros((2, 16))).rows(0, 2)
    problem = Problem(model, rows, (1,), torch.device("cpu"), torch.float64)
    z = problem.coordinates.to_solver(torch.tensor([[-1.0], [5.0], [10.0]], dtype=torch.float64))
    found = losses(problem, torch.tensor([0, 1]), z.expand(2, 3, 1), batch_size=2)
    assert found[:, 0].isnan().all()
    x = torch.tensor([[5.0], [10.0]], dtype=torch.float64)
    torch.testing.assert_close(found[0, 1:], 0.5 * model(x).square().sum(1))
    assert problem.evaluations.tolist() == [2, 2]
