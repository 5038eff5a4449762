"""What every registered method must keep; a new one is tested here unasked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.checks.method import CHECKS, MethodUnderCheck
from invsolve.checks.report import Verdict
from invsolve.data.dataset import Dataset
from invsolve.methods.base import RowMethod
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from invsolve.registry import method_class, registered

NAMES = sorted(registered("methods"))
ROW_METHODS = [name for name in NAMES if issubclass(method_class(name), RowMethod)]
# Training is cut short in these tests; refinement then does what a short training leaves.
OPTIONS: dict[str, dict[str, Any]] = {
    "jpo": {"steps": 60},
    "neural-adjoint": {"simulations": 50, "starts": 16},
    "supervised": {"simulations": 20},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("title", "check"), CHECKS, ids=[title for title, _ in CHECKS])
def test_what_every_method_must_keep(name: str, title: str, check: Any) -> None:
    finding = check(MethodUnderCheck(name, OPTIONS.get(name, {})))
    skipped = title == "alone = in a batch" and name not in ROW_METHODS
    assert finding.verdict == (Verdict.SKIPPED if skipped else Verdict.OK), finding.found


@pytest.mark.parametrize("name", [name for name in NAMES if not method_class(name).uses_seed])
@pytest.mark.parametrize("model", ["wave-packet", "billiards"])
def test_without_a_seed_all_seeds_have_one_solution(name: str, model: str) -> None:
    data = invsolve.generate(model, 9, seed=2)
    one, other = (invsolve.solve(data, method=name, seed=seed) for seed in (0, 5))
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.evaluations, other.evaluations)


def solve(data: Dataset, model: Any, name: str, **more: Any) -> invsolve.Solution:
    return invsolve.solve(data, model, name, options=OPTIONS.get(name, {}), **more)


@pytest.mark.parametrize("name", ROW_METHODS)
@pytest.mark.parametrize(("model", "n", "iterations"), [("wave-packet", 9, 500), ("kuramoto-sivashinsky", 3, 8)])
def test_alone_equals_in_a_batch(name: str, model: str, n: int, iterations: int) -> None:
    data = invsolve.generate(model, n, seed=2)
    options = {"max_iterations": iterations}
    together = invsolve.solve(data, method=name, options=options)
    for i in range(n):
        identifiers = None if data.identifiers is None else data.identifiers[i : i + 1]
        alone = Dataset(targets=data.targets[i : i + 1], identifiers=identifiers, model=model)
        single = invsolve.solve(alone, method=name, options=options)
        np.testing.assert_allclose(single.loss[0], together.loss[i], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(single.x[0], together.x[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_the_solutions(name: str) -> None:
    data = invsolve.generate("wave-packet", 10, seed=6)
    data.sigma = np.full(10, 0.1)
    gaps = np.array(data.targets)
    gaps[:, ::7] = np.nan
    data.targets = gaps
    solution = solve(data, None, name)
    t = np.linspace(0, 20, 128) - solution.x
    residual = (np.sin(t) * np.exp(-(t**2) / 8) - gaps) / 0.1
    np.testing.assert_allclose(solution.loss, 0.5 * np.nansum(residual**2, axis=1), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "digits"),
    [("bfgs", {"grad_tolerance": 1e-9}, 2e-3), ("lbfgs", {"grad_tolerance": 1e-9}, 2e-3), ("lm", {}, 1e-6)],
)
def test_a_parameter_on_a_log_scale_stays_positive(name: str, options: dict[str, float], digits: float) -> None:
    class Decay(ForwardModel):
        parameters = (Parameter("rate", lower=0, scale="log", initial=1.0),)

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            return torch.exp(-x * torch.linspace(0, 1, 9, dtype=x.dtype))

    rates = np.array([[1e-3], [0.3], [5.0], [40.0]])
    data = Dataset(targets=np.exp(-rates * np.linspace(0, 1, 9)))
    solution = invsolve.solve(data, Decay, name, options=options)
    np.testing.assert_allclose(solution.x, rates, rtol=digits)
