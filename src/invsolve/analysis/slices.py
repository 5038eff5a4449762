"""Slices through the loss of single examples, to be looked at: which examples, which axes, how fine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invsolve.analysis.landscape import along, losses, orthogonal
from invsolve.problem import Problem
from invsolve.sampling import Sampler

LINES, PLANES = 6, 4  # examples that are shown
FINE, COARSE_LINE = 401, 61  # points along a line, at most and at least
GRID, COARSE = 121, 21  # points along each side of a plane, at most and at least
_MARGIN = 0.05  # of a range, beyond what must be seen in it
_TAIL = 0.005  # quantile of what is known of x, at which a range ends
_AROUND, _LEAST = (
    0.6,
    0.1,
)  # of what is marked, shown around it; and typical changes that are taken for its extent at least
_BEYOND = 0.5  # of the way from x0 to the solution, before the one and behind the other

WAY = ("way from x0 (0) to the best known solution (1)", "at right angles, in lengths of the way")


@dataclass(frozen=True)
class Slice:
    """The loss of one example along a line or over a plane; `axes` name what the coordinates are."""

    example: str
    axes: tuple[str, ...]  # one or two, with units
    coordinates: tuple[np.ndarray, ...]  # (m,) each, in the user's units; or parts of the way from x0 to the solution
    loss: np.ndarray  # (m,) or (m, m), the first axis first; NaN outside of the bounds
    start: np.ndarray  # (len(axes),) where x0 is
    best: np.ndarray  # (len(axes),) the best known solution
    ends: np.ndarray  # (s, len(axes)) where starts ended, where they lie in the slice


@dataclass(frozen=True)
class Seen:
    """Examples to be shown: everything in z; S ends of starts that may be shown with them."""

    problem: Problem
    rows: Tensor  # (b,)
    names: list[str]
    start: Tensor  # (b, d)
    best: Tensor  # (b, d)
    ends: Tensor  # (b, S, d)
    seed: int
    batch_size: int
    near: bool = False  # show no more than what is marked, and around it, where neither bounds nor a prior tell a range

    def first(self, count: int) -> Seen:
        """Fewer of them."""
        part = slice(count)
        return Seen(self.problem, self.rows[part], self.names[part], self.start[part], self.best[part],
            self.ends[part], self.seed, self.batch_size, self.near)  # fmt: skip


def lines(seen: Seen, points: int = FINE) -> list[Slice]:
    """The loss along a line for each example: over the range of a single unknown, else from x0 to the best known."""
    if seen.problem.d == 1:
        return _over_parameters(seen, points)
    t = torch.linspace(-_BEYOND, 1 + _BEYOND, points, dtype=torch.float64, device=seen.start.device)
    loss = losses(seen.problem, seen.rows, along(seen.start, seen.best, t), seen.batch_size)
    return [
        Slice(name, WAY[:1], (t.cpu().numpy(),), loss[i].cpu().numpy(), np.zeros(1), np.ones(1), np.empty((0, 1)))
        for i, name in enumerate(seen.names)
    ]


def planes(seen: Seen, points: int = GRID) -> list[Slice]:
    """The loss over a plane for each example: of the two unknowns, or of more the one through x0, the best known
    solution and a random direction at right angles to the way between them.
    """
    if seen.problem.d == 2:
        return _over_parameters(seen, points)
    side = orthogonal(seen.best - seen.start, torch.Generator().manual_seed(seen.seed))
    s = torch.linspace(-_BEYOND, 1 + _BEYOND, points, dtype=torch.float64, device=seen.start.device)
    t = s - 0.5  # as far to either side
    way = along(seen.start, seen.best, s)  # (b, m, d)
    grid = way[:, :, None] + t[None, None, :, None] * side[:, None, None]
    loss = losses(seen.problem, seen.rows, grid.flatten(1, 2), seen.batch_size).reshape(-1, points, points)
    where = np.array([0.0, 0.0]), np.array([1.0, 0.0])
    axes = s.cpu().numpy(), t.cpu().numpy()
    return [Slice(n, WAY, axes, loss[i].cpu().numpy(), *where, np.empty((0, 2))) for i, n in enumerate(seen.names)]


def plane_through(seen: Seen, side: Tensor, marks: Tensor, points: int = GRID) -> Slice:
    """The loss of the first example over the plane that its way from start to best and `side` (1, d) span, at right
    angles and as long, around the marks (s, 2) in it, which the slice has as ends.
    """
    start, way = seen.start[:1], (seen.best - seen.start)[:1]
    spans = []
    for corners in marks.unbind(1):
        low, high = float(corners.min()), float(corners.max())
        margin = _BEYOND * max(high - low, 1.0)
        spans.append(torch.linspace(low - margin, high + margin, points, dtype=torch.float64, device=start.device))
    s, t = spans
    grid = start + s[:, None, None] * way + t[None, :, None] * side
    loss = losses(seen.problem, seen.rows[:1], grid.flatten(0, 1)[None], seen.batch_size).reshape(points, points)
    axes = s.cpu().numpy(), t.cpu().numpy()
    where = np.array([0.0, 0.0]), np.array([1.0, 0.0])
    return Slice(seen.names[0], WAY, axes, loss.cpu().numpy(), *where, marks.cpu().numpy())


def _over_parameters(seen: Seen, points: int) -> list[Slice]:
    """The loss of problems of one or two unknowns over all of their range."""
    p, b = seen.problem, len(seen.rows)
    low, high = _range(seen)
    step = torch.linspace(0, 1, points, dtype=torch.float64, device=low.device)
    sides = low[:, :, None] + step * (high - low)[:, :, None]  # (b, d, m)
    grid = torch.stack([torch.stack(torch.meshgrid(*side, indexing="ij"), dim=-1).flatten(0, -2) for side in sides])
    loss = losses(p, seen.rows, grid, seen.batch_size).reshape(b, *(points,) * p.d)

    def user(z: Tensor) -> np.ndarray:
        x: np.ndarray = p.coordinates.to_user(z).cpu().numpy()
        return x

    return [
        Slice(
            example=name,
            axes=axis_names(p),
            coordinates=tuple(user(sides[i].T).T),
            loss=loss[i].cpu().numpy(),
            start=user(seen.start[i]),
            best=user(seen.best[i]),
            ends=user(seen.ends[i]),
        )
        for i, name in enumerate(seen.names)
    ]


def _range(seen: Seen) -> tuple[Tensor, Tensor]:
    """Lower and upper corner (b, d): the bounds, else where x may be and everything that is marked is seen."""
    sampler, c = Sampler(seen.problem, seen.seed), seen.problem.coordinates
    known = [sampler.place(torch.full_like(seen.start, u), seen.start) for u in (_TAIL, 1 - _TAIL)]
    points = torch.stack([*known, seen.start, seen.best, *seen.ends.unbind(1)])
    low, high = points.amin(0), points.amax(0)
    if seen.near:
        marked = points[len(known) :]
        around = _AROUND * (marked.amax(0) - marked.amin(0)).amax(1, keepdim=True).clamp(min=_LEAST)
        loose = torch.tensor([p.prior is None for p in seen.problem.parameters] or [True], device=low.device)
        low, high = torch.where(loose, marked.amin(0) - around, low), torch.where(loose, marked.amax(0) + around, high)
    bounded = torch.isfinite(c.lower) & torch.isfinite(c.upper)
    low, high = torch.where(bounded, c.lower, low), torch.where(bounded, c.upper, high)
    margin = _MARGIN * (high - low)
    return (low - margin).clamp(c.lower, c.upper), (high + margin).clamp(c.lower, c.upper)


def axis_names(problem: Problem) -> tuple[str, ...]:
    """What the unknowns are called, with their units."""
    named = tuple(f"{p.name} ({p.unit})" if p.unit else p.name for p in problem.parameters)
    return named or (tuple(f"x[{j}]" for j in range(problem.d)) if problem.d > 1 else ("x",))
