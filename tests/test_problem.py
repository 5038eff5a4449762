"""The loss, its gradient and its counts, and what a forward model may not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.data.dataset import Dataset
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from invsolve.problem import Problem
from invsolve.registry import load_model
from invsolve.shapes import solution_shape


def make(data: Dataset, model: Any) -> Problem:
    loaded = load_model(model)
    shape = solution_shape(loaded, data)
    return Problem(loaded, data.rows(0, len(data)), shape, torch.device("cpu"), torch.float64)


def square(x: Tensor, identifiers: Identifiers) -> Tensor:
    return x**2


ROWS = torch.arange(3)


def test_loss_counts_observed_entries_in_units_of_sigma() -> None:
    targets = np.array([[1.0, np.nan], [0.0, 0.0], [np.nan, np.nan]])
    sigma = np.array([[0.5, 1.0], [1.0, 2.0], [1.0, 1.0]])
    p = make(Dataset(targets=targets, sigma=sigma, x0=np.full((3, 2), 2.0)), square)
    loss, gradient = p.evaluate_user(ROWS, p.x0)
    # By the formula the first entry (4 - 1)/σ and the second row (4, 4)/σ; the third row observed nothing.
    assert loss.tolist() == [0.5 * (3 / 0.5) ** 2, 0.5 * (16 + 4), torch.inf]
    assert gradient[0].tolist() == [3 / 0.25 * 4, 0.0]


@pytest.mark.parametrize("sigma", [0.5, np.full(3, 0.5), np.full((3, 1), 0.5), np.full((1, 2), 0.5), np.full(2, 0.5)])
def test_sigma_broadcasts(sigma: Any) -> None:
    p = make(Dataset(targets=np.zeros((3, 2)), sigma=sigma, x0=np.ones(2)), square)
    assert p.evaluate_user(ROWS, p.x0)[0].tolist() == [4.0, 4.0, 4.0]


def test_evaluations_and_gradients_are_counted_per_row() -> None:
    p = make(Dataset(targets=np.zeros((3, 2)), x0=np.ones(2)), square)
    p.evaluate_user(ROWS, p.x0)
    p.evaluate_user(ROWS[1:], p.x0[1:], differentiate=False)
    assert p.evaluations.tolist() == [1, 2, 2]
    assert p.gradients.tolist() == [1, 1, 1]
    p.slice(2, 3).evaluate_user(torch.tensor([0]), p.x0[2:])
    assert p.evaluations.tolist() == [1, 2, 3]


def test_failing_rows_are_infinite_and_alone() -> None:
    def fails(x: Tensor, identifiers: Identifiers) -> Tensor:
        if bool((x == 7).any()):
            raise RuntimeError("seven")
        return torch.sqrt(x)

    p = make(Dataset(targets=np.zeros((5, 1)), x0=np.ones(1)), fails)
    x = torch.tensor([[1.0], [7.0], [-1.0], [4.0], [0.0]], dtype=torch.float64)
    loss, gradient = p.evaluate_user(torch.arange(5), x)
    assert loss.tolist() == [0.5, torch.inf, torch.inf, 2.0, 0.0]
    assert torch.isnan(gradient).ravel().tolist() == [False, True, True, False, True]  # √x has no gradient at 0
    loss, gradient = p.evaluate(torch.arange(5), x)  # as solvers see it
    assert loss.tolist() == [0.5, torch.inf, torch.inf, 2.0, torch.inf]
    assert gradient.ravel().tolist() == [0.5, 0.0, 0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (lambda x, identifiers: x.numpy(force=True), "returned ndarray"),
        (
            lambda x, identifiers: x[:, :1],
            r"returned shape \(3, 1\) for x \(3, 2\) at example 0; the targets need \(3, 2\)",
        ),
        (lambda x, identifiers: x.sum(), r"returned shape \(\)"),
        (lambda x, identifiers: x.float(), "returned float32 where float64 came in"),
        (lambda x, identifiers: x.detach(), "no gradient to x"),
        (lambda x, identifiers: x + identifiers["a"], r"raises TypeError.*example 0.*x \(2,\), identifiers None"),
        (lambda x: x, "raises TypeError"),
    ],
)
def test_a_faulty_model_is_told_in_one_line(model: Any, line: str) -> None:
    data = Dataset(targets=np.zeros((3, 2)), x0=np.ones(2))
    with pytest.raises(invsolve.ModelError, match=line) as caught:
        invsolve.solve(data, model)
    assert "\n" not in str(caught.value)


def in_place(x: Tensor, identifiers: Identifiers) -> Tensor:
    return x.mul_(2)


def leaves(x: Tensor, identifiers: Identifiers) -> Tensor:
    raise SystemExit(0)


@pytest.mark.parametrize(("model", "line"), [(in_place, "raises RuntimeError"), (leaves, "raises SystemExit: 0")])
def test_a_model_that_fails_with_a_gradient_alone_or_leaves_is_told(model: Any, line: str) -> None:
    with pytest.raises(invsolve.ModelError, match=line):
        invsolve.solve(Dataset(targets=np.zeros((3, 2)), x0=np.ones(2)), model)


def test_neighbours_of_a_row_that_raises_keep_their_starting_loss() -> None:
    """The first scoring is also a probe, which says nothing of a row that bisection has left alone."""

    def fails(x: Tensor, identifiers: Tensor) -> Tensor:
        if bool((identifiers == 5).any()):
            raise ValueError("five")
        return x

    data = Dataset(targets=np.zeros((8, 1)), identifiers=np.arange(8.0)[:, None], x0=np.ones(1))
    solution = invsolve.solve(data, fails)
    assert np.isinf(solution.loss_initial).tolist() == [i == 5 for i in range(8)]


def test_selected_rows_are_a_problem_of_their_own() -> None:
    targets = np.arange(6.0).reshape(3, 2)
    p = make(Dataset(targets=targets, sigma=targets + 1, identifiers=targets, x0=np.ones(2)), square)
    part = p.slice(1, 3).select(torch.tensor([1, 0, 1]))
    assert part.n == 3
    assert part.examples.tolist() == [2, 1, 2]
    assert [part.example(i) for i in range(3)] == [2, 1, 2]
    loss, _ = part.evaluate_user(ROWS, part.x0)
    assert torch.equal(loss, p.evaluate_user(ROWS, p.x0)[0][[2, 1, 2]])
    assert part.evaluations.tolist() == [1, 1, 1]
    assert p.evaluations.tolist() == [1, 1, 1]  # of the second scoring alone
    assert torch.equal(part.slice(1, 3).examples, torch.tensor([1, 2]))
    assert part.slice(1, 3).select(torch.tensor([1])).examples.tolist() == [2]


def test_the_loss_of_nothing_is_that_of_y_equal_to_zero() -> None:
    targets = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, np.nan]])
    p = make(Dataset(targets=targets, sigma=np.full(3, 0.5), x0=np.ones(2)), square)
    assert p.loss_of_nothing().tolist() == [2.0, 50.0, 0.0]


def test_a_loss_stays_what_it_is_where_only_the_gradient_fails() -> None:
    data = Dataset(targets=np.array([[1.0], [1.0]]), x0=np.array([[0.0], [4.0]]))
    solution = invsolve.solve(data, lambda x, identifiers: torch.sqrt(x**2))
    assert solution.status.tolist() == [3, 0]
    assert solution.loss[0] == 0.5
    assert np.isnan(solution.grad_norm[0])


def test_an_example_without_any_observation_is_nonfinite() -> None:
    targets = np.ones((3, 2))
    targets[1] = np.nan
    solution = invsolve.solve(Dataset(targets=targets, x0=np.ones(2)), square)
    assert solution.status.tolist() == [0, 3, 0]
    with pytest.raises(invsolve.ModelError, match="no target is observed"):
        invsolve.solve(Dataset(targets=np.full((3, 2), np.nan), x0=np.ones(2)), square)


def test_many_failing_rows_are_not_a_failing_model() -> None:
    """The first batches hold failing rows alone; the run goes on to those that work."""

    def fails(x: Tensor, identifiers: Tensor) -> Tensor:
        if bool((identifiers < 0).any()):
            raise RuntimeError("negative")
        return x

    identifiers = np.where(np.arange(40) < 38, -1.0, 1.0)
    data = Dataset(targets=np.zeros((40, 1)), identifiers=identifiers, x0=np.ones(1))
    for method in ("bfgs", "jpo"):
        solution = invsolve.solve(data, fails, method, batch_size=8, options={"steps": 50} if method == "jpo" else {})
        assert solution.status_counts()["nonfinite"] == 38
        assert (solution.loss[38:] < 1e-9).all()


def test_nan_for_all_rows_is_told() -> None:
    data = Dataset(targets=np.zeros((3, 2)), x0=np.ones(2))
    with pytest.raises(invsolve.ModelError, match="for all 3 examples model .* gives NaN or Inf"):
        invsolve.solve(data, lambda x, identifiers: x * torch.nan)


def guessing(**attributes: Any) -> type[ForwardModel]:
    return type("Mine", (ForwardModel,), {"forward": lambda self, x, identifiers: x, **attributes})


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({"parameters": property(lambda self: (Parameter("a", lower=2, upper=1),))}, "the wrong way round"),
        ({"parameters": property(lambda self: 1 / 0)}, "cannot be made: ZeroDivisionError"),
        ({"parameters": ("a", "b")}, "must be a tuple of invsolve.Parameter"),
        ({"parameters": (Parameter("a"),), "x_shape": (2,)}, r"x_shape is \(2,\), but there are 1 parameters"),
        ({"x_shape": (2,), "initial_guess": lambda self, t, i: t[:, :1]}, r"initial_guess .* has shape \(3, 1\)"),
        ({"x_shape": (2,), "initial_guess": lambda self, t, i: 1 / 0}, "initial_guess .* raises ZeroDivisionError"),
        ({"x_shape": (2,)}, "has no initial guess"),
        ({"__init__": lambda self: None}, "must call super"),
    ],
)
def test_a_faulty_model_class_is_told_in_one_line(attributes: dict[str, Any], line: str) -> None:
    with pytest.raises(invsolve.ModelError, match=line):
        invsolve.solve(Dataset(targets=np.zeros((3, 2))), guessing(**attributes))


class Named(ForwardModel):
    parameters = (Parameter("a", lower=0, upper=2, initial=1), Parameter("b"))

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"x0": np.zeros(3)}, r"x0 has shape \(3,\).*needs \(4, 2\) or \(2,\)"),
        ({"x_true": np.zeros((4, 3))}, r"x_true has shape \(4, 3\)"),
        ({"x0": np.array([3.0, 0.0])}, r"x0 of example 0 has a = 3, outside the bounds \[0, 2\]"),
    ],
)
def test_shapes_and_starts_that_do_not_fit_the_model(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(invsolve.DataError, match=line):
        invsolve.solve(Dataset(targets=np.zeros((4, 2)), **fields), Named)


def test_identifiers_that_do_not_fit_the_model() -> None:
    with pytest.raises(invsolve.DataError, match=r"needs identifiers of shape \(3, 4\), found none"):
        invsolve.solve(Dataset(targets=np.zeros((3, 2))), "billiards")
    with pytest.raises(invsolve.DataError, match=r"identifiers has shape \(3, 5\)"):
        invsolve.solve(Dataset(targets=np.zeros((3, 2)), identifiers=np.zeros((3, 5))), "billiards")


def test_a_function_needs_a_start_and_takes_its_shape_from_it() -> None:
    with pytest.raises(invsolve.ModelError, match="give an initial guess: dataset 'x0'"):
        invsolve.solve(Dataset(targets=np.zeros((3, 2))), square)
    field = invsolve.solve(Dataset(targets=np.ones((3, 2, 2)), x0=np.full((2, 2), 2.0)), square)
    assert field.x.shape == (3, 2, 2)
    np.testing.assert_allclose(field.x, 1, atol=1e-4)


def test_integer_identifiers_stay_integers() -> None:
    def lookup(x: Tensor, identifiers: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 2.0, 4.0], dtype=x.dtype)[identifiers][:, None]

    data = Dataset(targets=np.full((3, 1), 8.0), identifiers=np.array([0, 1, 2]), x0=np.ones((3, 1)))
    np.testing.assert_allclose(invsolve.solve(data, lookup).x.ravel(), [8, 4, 2], atol=1e-4)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x - x.mean(0),
        lambda x: x / x.norm(),
        lambda x: x.flip(0),
        lambda x: x.cumsum(0),
        lambda x: x.flip(0).cumsum(0).flip(0),
        lambda x: torch.cat([x[:-1], x[:1]]),
        lambda x: torch.cat([x[1:], x[-1:]]),
        lambda x: x.sort(0).values,
    ],
)
@pytest.mark.parametrize("method", ["bfgs", "jpo"])
def test_a_model_that_mixes_rows_is_refused(mix: Any, method: str) -> None:
    data = Dataset(targets=np.zeros((9, 3)), x0=np.random.default_rng(0).normal(size=(9, 3)))
    with pytest.raises(invsolve.ModelError, match="mixes rows: x of example . changes y of others"):
        invsolve.solve(data, lambda x, identifiers: mix(x), method)


def test_steps_that_rows_share_are_no_reason_to_refuse() -> None:
    data = Dataset(targets=np.zeros((9, 3)), x0=np.random.default_rng(0).normal(size=(9, 3)))
    solution = invsolve.solve(data, lambda x, identifiers: x * (1 + 1e-7 * x.square().mean()))
    np.testing.assert_allclose(solution.x, 0, atol=1e-4)


def test_what_a_model_does_to_its_identifiers_is_not_seen_by_its_next_call() -> None:
    t = np.linspace(0.5, 2, 8)[:, None]

    def halving(x: Tensor, identifiers: dict[str, Tensor]) -> Tensor:
        identifiers["t"] = identifiers["t"] * 0.5
        return x * identifiers["t"]

    solution = invsolve.solve(Dataset(targets=t, identifiers={"t": t}, x0=np.ones(1)), halving)
    np.testing.assert_allclose(solution.x, 2, atol=1e-4)

    def in_place(x: Tensor, identifiers: Tensor) -> Tensor:
        return x * identifiers.mul_(0.5)

    with pytest.raises(invsolve.ModelError, match="changes its identifiers in place"):
        invsolve.solve(Dataset(targets=t, identifiers=t, x0=np.ones(1)), in_place)


def test_one_guess_whose_shape_begins_with_n() -> None:
    class Field(ForwardModel):
        x_shape = (6, 3)

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            return x.sum(2)

    data = Dataset(targets=np.ones((6, 6)), x0=np.arange(18.0).reshape(6, 3))
    solution = invsolve.solve(data, Field, batch_size=2)
    np.testing.assert_array_equal(solution.x_initial, np.broadcast_to(data.x0, (6, 6, 3)))


def test_identifiers_that_no_signed_integer_holds_are_refused() -> None:
    data = Dataset(targets=np.ones((2, 1)), identifiers=np.array([7, 2**63 + 5], dtype=np.uint64), x0=np.ones(1))
    with pytest.raises(invsolve.DataError, match="identifiers hold 9223372036854775813"):
        invsolve.solve(data, lambda x, identifiers: 1.0 * x)
