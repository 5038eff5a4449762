"""Batched BFGS against a loop of SciPy's BFGS over the same torch model, on one core.

    python -m benchmarks.bfgs [MODEL ...] [--seeds K] [--out TABLE.md]

Both start from the same x0 with the same tolerance (1e-5 on the gradient). SciPy gets the loss and gradient of one
example at a time from autograd, as a user's loop would. Times are whole solves; ours includes reading, scoring and all.
A NaN of SciPy's counts as +∞ in `solved`, and is left out of both means, which are over the same examples.
"""

from __future__ import annotations

import time

import numpy as np
import scipy.optimize
import torch
from benchmarks.table import run_table

import invsolve
from invsolve.analysis.summary import is_solved
from invsolve.run import Run
from invsolve.settings import Settings

SIZES = {"wave-packet": 1024, "billiards": 1024, "kuramoto-sivashinsky": 256}
GOALS = {"wave-packet": 8, "billiards": 50, "kuramoto-sivashinsky": 10}


def scipy_loop(data: invsolve.Dataset) -> tuple[np.ndarray, float, float]:
    """Losses (n,), seconds, and evaluations per example of `scipy.optimize.minimize(method="BFGS")` in a loop."""
    model = invsolve.load_model(data.model, **data.model_options)
    targets = torch.from_numpy(np.asarray(data.targets))
    identifiers = None if data.identifiers is None else torch.from_numpy(np.asarray(data.identifiers))
    start = time.perf_counter()
    x0 = model.initial_guess(targets, identifiers).numpy()

    def value_and_gradient(x: np.ndarray, i: int) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(x)[None].requires_grad_()
        y = model(z, None if identifiers is None else identifiers[i : i + 1])
        loss = 0.5 * (y[0] - targets[i]).square().sum()
        return loss.item(), torch.autograd.grad(loss, z)[0][0].numpy()

    with np.errstate(all="ignore"):
        fits = [scipy.optimize.minimize(value_and_gradient, x0[i], (i,), "BFGS", jac=True) for i in range(len(x0))]
    seconds = time.perf_counter() - start
    return np.array([f.fun for f in fits]), seconds, float(np.mean([f.nfev for f in fits]))


def measure(name: str, seed: int) -> tuple[object, ...]:
    """One row of the table."""
    data = invsolve.generate(name, SIZES[name], seed=seed)
    run = Run(data, None, {}, Settings("bfgs"))
    run.solve(None, False, False, None)  # warms up
    start = time.perf_counter()
    ours = run.solve(None, False, False, None)
    seconds = time.perf_counter() - start
    theirs, scipy_seconds, scipy_evaluations = scipy_loop(data)
    loss_true = run.loss_true()
    finite = np.isfinite(theirs)
    their_solved = np.mean(theirs <= 1.05 * loss_true + 1e-3 * ours.loss_initial)
    return (
        name, len(data), seed, f"{scipy_seconds:.2f}", f"{seconds:.3f}", f"**{scipy_seconds / seconds:.0f} ×**",
        f"≥ {GOALS[name]} ×", f"{theirs[finite].mean():.4g}", f"{ours.loss[finite].mean():.4g}", int((~finite).sum()),
        f"{their_solved:.3f}", f"{is_solved(ours, loss_true).mean():.3f}",
        f"{scipy_evaluations:.1f}", f"{ours.evaluations.mean():.1f}",
    )  # fmt: skip


COLUMNS = (
    "model", "n", "seed", "SciPy, s", "invsolve, s", "ratio", "goal", "SciPy mean loss", "invsolve mean loss",
    "SciPy NaN", "SciPy solved", "invsolve solved", "SciPy evals", "invsolve evals",
)  # fmt: skip

if __name__ == "__main__":
    run_table(__doc__.splitlines()[0], COLUMNS, list(SIZES), measure, first=0)
