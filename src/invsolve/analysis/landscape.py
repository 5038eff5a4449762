"""The loss of single examples along lines and over planes through the unknowns, in the solvers' coordinates z."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.problem import Problem

FLAT = 1e-9  # of the loss: what a typical change must bring at least, by the gradient, not to be lost on a plateau
_RISE = 0.01  # of the loss at the start: what counts as a barrier


def is_flat(loss: Tensor, gradient: Tensor, unit: Tensor | float, perfect: Tensor) -> Tensor:
    """Whether (b,) the gradient (b, d) vanishes although the loss (b,) is above `perfect` (b,): a plateau.

    `unit` is a typical change of each unknown, see `Sampler.units`.
    """
    steepest = (gradient * unit).abs().amax(1)
    return torch.isfinite(loss) & (loss > perfect) & (steepest <= FLAT * loss)


def along(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Points (b, m, d) on the lines through start (t = 0) and end (t = 1), (b, d) each."""
    return start[:, None] + t[None, :, None] * (end - start)[:, None]


def orthogonal(direction: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction (b, d) at right angles to another (b, d), d ≥ 2, and as long."""
    drawn = torch.randn(direction.shape, dtype=torch.float64, generator=generator).to(direction)
    length = direction.norm(dim=1, keepdim=True).clamp(min=1e-300)
    unit = direction / length
    for _ in range(2):  # once more, for what rounding left
        drawn = drawn - (drawn * unit).sum(1, keepdim=True) * unit
    found: Tensor = drawn / drawn.norm(dim=1, keepdim=True).clamp(min=1e-300) * length
    return found


def losses(problem: Problem, rows: Tensor, points: Tensor, batch_size: int) -> Tensor:
    """Loss (b, m) of the rows (b,) at points z (b, m, d); NaN outside of the bounds, +inf where F fails. Counted."""
    c, m = problem.coordinates, points.shape[1]
    z, each = points.reshape(-1, problem.d), rows.repeat_interleave(m)
    inside = ((z >= c.lower) & (z <= c.upper)).all(1)
    found = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
    for part in torch.split(inside.nonzero().squeeze(1), batch_size):
        found[part] = problem.evaluate_user(each[part], c.to_user(z[part]), differentiate=False)[0].double()
    return found.reshape(len(rows), m)


def has_barrier(loss: Tensor) -> Tensor:
    """Whether (b,) on a way with losses (b, m) they rise, from the lowest so far, by 1 % of the first or more.

    A way that leads out of the bounds or through points where F fails has one.
    """
    known = torch.where(torch.isnan(loss), torch.inf, loss)
    return ~((known - known.cummin(1).values).amax(1) < _RISE * known[:, 0])
