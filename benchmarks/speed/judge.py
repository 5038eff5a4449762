"""The data of a work, and the one judge of what the contestants bring: losses in float64 by our torch model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.speed.works import SEED, Array, Work

import invsolve

WITNESSES = 8


def make_data(work: Work, n: int | None = None) -> invsolve.Dataset:
    """The work's dataset, with x0: everyone starts from the same guess, and nobody is timed for making it."""
    n = n or work.n
    model = invsolve.load_model(work.model, **work.model_options)
    data = invsolve.generate(work.model, n, seed=SEED, model_options=dict(work.model_options))
    if work.ranges:
        x, generator = np.asarray(data.x_true).copy(), np.random.default_rng(SEED)
        for j, (low, high) in work.ranges.items():
            x[:, j] = generator.uniform(low, high, n)
        y = np.concatenate([model(part, None).numpy() for part in torch.split(torch.from_numpy(x), 1024)])
        data.x_true, data.targets = x, y + model.noise * generator.standard_normal(y.shape)
    known = None if data.identifiers is None else torch.as_tensor(np.asarray(data.identifiers))
    data.x0 = model.initial_guess(torch.as_tensor(np.asarray(data.targets)), known).numpy()
    return data


def write_arrays(work: Work, path: Path) -> None:
    """The arrays that every contestant reads, see `Arrays`."""
    data = make_data(work)
    arrays = {"targets": np.asarray(data.targets), "x0": np.asarray(data.x0)}
    if data.identifiers is not None:
        arrays["identifiers"] = np.asarray(data.identifiers)
    arrays |= {f"witness_{k}": v[:WITNESSES] for k, v in arrays.items() if k != "x0"}
    true, start = np.asarray(data.x_true)[:WITNESSES], arrays["x0"][:WITNESSES]
    arrays["witness_x"] = true + 0.01 * (start - true)  # at x_true itself a loss may vanish
    first = {k: v[:WITNESSES] for k, v in arrays.items()}
    arrays["witness_loss"], arrays["witness_gradient"] = loss_and_gradient(work, first, arrays["witness_x"])
    np.savez(path, **arrays)


def loss_and_gradient(work: Work, arrays: Any, x: Array) -> tuple[Array, Array]:
    """L_i (n,) and ∂L_i/∂x_i (n, d) of x (n, d) in float64, whatever the solver itself said. NaN where F fails."""
    model = invsolve.load_model(work.model, **work.model_options)
    losses, gradients = [], []
    for start in range(0, len(x), 1024):
        part = slice(start, start + 1024)
        known = torch.from_numpy(arrays["identifiers"][part]) if "identifiers" in arrays else None
        z = torch.tensor(x[part], dtype=torch.float64, requires_grad=True)
        loss = 0.5 * (model(z, known) - torch.from_numpy(arrays["targets"][part])).square().flatten(1).sum(1)
        gradients.append(torch.autograd.grad(loss.sum(), z)[0].numpy())
        losses.append(loss.detach().numpy())
    return np.concatenate(losses), np.concatenate(gradients)
