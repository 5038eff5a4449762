"""The one evaluator: every loss that a user sees is computed here, from x, in float64, whatever the method said."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.coordinates import projected
from invsolve.problem import Problem


@dataclass(frozen=True)
class Score:
    """What x gives, float64 (n,)."""

    loss: Tensor  # of the data, +inf where F fails
    penalty: Tensor  # of the prior, 0 where none is used
    grad_norm: Tensor  # max-norm of the gradient of both in the user's units, NaN where it fails

    @property
    def objective(self) -> Tensor:
        """What a method minimizes."""
        return self.loss + self.penalty


def evaluate(problem: Problem, x: Tensor, batch_size: int, *, differentiate: bool = True) -> Score:
    """Score x (n, d), flat and in the user's units, for all rows of a float64 `problem`, `batch_size` rows at a time.

    Costs one evaluation of each row, and one gradient if `differentiate` (else grad_norm is NaN). The gradient is
    projected where bounds are active.
    """
    c = problem.coordinates
    losses, norms = [], []
    penalty = x.new_zeros(len(x)) if problem.penalty is None else problem.penalty.loss(x)
    for rows in torch.split(torch.arange(problem.n, device=problem.device), batch_size):
        loss, gradient = problem.evaluate_user(rows, x[rows], differentiate=differentiate)
        problem.note(rows, loss + penalty[rows])
        if problem.penalty is not None:
            gradient = gradient + problem.penalty.gradient(x[rows])
        norm = projected(gradient, x[rows], c.x_lower, c.x_upper).abs().amax(1)
        losses.append(loss)
        known = torch.isfinite(norm) & torch.isfinite(loss) & differentiate
        norms.append(norm.masked_fill(~known, torch.nan))
    return Score(torch.cat(losses), penalty, torch.cat(norms))
