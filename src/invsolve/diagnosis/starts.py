"""Where a local method ends from several points of each example: how many minima it meets, and what x0 is worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.analysis.landscape import is_flat
from invsolve.control import Control
from invsolve.data.solution import FoundBy, Status
from invsolve.methods import search
from invsolve.methods.base import Budget, RowMethod
from invsolve.methods.bfgs import Bfgs
from invsolve.methods.lbfgs import Lbfgs
from invsolve.methods.search import Ends
from invsolve.problem import Problem
from invsolve.sampling import Sampler

STARTS = 8  # points of an example: x0, and seven by the sampler
EVALUATIONS = 300  # of one start at most; what has not ended by then is no minimum
_MATRICES = 500  # unknowns, up to which BFGS with its matrices is the better local method


@dataclass(frozen=True)
class Starts:
    """Of b examples, S starts each; column 0 is x0."""

    method: str
    rows: Tensor  # (b,) int64, which rows of the problem
    points: Tensor  # (b, S, d) z started from
    begun: Tensor  # (b, S) loss there, +inf where F fails
    flat: Tensor  # (b, S) bool: the gradient vanishes there
    z: Tensor  # (b, S, d) where they ended
    loss: Tensor  # (b, S) there, +inf where F failed at the start or the run ended before
    finished: Tensor  # (b, S) bool: within evaluations and time
    minima: Tensor  # (b,) int64 distinct ends of finished starts that began on a slope

    @property
    def complete(self) -> Tensor:
        """(b,) bool: examples of which two starts at least, x0 among them, came anywhere.

        Those that time cut off had as many rounds each, so that it is fair to compare them.
        """
        known = torch.isfinite(self.loss)
        return known[:, 0] & (known.sum(1) >= 2)

    @property
    def counted(self) -> Tensor:
        """(b,) bool: those of which two starts at least ended of themselves, so that minima can be counted."""
        return self.complete & ((self.finished | self.flat).sum(1) >= 2)

    @property
    def best(self) -> Tensor:
        """z (b, d) of the best end; of several as good, such as those a symmetry makes, the nearest to x0."""
        away = (self.z - self.points[:, :1]).norm(dim=2).masked_fill(~self.is_best, torch.inf)
        return self.z[torch.arange(len(away), device=away.device), away.argmin(1)]

    @property
    def is_best(self) -> Tensor:
        """(b, S) bool: the best end is not better than this one, by the contract's rule (section 5)."""
        best = self.loss.amin(1, keepdim=True)
        floor = 1e-9 * torch.where(torch.isfinite(self.begun[:, :1]), self.begun[:, :1], 0.0)
        return torch.isfinite(self.loss) & ~(best < 0.99 * self.loss - floor)


def local_method(d: int) -> RowMethod:
    """What examples of d unknowns are started with."""
    return Bfgs() if d <= _MATRICES else Lbfgs()


def run_starts(problem: Problem, rows: Tensor, count: int, batch_size: int, seed: int, control: Control) -> Starts:
    """Solve the examples in the rows (b,) of a problem from `count` points each, until `control` stops it.

    Counted by the problem.
    """
    some = problem.select(rows)
    z0 = some.coordinates.to_solver(some.x0)
    sampler = Sampler(some, seed)
    unit = sampler.units(z0)
    points = sampler.spread(some.examples, count, z0)
    points[:, 0] = z0
    each, z = torch.arange(some.n, device=z0.device).repeat_interleave(count), points.reshape(-1, some.d)
    begun, flat = _begin(some, each, z, unit, batch_size)
    part = some.select(each)
    method = local_method(some.d)
    solved = method.solve(part, z, Budget(EVALUATIONS, batch_size), control)
    for counted, more in ((some, part), (problem, some)):
        where = each if more is part else rows
        counted.count(where, evaluations=more.evaluations, gradients=more.gradients)
    finished = (solved.status == int(Status.CONVERGED)) | (solved.status == int(Status.STALLED))
    origins = torch.full(points.shape[:2], int(FoundBy.MULTISTART), dtype=torch.int8, device=z0.device)
    loss, ends = solved.best, Ends(some, search.Starts(points, origins, count, count), z0, unit)
    # A start on a plateau stays where it is, which is no minimum.
    solved.best = torch.where(finished & ~flat, loss, torch.inf)
    ks = torch.arange(count, device=z0.device).repeat(some.n)
    ends.put(each, ks, solved, part.evaluations)
    minima = ends.results().minima
    assert minima is not None
    shape = (some.n, count)
    return Starts(
        method=method.name,
        rows=rows,
        points=points,
        begun=begun.reshape(shape),
        flat=flat.reshape(shape),
        z=solved.z.reshape(*shape, some.d),
        loss=loss.reshape(shape),
        finished=finished.reshape(shape),
        minima=minima,
    )


def _begin(problem: Problem, rows: Tensor, z: Tensor, unit: Tensor | float, batch_size: int) -> tuple[Tensor, Tensor]:
    """Loss (p,) and whether the gradient vanishes (p,) of the rows (p,) at z (p, d)."""
    found = [
        problem.evaluate(rows[part], z[part])
        for part in torch.split(torch.arange(len(rows), device=z.device), batch_size)
    ]
    loss, gradient = (torch.cat(some) for some in zip(*found, strict=True))
    perfect = 1e-9 * problem.loss_of_nothing()
    each = unit[rows] if isinstance(unit, Tensor) else unit
    return loss, is_flat(loss, gradient, each, perfect[rows])
