"""L-BFGS on one example with a million unknowns against SciPy's L-BFGS-B on the same torch function, on one core.

    python -m benchmarks.lbfgs [PROBLEM ...] [--seeds K] [--out TABLE.md]

Both start from zero, remember ten steps, and end at a gradient of 1e-5. Each runs in a process of its own. Seconds are
CPU time of the whole solve, ours with reading and scoring; memory is the most that was resident above what was so
before the solve, with imports and data, in vectors of 10⁶ float64 (8 MB).
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.optimize
import torch
from benchmarks.table import run_table
from torch import Tensor

import invsolve

N = 1000  # of an N × N image
Model = Callable[[Tensor, object], Tensor]


def smoothing(x: Tensor, identifiers: object) -> Tensor:
    """The image, and its slopes on a torus as what should be 0."""
    return torch.stack([x, *(3 * (x.roll(-1, axis) - x) for axis in (1, 2))], dim=1)


def deconvolution(x: Tensor, identifiers: object) -> Tensor:
    """The image saturated and blurred, twelve passes each way, and its slopes."""
    y = torch.tanh(x)
    for _ in range(12):
        for axis in (1, 2):
            y = 0.5 * y + 0.25 * (y.roll(1, axis) + y.roll(-1, axis))
    return torch.stack([y, *(0.03 * (x.roll(-1, axis) - x) for axis in (1, 2))], dim=1)


PROBLEMS: dict[str, Model] = {"smoothing": smoothing, "deconvolution": deconvolution}


def targets(name: str, seed: int) -> np.ndarray:
    """(1, 3, N, N): a noisy observation of a field of waves, and slopes of 0."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(N) / N
    x = np.sin(3 * angle)[:, None] * np.cos(5 * angle)
    found = np.zeros((1, 3, N, N))
    with torch.no_grad():
        found[0, 0] = PROBLEMS[name](torch.from_numpy(x)[None], None)[0, 0].numpy() + 0.1 * rng.normal(size=(N, N))
    return found


def ours(model: Model, y: np.ndarray) -> tuple[float, int]:
    """Loss and evaluations of `lbfgs`."""
    data = invsolve.Dataset(targets=y, x0=np.zeros((1, *y.shape[2:])))
    solution = invsolve.solve(data, model, "lbfgs", device="cpu")
    return float(solution.loss[0]), int(solution.evaluations[0])


def theirs(model: Model, y: np.ndarray) -> tuple[float, int]:
    """Loss and evaluations of `scipy.optimize.minimize(method="L-BFGS-B")`."""
    goal = torch.from_numpy(y)
    shape = (1, *y.shape[2:])

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(x).reshape(shape).requires_grad_()
        loss = 0.5 * (model(z, None) - goal).square().sum()
        return loss.item(), torch.autograd.grad(loss, z)[0].reshape(-1).numpy()

    options = {"maxcor": 10, "gtol": 1e-5, "ftol": 0, "maxiter": 1000}
    fit = scipy.optimize.minimize(
        value_and_gradient, np.zeros(y[0, 0].size), jac=True, method="L-BFGS-B", options=options
    )
    return float(fit.fun), int(fit.nfev)


def alone(
    who: Callable[[Model, np.ndarray], tuple[float, int]], name: str, seed: int
) -> tuple[float, int, float, float]:
    """Loss, evaluations, seconds and vectors of memory; to be called in a fresh process."""
    torch.set_num_threads(1)
    y = targets(name, seed)
    who(PROBLEMS[name], np.ascontiguousarray(y[..., :8, :8]))  # loads what is loaded at first use
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.process_time()
    loss, evaluations = who(PROBLEMS[name], y)
    seconds = time.process_time() - start
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return loss, evaluations, seconds, (most - before) / (8 * N**2)


def measure(name: str, seed: int) -> tuple[object, ...]:
    """One row of the table."""
    found = []
    for who in (theirs, ours):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            found.append(process.apply(alone, (who, name, seed)))
    (a, *scipy_work), (b, *our_work) = found
    cells = [
        f"{s:.{k}f}" for pair, k in zip(zip(scipy_work, our_work, strict=True), (0, 1, 0), strict=True) for s in pair
    ]
    return (name, f"{N**2:,}", seed, f"{a:.8g}", f"{b:.8g}", *cells)


COLUMNS = (
    "problem", "d", "seed", "SciPy loss", "invsolve loss", "SciPy evals", "invsolve evals", "SciPy, CPU s",
    "invsolve, CPU s", "SciPy memory", "invsolve memory",
)  # fmt: skip

if __name__ == "__main__":
    run_table(__doc__.splitlines()[0], COLUMNS, list(PROBLEMS), measure, first=0)
