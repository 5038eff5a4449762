"""The examples that a diagnosis looks at, drawn by seed, and what is known of them before anything is solved."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invsolve.analysis.evaluate import evaluate
from invsolve.data.dataset import Dataset
from invsolve.errors import ModelError
from invsolve.memory import available_memory
from invsolve.models.base import ForwardModel
from invsolve.problem import Problem
from invsolve.shapes import solution_shape
from invsolve.tuning import USUAL, row_bytes

_PART_OF_MEMORY = 0.25  # of what is free, that one batch may take


@dataclass(frozen=True)
class Sample:
    """N of a dataset's examples whose F is finite at x0."""

    numbers: np.ndarray  # (N,) which examples
    nonfinite: int  # examples drawn beside them, whose F or gradient fails at x0, or without any target
    problem: Problem
    z0: Tensor  # (N, d)
    loss: Tensor  # (N,) at x0
    gradient: Tensor  # (N, d) ∂L/∂z at x0
    z_true: Tensor | None  # (N, d) where the data hold solutions; NaN where they are outside of the bounds
    loss_true: Tensor | None  # (N,) there
    seconds: float  # that an evaluation of a row with its gradient takes, among others
    batch_size: int  # rows to evaluate together
    evaluations: int  # that were made of rows that are left out
    gradients: int


def draw_sample(dataset: Dataset, model: ForwardModel, count: int, seed: int, device: torch.device) -> Sample:
    """Draw `count` examples, or all where there are fewer, and evaluate F and its gradient at their x0.

    Raises:
        InvsolveError: model and data do not fit, or F fails for all of them.
    """
    shape = solution_shape(model, dataset)
    n = len(dataset)
    numbers = np.sort(np.random.default_rng(seed).permutation(n)[:count]) if count < n else np.arange(n)
    problem = Problem(model, dataset.picked(numbers, shape), shape, device, torch.float64)
    batch_size = _fitting(problem)
    evaluate(problem, problem.x0, batch_size, differentiate=False)  # which refuses models that mix rows
    z0 = problem.coordinates.to_solver(problem.x0)
    began = time.monotonic()
    parts = torch.split(torch.arange(problem.n, device=device), batch_size)
    loss, gradient = (torch.cat(a) for a in zip(*(problem.evaluate(p, z0[p]) for p in parts), strict=True))
    seconds = (time.monotonic() - began) / problem.n
    sound = torch.isfinite(loss).nonzero().squeeze(1)
    if not len(sound):
        raise ModelError(
            f"for all {problem.n} examples drawn, model '{model.name}' gives NaN or Inf, in y or its gradient, or "
            f"raises, or no target is observed (first example {numbers[0]}); 'invsolve check' tells more"
        )
    chosen = problem.select(sound)
    chosen.count(torch.arange(len(sound), device=device), evaluations=2, gradients=1)
    lost = problem.n - len(sound)
    z_true, loss_true = _truth(dataset, chosen, numbers[sound.cpu().numpy()], batch_size)
    return Sample(
        numbers=numbers[sound.cpu().numpy()],
        nonfinite=lost,
        problem=chosen,
        z0=z0[sound],
        loss=loss[sound],
        gradient=gradient[sound],
        z_true=z_true,
        loss_true=loss_true,
        seconds=seconds,
        batch_size=batch_size,
        evaluations=2 * lost,
        gradients=lost,
    )


def _truth(
    dataset: Dataset, problem: Problem, numbers: np.ndarray, batch_size: int
) -> tuple[Tensor | None, Tensor | None]:
    """z (N, d) and loss (N,) of the solutions that the data hold, for scoring."""
    if dataset.x_true is None:
        return None, None
    x = torch.from_numpy(np.asarray(dataset.x_true[numbers], dtype=np.float64)).reshape(problem.n, problem.d)
    c, x = problem.coordinates, x.to(problem.device)
    inside = (torch.isfinite(x) & (x >= c.x_lower) & (x <= c.x_upper)).all(1)
    loss = evaluate(problem, torch.where(inside[:, None], x, problem.x0), batch_size, differentiate=False).loss
    z = torch.where(inside[:, None], c.to_solver(torch.where(inside[:, None], x, problem.x0)), torch.nan)
    return z, loss.masked_fill(~inside, torch.nan)


def _fitting(problem: Problem) -> int:
    """Rows that are evaluated together at most, by memory."""
    each = max(row_bytes(problem), 1)
    return max(1, min(USUAL, int(_PART_OF_MEMORY * available_memory(problem.device) / each)))
