"""The one evaluator: every loss that a user sees is computed here, from x, in float64, whatever the method said."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.coordinates import projected
from invsolve.problem import Problem


@dataclass(frozen=True)
class Score:
    """Losses (n,) float64, +inf where F fails, and max-norms (n,) of ∂L/∂x in the user's units, NaN where it fails."""

    loss: Tensor
    grad_norm: Tensor


def evaluate(problem: Problem, x: Tensor, batch_size: int, *, differentiate: bool = True) -> Score:
    """Score x (n, d), flat and in the user's units, for all rows of a float64 `problem`, `batch_size` rows at a time.

    Costs one evaluation of each row, and one gradient if `differentiate` (else grad_norm is NaN). The gradient is
    projected where bounds are active.
    """
    c = problem.coordinates
    losses, norms = [], []
    for rows in torch.split(torch.arange(problem.n, device=problem.device), batch_size):
        loss, gradient = problem.evaluate_user(rows, x[rows], differentiate=differentiate)
        norm = projected(gradient, x[rows], c.x_lower, c.x_upper).abs().amax(1)
        losses.append(loss)
        known = torch.isfinite(norm) & torch.isfinite(loss) & differentiate
        norms.append(norm.masked_fill(~known, torch.nan))
    return Score(torch.cat(losses), torch.cat(norms))
