"""The Jacobian of the weighted residuals, row by row in batched calls."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.errors import ModelError
from invsolve.problem import Problem


def jacobian_cost(d: int, m: int) -> int:
    """Evaluations of F per row that `weighted_jacobian` takes at most, for d unknowns and m targets.

    One is for the model that turns out to support no forward mode.
    """
    return d + 1 if d <= m else 1


def weighted_jacobian(problem: Problem, rows: Tensor, x: Tensor) -> Tensor:
    """∂r/∂x (b, m, d) of r = (F − y*) / σ at the user's x (b, d), zero where nothing was observed; NaN where F fails.

    Column by column in forward mode where there are fewer unknowns than targets and the model supports it, else row by
    row in reverse mode; both over all examples at once, which counts d evaluations and gradients, or 1 and m.
    """
    try:
        if _by_columns(problem):
            try:
                return _columns(problem, rows, x)
            except (Exception, SystemExit):  # an operation without a forward derivative, or rows that raise
                found = _rows(problem, rows, x)
                problem.conduct.forward_mode = False
                return found
        return _rows(problem, rows, x)
    except ModelError:
        raise
    except (Exception, SystemExit):
        if len(rows) == 1:
            return x.new_full((1, problem.targets.shape[1], problem.d), torch.nan)
        half = len(rows) // 2
        parts = (weighted_jacobian(problem, r, v) for r, v in ((rows[:half], x[:half]), (rows[half:], x[half:])))
        return torch.cat(list(parts))


def _by_columns(problem: Problem) -> bool:
    return problem.d <= problem.targets.shape[1] and problem.conduct.forward_mode


def _columns(problem: Problem, rows: Tensor, x: Tensor) -> Tensor:
    """Every example d times in the batch, each with a direction of its own: rows are independent, so it is one call."""
    b, d = x.shape
    repeated = rows.repeat_interleave(d)
    problem.count(rows, evaluations=d, gradients=d)  # also if it fails: F is computed then
    directions = torch.eye(d, dtype=x.dtype, device=x.device).repeat(b, 1)
    derivative: Tensor = torch.func.jvp(
        lambda v: problem.residual(repeated, v), (x.repeat_interleave(d, dim=0),), (directions,)
    )[1]
    return derivative.reshape(b, d, -1).mT


def _rows(problem: Problem, rows: Tensor, x: Tensor) -> Tensor:
    """By plain autograd rather than `torch.func.vjp`, which takes no `autograd.Function` of the older form."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        residual = problem.residual(rows, x)
    m = residual.shape[1]
    problem.count(rows, evaluations=1, gradients=m)
    gradients = []
    for k in range(m):
        weight = torch.zeros_like(residual)
        weight[:, k] = 1
        gradients.append(torch.autograd.grad(residual, x, weight, retain_graph=k + 1 < m)[0])
    return torch.stack(gradients, dim=1)
