"""SciPy in a loop over the examples, as many are fitted by hand."""

from __future__ import annotations

import numpy as np
import scipy.optimize
import torch
from benchmarks.speed.works import Array, Arrays, Prepared, Work

import invsolve


class SymmetricGaussian:
    """Residuals and their Jacobian by hand in NumPy, of one image."""

    def __init__(self, size: int) -> None:
        self.rows, self.columns = (a.ravel().astype(float) for a in np.mgrid[:size, :size])

    def residual(self, x: Array, target: Array) -> Array:
        """(size²,)"""
        amplitude, x0, y0, width, offset = x
        square = (self.columns - x0) ** 2 + (self.rows - y0) ** 2
        return offset + amplitude * np.exp(-0.5 / width**2 * square) - target

    def jacobian(self, x: Array, target: Array) -> Array:
        """(size², 5)"""
        amplitude, x0, y0, width, _ = x
        dx, dy = self.columns - x0, self.rows - y0
        square = dx**2 + dy**2
        spot = np.exp(-0.5 / width**2 * square)
        slope = amplitude / width**2 * spot
        return np.stack([spot, slope * dx, slope * dy, slope * square / width, np.ones_like(spot)], axis=1)


def prepare_lm(work: Work, arrays: Arrays) -> Prepared:
    """`least_squares(method="lm")`, which is MINPACK's."""
    model, x0 = SymmetricGaussian(arrays["targets"].shape[-1]), arrays["x0"]
    targets = arrays["targets"].reshape(len(x0), -1)

    def fit(i: int) -> Array:
        return scipy.optimize.least_squares(model.residual, x0[i], model.jacobian, method="lm", args=(targets[i],)).x

    witnesses = list(zip(arrays["witness_x"], arrays["witness_targets"].reshape(-1, targets.shape[1]), strict=True))
    residuals = [model.residual(x, target) for x, target in witnesses]
    gradients = [r @ model.jacobian(x, target) for r, (x, target) in zip(residuals, witnesses, strict=True)]
    arrays.check([0.5 * r @ r for r in residuals], gradients, work.agreement)
    fit(0)  # warms up
    return Prepared(lambda: np.array([fit(i) for i in range(len(x0))]), "defaults (1e-8), Jacobian by hand")


def prepare_bfgs(work: Work, arrays: Arrays) -> Prepared:
    """`minimize(method="BFGS")`, with loss and gradient of one example from our torch model by autograd."""
    torch.set_num_threads(1)
    model, x0 = invsolve.load_model(work.model, **work.model_options), arrays["x0"]
    targets = torch.from_numpy(arrays["targets"])
    identifiers = torch.from_numpy(arrays["identifiers"]) if "identifiers" in arrays else None

    def value_and_gradient(x: Array, i: int) -> tuple[float, Array]:
        z = torch.from_numpy(x)[None].requires_grad_()
        y = model(z, None if identifiers is None else identifiers[i : i + 1])
        loss = 0.5 * (y[0] - targets[i]).square().sum()
        return loss.item(), torch.autograd.grad(loss, z)[0][0].numpy()

    def fit(i: int) -> Array:
        with np.errstate(all="ignore"):  # it knows no bounds, and may leave where F is finite
            return scipy.optimize.minimize(value_and_gradient, x0[i], (i,), "BFGS", jac=True).x

    fit(0)  # warms up
    return Prepared(lambda: np.array([fit(i) for i in range(len(x0))]), "defaults (1e-5 on the gradient)")
