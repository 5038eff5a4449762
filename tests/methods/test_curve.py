"""The bounded record of a training."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

import invsolve
from invsolve.methods.curve import POINTS, Curve

INF, NAN = float("inf"), float("nan")


def test_points_are_medians_of_so_many_calls_that_they_suffice() -> None:
    curve = Curve("loss", 3 * POINTS)
    for step in range(3 * POINTS - 1):
        curve.add(step / 2, torch.tensor([step, NAN, step + 0.5]))
    told = curve.told()
    assert len(told["evaluations"]) == len(told["loss"]) == POINTS
    assert (told["evaluations"][:2], told["loss"][:2]) == ([1.0, 2.5], [1.0, 4.0])
    assert told["evaluations"][-1] == 149.0  # what was left over
    assert Curve("loss", 10**6).told() == {"evaluations": [], "loss": []}


def test_what_is_not_finite_is_null() -> None:
    curve = Curve("error", 4)
    for values in ([INF, INF, 1.0], [NAN, NAN], [0.123456, 0.123456]):
        curve.add(1 / 3, torch.tensor(values))
    assert json.loads(json.dumps(curve.told(), allow_nan=False)) == {
        "evaluations": [0.3333] * 3,
        "error": [None, None, 0.1235],
    }


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("auto", {"simulations": 4, "restarts": 0}),
        ("supervised", {"simulations": 4}),
        ("neural-adjoint", {"simulations": 4, "width": 16, "starts": 2, "iterations": 4}),
    ],
)
def test_every_method_that_simulates_tells_its_errors(method: str, options: dict[str, int]) -> None:
    data = invsolve.generate("wave-packet", 5, seed=7)
    solution = invsolve.solve(data, method=method, options=options, refine="bfgs")
    curve = solution.attributes["training_curve"]
    assert list(curve) == ["proposals"]
    assert len(curve["proposals"]["error"]) == len(curve["proposals"]["evaluations"]) == 4
    counts = curve["proposals"]["evaluations"]
    assert [b - a for a, b in itertools.pairwise(counts)] == pytest.approx([1.0] * 3)
    assert all(error > 0 for error in curve["proposals"]["error"])
    assert "training_curve" not in invsolve.solve(data).attributes
