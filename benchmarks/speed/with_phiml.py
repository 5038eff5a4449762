"""PhiML's `math.minimize`, which runs SciPy's BFGS for each example in a thread and evaluates all of them batched."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.speed.works import Array, Arrays, Prepared, Work
from phiml import math
from phiml.math import Solve, Tensor, batch, channel, spatial


def prepare(work: Work, arrays: Arrays) -> Prepared:
    """The wave packets, written in PhiML as its user would, with torch as the backend that gives gradients."""
    torch.set_num_threads(1)
    math.use("torch")
    math.set_global_precision(64)
    o = work.model_options
    t = math.linspace(0, o["duration"], spatial(samples=o["samples"]))

    def loss_of(targets: Array) -> object:
        measured = math.tensor(targets, batch("examples"), spatial("samples"))

        def loss(t0: Tensor) -> Tensor:
            since = t - t0.unknowns[0]
            y = math.sin(since) * math.exp(-(since**2) / (2 * o["width"] ** 2))
            return math.l2_loss(y - measured)

        return loss

    def tensor(x: Array) -> Tensor:
        return math.tensor(x, batch("examples"), channel("unknowns"))

    gradient = math.gradient(loss_of(arrays["witness_targets"]), wrt="t0", get_output=True)
    loss, slope = gradient(tensor(arrays["witness_x"]))
    arrays.check(loss.numpy("examples"), slope.numpy("examples,unknowns"), work.agreement)

    def solve(n: int = len(arrays["x0"])) -> Array:
        # A line search that ends in rounding counts as diverged there, and would raise.
        ends = [math.NotConverged, math.Diverged]
        how = Solve("BFGS", abs_tol=1e-5, x0=tensor(arrays["x0"][:n]), suppress=ends)
        found = math.minimize(loss_of(arrays["targets"][:n]), how)
        return np.asarray(found.numpy("examples,unknowns"))

    solve(8)  # warms up
    return Prepared(solve, "abs_tol = 1e-5, torch as its backend")
