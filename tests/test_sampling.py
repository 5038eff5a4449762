"""Points where solutions may be: by priors, bounds or around the start; each example's own, whatever the others are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from invsolve.data.dataset import Dataset
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Normal, Parameter, Uniform
from invsolve.problem import Problem
from invsolve.registry import load_model
from invsolve.sampling import Sampler, sobol_pieces

FAR = 10**9  # as many examples as there may be


def problem_of(*parameters: Parameter, d: int = 0, x0: Any = None, dtype: torch.dtype = torch.float64) -> Problem:
    class Identity(ForwardModel):
        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            return x

    Identity.parameters = parameters  # type: ignore[assignment]
    model = load_model(Identity) if parameters else load_model(lambda x, identifiers: x)
    d = d or len(parameters)
    data = Dataset(targets=np.zeros((3, d)), x0=np.ones(d) if x0 is None else x0)
    return Problem(model, data.rows(0, 3), (d,), torch.device("cpu"), dtype)


def users(problem: Problem, count: int = 512, **more: Any) -> np.ndarray:
    """Points x (3 · count, d) of all examples, in the user's units."""
    z = Sampler(problem, 3, **more).spread(problem.examples, count, problem.coordinates.to_solver(problem.x0))
    return problem.coordinates.to_user(z.reshape(-1, problem.d)).numpy()


def test_pieces_are_those_of_the_sequence() -> None:
    engine = torch.quasirandom.SobolEngine(3, scramble=True, seed=5)
    whole = engine.draw(64, dtype=torch.float64).reshape(8, 8, 3)
    numbers = torch.tensor([3, 0, 7])
    pieces = sobol_pieces(numbers, 8, 3, 5)
    # Half a cell of 2⁻³⁰ away; torch rounds the very first point to float32.
    np.testing.assert_allclose(pieces, whole[numbers], rtol=0, atol=2.0**-24)
    np.testing.assert_array_equal(sobol_pieces(numbers, 5, 3, 5), pieces[:, :5])


@pytest.mark.parametrize("count", [1, 8, 4096])
def test_there_are_pieces_for_any_number_of_examples(count: int) -> None:
    points = sobol_pieces(torch.tensor([0, FAR]), count, 2, 0)
    assert bool(((points > 0) & (points < 1)).all())
    # A net: one point in each of `count` equal intervals of either axis.
    cells = (points * count).long().sort(dim=1).values
    assert torch.equal(cells, torch.arange(count)[None, :, None].expand(2, count, 2))


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (Parameter("a", prior=Uniform(2, 5), initial=3), stats.uniform(2, 3)),
        (Parameter("a", prior=Uniform(2, 5), upper=3, initial=3), stats.uniform(2, 1)),
        (Parameter("a", prior=Normal(2, 0.5)), stats.norm(2, 0.5)),
        (Parameter("a", prior=Normal(2, 0.5), lower=2, upper=2.2, initial=2), stats.truncnorm(0, 0.4, 2, 0.5)),
        (Parameter("a", lower=-1, upper=3), stats.uniform(-1, 4)),
        (Parameter("a", lower=0.1, upper=10, initial=1, scale="log"), stats.loguniform(0.1, 10)),
        (Parameter("a", lower=0, prior=Normal(1, 1), initial=1, scale="log"), stats.truncnorm(-1, math.inf, 1, 1)),
        (Parameter("a", lower=0, initial=1, scale="log"), stats.lognorm(1)),
        (Parameter("a"), stats.norm(1, 1)),
        (Parameter("a", lower=1, initial=1), stats.halfnorm(1, 1)),  # the start is on a bound
    ],
)
def test_points_are_spread_as_what_is_known_of_x(parameter: Parameter, expected: Any) -> None:
    x0 = np.array([min(max(parameter.initial, parameter.lower), parameter.upper)]) if parameter.prior else None
    x = users(problem_of(parameter, x0=x0))[:, 0]
    # A net of 1536 points is within a few of them of its distribution; random points would be within 0.04.
    assert stats.kstest(x, expected.cdf).statistic < 0.005
    assert parameter.lower <= x.min()
    assert x.max() <= parameter.upper


def test_what_would_be_above_a_bound_is_reflected() -> None:
    x = users(problem_of(Parameter("a", upper=1)))[:, 0]
    assert stats.kstest(2 - x, stats.halfnorm(1, 1).cdf).statistic < 0.005


def test_around_the_start_priors_are_left_aside() -> None:
    x = users(problem_of(Parameter("a", prior=Uniform(-9, 9))), around_start=True, width=0.1)[:, 0]
    assert stats.kstest(x, stats.norm(1, 0.9).cdf).statistic < 0.005  # a typical change is the prior's spread, 9


def test_unknowns_without_names_are_as_large_as_their_start() -> None:
    x = users(problem_of(d=2, x0=np.array([[1e-3, 1e6], [1.0, 0.0], [2.0, -3.0]]))).reshape(3, 512, 2)
    np.testing.assert_allclose(x.std(axis=1), [[1e-3, 1e6], [1, 1], [2, 3]], rtol=0.02)
    field = users(problem_of(d=100, x0=np.linspace(0, 2, 100)), 64).reshape(3, 64, 100)
    np.testing.assert_allclose(field.std(axis=1), math.sqrt(np.mean(np.linspace(0, 2, 100) ** 2)), rtol=0.2)


@pytest.mark.parametrize("d", [2, 1001])
def test_points_of_an_example_depend_on_its_number_and_the_seed_alone(d: int) -> None:
    problem = problem_of(d=d)
    z0 = problem.x0[:1]

    def points(examples: list[int], seed: int = 1) -> Tensor:
        return Sampler(problem, seed).spread(torch.tensor(examples), 5, z0.expand(len(examples), d))

    together = points([7, 3, FAR, 7])
    for k, i in enumerate([7, 3, FAR]):
        assert torch.equal(points([i])[0], together[k])
    assert torch.equal(together[0], together[3])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(points([7], seed=2), points([7]))


def test_float32_stays_within_bounds() -> None:
    problem = problem_of(Parameter("a", lower=0.1, upper=0.3, initial=0.2), x0=np.full(1, 0.2), dtype=torch.float32)
    z = Sampler(problem, 0).spread(problem.examples, 64, problem.coordinates.to_solver(problem.x0))
    assert z.dtype == torch.float32
    x = problem.coordinates.to_user(z)
    assert bool(((x >= problem.coordinates.x_lower) & (x <= problem.coordinates.x_upper)).all())


def test_points_at_random() -> None:
    problem = problem_of(Parameter("a", prior=Normal(2, 0.5)))
    x = problem.coordinates.to_user(Sampler(problem, 0).draw(torch.zeros(4000, 1), torch.Generator().manual_seed(0)))
    assert stats.kstest(x[:, 0].numpy(), stats.norm(2, 0.5).cdf).pvalue > 0.01
