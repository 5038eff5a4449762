"""What is computed anew of examples that are looked at one by one: F at their solutions, the loss around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invsolve.analysis.landscape import orthogonal
from invsolve.analysis.slices import Seen, Slice, lines, plane_through, planes
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Solution
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.problem import Problem
from invsolve.shapes import solution_shape

_LARGE = 512  # numbers of a target, from which F is taken to be slow
_FINE, _COARSE = 81, 21  # points along each side of a plane
_TOGETHER = 256  # rows of F in one call
_NEAR = 0.02  # of the way from start to end: how far off it a point must lie to span a plane, or may lie to be in it


@dataclass(frozen=True)
class Fit:
    """One example with what F gives at the solutions of several methods, in float64."""

    number: int
    target: np.ndarray  # (*y_shape), NaN where nothing was observed
    identifiers: Identifiers  # of this example alone, without a leading axis
    x: dict[str, np.ndarray]  # (*x_shape) of each method
    y: dict[str, np.ndarray]  # (*y_shape) of each method, NaN where F fails


def fits(dataset: Dataset, model: ForwardModel, solutions: Mapping[str, Solution], number: int) -> Fit:
    """Evaluate F once for each method, on the CPU.

    Raises:
        InvsolveError: model and data do not fit.
    """
    problem = _problem(dataset, model, [number])
    row = torch.zeros(1, dtype=torch.int64)
    y = {}
    for name, solution in solutions.items():
        x = torch.from_numpy(np.array(solution.x[number], dtype=np.float64)).reshape(1, -1)
        try:
            found = problem.predict(problem.batch(row), x)[0].detach().numpy()
        except Exception:  # whatever the user's model raises at this point
            found = np.full(problem.y_shape, np.nan)
        y[name] = found.astype(np.float64)
    target = problem.targets[0].reshape(problem.y_shape).numpy()
    x_of = {name: np.asarray(solution.x[number], dtype=np.float64) for name, solution in solutions.items()}
    return Fit(number, target, _only(problem.identifiers), x_of, y)


def _only(identifiers: Identifiers) -> Identifiers:
    if isinstance(identifiers, dict):
        return {k: v[0] for k, v in identifiers.items()}
    return None if identifiers is None else identifiers[0]


@dataclass(frozen=True)
class Around:
    """The loss around the solutions of one example, and where in it methods began and ended."""

    slice: Slice
    starts: dict[str, np.ndarray]  # (k,) in the slice's coordinates, of the methods whose starts are in it
    ends: dict[str, np.ndarray]  # (k,) likewise
    along: tuple[str, ...]  # of a plane through more than two unknowns: the methods, one or two, whose ends span it


def around(dataset: Dataset, model: ForwardModel, solutions: Mapping[str, Solution], number: int) -> Around | None:
    """The loss over the range of one unknown or of two; of more over the plane through the start and the ends of the
    first two methods, or where these are near each other or on a line, through start, one end and a random direction.

    None where of more than two unknowns no method left its start.
    """
    problem = _problem(dataset, model, [number])
    z = {name: _to_z(problem, solution.x[number]) for name, solution in solutions.items()}
    z0 = {name: _to_z(problem, solution.x_initial[number]) for name, solution in solutions.items()}
    names = list(solutions)
    points = _COARSE if problem.targets.shape[1] > _LARGE else _FINE

    def seen(start: Tensor, best: Tensor, ends: Tensor) -> Seen:
        return Seen(problem, torch.zeros(1, dtype=torch.int64), [""], start, best, ends, 0, _TOGETHER, near=True)

    if problem.d <= 2:
        first = names[0]
        every = torch.stack([*z.values(), *z0.values()], dim=1)
        make = (
            lines(seen(z0[first], z[first], every))
            if problem.d == 1
            else planes(seen(z0[first], z[first], every), points)
        )
        flat = {name: np.asarray(s.x[number], dtype=np.float64).reshape(-1) for name, s in solutions.items()}
        begun = {name: np.asarray(s.x_initial[number], dtype=np.float64).reshape(-1) for name, s in solutions.items()}
        return Around(make[0], begun, flat, ())
    moved = [name for name in names if bool((z[name] != z0[name]).any())]
    if not moved:
        return None
    one = moved[0]
    start, way = z0[one], z[one] - z0[one]
    length = way.norm()
    side = orthogonal(way, torch.Generator().manual_seed(0))
    along: tuple[str, ...] = (one,)
    for other in moved[1:]:
        aside = _aside(z[other] - start, way)
        if float(aside.norm()) > _NEAR * float(length):
            side, along = aside / aside.norm() * length, (one, other)
            break

    def within(points: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Coordinates (2,) of those that lie in the plane, or nearly so."""
        found = {}
        for name, point in points.items():
            off = point - start
            if float(_aside(_aside(off, way), side).norm()) <= _NEAR * float(length):
                found[name] = torch.cat([(off * v).sum(1) / length**2 for v in (way, side)]).numpy()
        return found

    begun, ended = within(z0), within(z)
    marks = torch.from_numpy(np.stack([*begun.values(), *ended.values()]))
    plane = plane_through(seen(start, z[one], z[one][:, None]), side, marks, points)
    return Around(plane, begun, ended, along)


def _aside(vector: Tensor, way: Tensor) -> Tensor:
    """What of a vector (1, d) is at right angles to a way (1, d)."""
    return vector - (vector * way).sum(1, keepdim=True) / way.square().sum(1, keepdim=True) * way


def _problem(dataset: Dataset, model: ForwardModel, numbers: list[int]) -> Problem:
    shape = solution_shape(model, dataset)
    return Problem(model, dataset.picked(np.array(numbers), shape), shape, torch.device("cpu"), torch.float64)


def _to_z(problem: Problem, x: np.ndarray) -> Tensor:
    flat = torch.from_numpy(np.array(x, dtype=np.float64)).reshape(1, -1)
    return problem.coordinates.to_solver(flat)
