"""Steps by conjugate gradients: the optima of dense ones, and what dense ones could not hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import invsolve
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.models.base import Identifiers

D = 400
GRID = np.linspace(0, 1, D)
KERNEL = np.exp(-0.5 * ((GRID[:, None] - GRID) / 0.02) ** 2)
BLUR = torch.from_numpy(KERNEL / KERNEL.sum(1, keepdims=True))


def blurred(x: Tensor, identifiers: Identifiers) -> Tensor:
    """A positive density behind a blur, and the differences of its logarithm, which are to be small."""
    return torch.cat([x.exp() @ BLUR.T.to(x), 0.3 * x.diff(dim=1)], dim=1)


def blurred_data() -> Dataset:
    wave = np.sin(9 * GRID) + 0.3 * np.sin(40 * GRID)
    y = blurred(torch.from_numpy(np.stack([wave, 0.5 * wave, -wave])), None).numpy()
    y[:, :D] += 0.05 * np.random.default_rng(0).normal(size=(3, D))
    y[:, D:] = 0
    return Dataset(targets=y, x0=np.zeros((3, D)))


@pytest.mark.parametrize("loss", ["linear", "cauchy"])
def test_a_deconvolution_has_the_optimum_of_dense_steps(loss: str) -> None:
    options: dict[str, Any] = {"loss": loss, "loss_scale": 0.1}
    dense, cg = (
        invsolve.solve(blurred_data(), blurred, "lm", options=options | {"solver": s}) for s in ("dense", "cg")
    )
    # What is told is the least-squares loss, which is flat at the optimum of its own only.
    np.testing.assert_allclose(cg.loss, dense.loss, rtol=1e-9 if loss == "linear" else 1e-7)
    np.testing.assert_allclose(cg.x, dense.x, atol=1e-4)
    assert (cg.status == Status.CONVERGED).all()
    assert (cg.gradients < dense.gradients / 4).all()


def test_a_built_in_model_has_the_optimum_of_dense_steps() -> None:
    data = invsolve.generate("gaussian-2d", 8, seed=3)
    dense, cg = (invsolve.solve(data, method="lm", options={"solver": s}) for s in ("dense", "cg"))
    np.testing.assert_allclose(cg.loss, dense.loss, rtol=1e-6)


class Largest(TorchDispatchMode):
    """Sees the largest tensor that is made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.size = max(self.size, result.untyped_storage().nbytes())
        return result


def test_twenty_thousand_unknowns_agree_with_lsmr_without_a_matrix() -> None:
    n = 20_000
    band = scipy.sparse.diags([1.0, -0.5, 0.2], [0, 1, -2], shape=(n, n))
    matrix = scipy.sparse.vstack([band, 0.1 * scipy.sparse.eye(n)]).tocsr()
    y = np.concatenate([np.random.default_rng(0).normal(size=n), np.zeros(n)])

    def banded(x: Tensor, identifiers: Identifiers) -> Tensor:
        none = x[:, :2] * 0
        after, before = torch.cat([x[:, 1:], none[:, :1]], dim=1), torch.cat([none, x[:, :-2]], dim=1)
        return torch.cat([x - 0.5 * after + 0.2 * before, 0.1 * x], dim=1)

    with Largest() as seen:
        solution = invsolve.solve(Dataset(targets=y[None], x0=np.zeros((1, n))), banded, "lm")
    exact = scipy.sparse.linalg.lsmr(matrix, y, atol=1e-14, btol=1e-14, maxiter=5000)[0]
    np.testing.assert_allclose(solution.x[0], exact, atol=1e-7)
    assert seen.size <= 8 * 10 * n


def test_a_start_of_huge_gradient_is_not_taken_for_an_end() -> None:
    """The gradient at the start is 10²⁰ times that where the other unknown still has all its way to go."""

    def model(x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.stack([1e6 * (x[:, 0] - 1), x[:, 1] ** 3 + x[:, 1]], dim=1)

    solution = invsolve.solve(
        Dataset(targets=np.array([[0.0, 10.0]]), x0=np.array([[1e6, 0.0]])), model, "lm", options={"solver": "cg"}
    )
    np.testing.assert_allclose(solution.x[0], [1, 2], rtol=1e-5)


def test_a_row_that_fails_on_the_way_steps_back() -> None:
    def root(x: Tensor, identifiers: Identifiers) -> Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative")
        return torch.cat([x.sqrt(), 0.1 * x], dim=1)

    y = np.concatenate([np.full((3, 4), 0.1), np.zeros((3, 4))], axis=1)
    solution = invsolve.solve(Dataset(targets=y, x0=np.full((3, 4), 4.0)), root, "lm", options={"solver": "cg"})
    assert (solution.loss < 1e-3 * solution.loss_initial).all()
