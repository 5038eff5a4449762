"""Compiled rounds give what the others give; what cannot be compiled is told, and does not end in something else."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor
from torch import Tensor

import invsolve
from invsolve.compilation import CompiledKernels
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.engine import Kernels, run_rows
from invsolve.histories import History
from invsolve.methods.bfgs import Bfgs
from invsolve.methods.lm import Lm
from invsolve.problem import Problem
from invsolve.registry import load_model
from invsolve.shapes import solution_shape


@pytest.fixture(autouse=True)
def _no_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs are made and checked as always, but run by torch: machine code takes long to make."""
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs: graph)


def problem_of(model: Any, data: Dataset, dtype: torch.dtype = torch.float64) -> Problem:
    loaded = load_model(model)
    shape = solution_shape(loaded, data)
    return Problem(loaded, data.rows(0, len(data)), shape, torch.device("cpu"), dtype)


def solved(method: Any, problem: Problem, kernels: Kernels | None, slots: int) -> Any:
    z0 = problem.coordinates.to_solver(problem.x0)
    limit = torch.full((problem.n,), 10**6)
    return run_rows(method.stepper(problem), problem, z0, limit=limit, slots=slots, control=Control(), kernels=kernels)


@pytest.mark.parametrize("method", [Bfgs(), Lm()], ids=["bfgs", "lm"])
@pytest.mark.parametrize("model", ["wave-packet", "billiards", "gaussian-2d"])
def test_solutions_and_counts_are_the_same(model: str, method: Any) -> None:
    """More rows than places, so that they are refilled; and at the end places without rows."""
    data = invsolve.generate(model, 21, seed=3)
    plain, compiled = problem_of(model, data), problem_of(model, data)
    plain.history, compiled.history = History.empty(plain.n, plain.device), History.empty(plain.n, plain.device)
    expected, found = solved(method, plain, None, 8), solved(method, compiled, CompiledKernels(8), 8)
    torch.testing.assert_close(found.best, expected.best, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found.z, expected.z, rtol=1e-6, atol=1e-7)
    assert (found.status == expected.status).all()
    assert (compiled.gradients - plain.gradients).abs().max() <= (0 if method.name == "bfgs" else 5)
    alike = (compiled.evaluations == plain.evaluations).numpy()
    assert alike.any()
    np.testing.assert_allclose(compiled.history.column()[alike], plain.history.column()[alike], rtol=1e-4, atol=1e-9)


def test_gaps_sigma_and_bounds_are_a_part_of_it() -> None:
    data = invsolve.generate("gaussian-2d", 9, seed=5, model_options={"shape": "symmetric"})
    targets = np.array(data.targets)
    targets[:, 3, 4] = np.nan
    data = Dataset(targets=targets, sigma=np.linspace(0.5, 2, 9), model="gaussian-2d", model_options=data.model_options)
    eager, compiled = (invsolve.solve(data, method="lm", compile=c) for c in ("off", "on"))
    assert compiled.attributes["compiled"]
    np.testing.assert_allclose(compiled.loss, eager.loss, rtol=1e-9)


def test_a_row_that_fails_harms_no_other() -> None:
    def model(x: Tensor, identifiers: Tensor) -> Tensor:
        return torch.where(identifiers > 0, x * identifiers, torch.nan)

    data = Dataset(targets=np.ones((3, 1)), identifiers=np.array([[1.0], [-1.0], [2.0]]), x0=np.zeros(1))
    solution = invsolve.solve(data, model, "bfgs", compile="on")
    assert solution.status.tolist() == [0, 3, 0]
    np.testing.assert_allclose(solution.x[[0, 2], 0], [1, 0.5], rtol=1e-9)


def test_a_single_example_can_be_compiled() -> None:
    solution = invsolve.solve(Dataset(targets=np.ones((1, 1)), x0=np.zeros(1)), lambda x, identifiers: x, compile="on")
    assert solution.attributes["compiled"]
    np.testing.assert_allclose(solution.x, 1)


def branching(x: Tensor, identifiers: None) -> Tensor:
    return 2 * x if bool((x > 0).any()) else x


def leaving_torch(x: Tensor, identifiers: None) -> Tensor:
    return x + torch.from_numpy(np.sin(x.detach().numpy()))


@pytest.mark.parametrize(("model", "said"), [(branching, "does not compile"), (leaving_torch, "something else")])
def test_models_that_cannot_be_compiled_are_refused_where_it_is_demanded(model: Any, said: str) -> None:
    data = Dataset(targets=np.ones((4, 1)), x0=np.linspace(0.1, 0.9, 4)[:, None])
    with pytest.raises(invsolve.ModelError, match=f"{said}.*use --compile auto or off"):
        invsolve.solve(data, model, "bfgs", compile="on")
    assert invsolve.solve(data, model, "bfgs", compile="off").attributes["compiled"] is False


def test_leaving_torch_is_seen_where_all_rows_start_from_one_point() -> None:
    data = Dataset(targets=np.linspace(0.5, 1, 4)[:, None], x0=np.ones(1))
    with pytest.raises(invsolve.ModelError, match="something else"):
        invsolve.solve(data, leaving_torch, "bfgs", compile="on")


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("lbfgs", {}, "written in place"),
        ("jpo", {}, "only row methods"),
        ("lm", {"solver": "cg"}, "different things"),
    ],
)
def test_methods_that_cannot_be_compiled_are_refused(method: str, options: dict[str, Any], said: str) -> None:
    data = invsolve.generate("billiards", 3)
    with pytest.raises(invsolve.OptionError, match=said):
        invsolve.solve(data, method=method, options=options, compile="on")


def test_the_compiler_leaves_no_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    data = invsolve.generate("billiards", 3)
    with caplog.at_level(logging.WARNING):
        invsolve.solve(data, compile="on")
    assert not caplog.records


def test_machine_code_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # this time by inductor
    data = invsolve.generate("sine", 12, seed=1)
    eager, compiled = (invsolve.solve(data, method="lm", compile=c) for c in ("off", "on"))
    np.testing.assert_allclose(compiled.loss, eager.loss, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(compiled.history, eager.history, rtol=1e-5, atol=1e-12)
