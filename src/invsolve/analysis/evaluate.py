"""The one evaluator: every loss that a user sees is computed here, from x, in float64, whatever the method said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.control import Control
from invsolve.coordinates import projected
from invsolve.problem import Problem


@dataclass(frozen=True)
class Score:
    """What x gives, float64 (n,)."""

    loss: Tensor  # of the data, +inf where F fails, NaN where it was not scored
    penalty: Tensor  # of the prior, 0 where none is used
    grad_norm: Tensor  # max-norm of the gradient of both in the user's units, NaN where it fails

    @property
    def objective(self) -> Tensor:
        """What a method minimizes."""
        return self.loss + self.penalty


def evaluate(
    problem: Problem,
    x: Tensor,
    batch_size: int,
    *,
    differentiate: bool = True,
    control: Control | None = None,
    which: Tensor | None = None,
) -> Score:
    """Score x (n, d), flat and in the user's units, for all rows of a float64 `problem`, `batch_size` rows at a time.

    Costs one evaluation of each row, and one gradient if `differentiate` (else grad_norm is NaN). The gradient is
    projected where bounds are active. Only the rows of `which` (n,) are scored where it is given, and those that
    `control` leaves time for; the loss of others is NaN.
    """
    c = problem.coordinates
    losses, norms = (torch.full_like(x[:, 0], torch.nan) for _ in range(2))
    penalty = x.new_zeros(len(x)) if problem.penalty is None else problem.penalty.loss(x)
    wanted = torch.arange(problem.n, device=problem.device) if which is None else which.nonzero().squeeze(1)
    for rows in in_time(wanted, batch_size, control):
        loss, gradient = problem.evaluate_user(rows, x[rows], differentiate=differentiate)
        problem.note(rows, loss + penalty[rows])
        if problem.penalty is not None:
            gradient = gradient + problem.penalty.gradient(x[rows])
        norm = projected(gradient, x[rows], c.x_lower, c.x_upper).abs().amax(1)
        losses[rows] = loss
        known = torch.isfinite(norm) & torch.isfinite(loss) & differentiate
        norms[rows] = norm.masked_fill(~known, torch.nan)
    return Score(losses, penalty, norms)


def in_time(rows: Tensor, batch_size: int, control: Control | None) -> Iterator[Tensor]:
    """The rows (n,) by parts of `batch_size`, as long as `control` leaves time to score them.

    Once the run is stopped, parts are so small that one takes about a second.
    """
    start, size = 0, batch_size
    each: float | None = None  # seconds that a row of the last part took
    clock = time.monotonic if control is None else control.clock
    while start < len(rows):
        if control is not None and control.stopped:
            if not control.may_score:
                return
            size = 1 if each is None else int(min(_PART / max(each, 1e-9), _FASTER * size))
            size = max(1, min(size, batch_size))
        began, part = clock(), rows[start : start + size]
        yield part
        each, start = (clock() - began) / len(part), start + size


_PART = 1.0  # seconds that one may take
_FASTER = 8  # times as many rows as in the last part, at most
