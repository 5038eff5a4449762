"""Levenberg–Marquardt on each row: Gauss–Newton steps, damped where they do not deliver (Moré 1978; Nielsen 1999)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from invsolve.data.solution import Status
from invsolve.engine import RUNNING, Evaluation, RowState
from invsolve.jacobian import find_out, jacobian_cost
from invsolve.least_squares import (
    LossName,
    RobustLoss,
    fused_normal_equations,
    normal_equations,
    nowhere,
    robust_loss,
)
from invsolve.methods.base import RowMethod
from invsolve.options import Options as BaseOptions
from invsolve.problem import Batch, Problem

_LEAST_DAMPING, _MOST_DAMPING = 1e-12, 1e24
_TAKEN = 1e-4  # of the predicted decrease that a step must bring (Moré 1978)
_UNROLLED = 8  # unknowns, up to which a Cholesky decomposition is written out
_TWO_PHASES = 8  # unknowns, from which on derivatives cost so much that rejected trials are spared them


@dataclass
class LmState(RowState):
    """b rows of d unknowns. The trial is z + step, clipped to the bounds."""

    z: Tensor  # (b, d) last accepted point
    loss: Tensor  # (b,)
    gradient: Tensor  # (b, d)
    matrix: Tensor  # (b, d, d) Gauss–Newton
    scale: Tensor  # (b, d) largest diagonal of the matrix so far: D² of Moré
    damping: Tensor  # (b,)
    growth: Tensor  # (b,) what the damping is multiplied by if the trial is rejected
    step: Tensor  # (b, d)
    iterations: Tensor  # (b,) int64
    born: Tensor  # (b,) bool: the start has been evaluated


class LmStepper:
    """One transition of all rows: judge the trial by its gain ratio, then solve for the next step."""

    def __init__(self, options: Lm.Options, problem: Problem) -> None:
        self.options = options
        self.lower, self.upper = problem.coordinates.lower, problem.coordinates.upper
        self.robust = RobustLoss(options.loss, options.loss_scale)
        self.two_phases = problem.d >= _TWO_PHASES
        find_out(problem)
        self.cost = jacobian_cost(problem.d, problem.targets.shape[1], problem.conduct) + self.two_phases

    def start(self, z: Tensor) -> LmState:
        b, d = z.shape
        return LmState(
            z=z,
            loss=z.new_full((b,), torch.inf),
            gradient=torch.zeros_like(z),
            matrix=z.new_zeros(b, d, d),
            scale=torch.zeros_like(z),
            damping=z.new_full((b,), self.options.damping),
            growth=z.new_full((b,), 2.0),
            step=torch.zeros_like(z),
            iterations=torch.zeros(b, dtype=torch.int64, device=z.device),
            born=torch.zeros(b, dtype=torch.bool, device=z.device),
        )

    def iterations(self, state: LmState) -> Tensor:
        return state.iterations

    def propose(self, state: LmState) -> Tensor:
        return (state.z + state.step).clamp(self.lower, self.upper)

    def compute(self, problem: Problem, batch: Batch, state: LmState, trial: Tensor) -> Evaluation:
        return _evaluation(fused_normal_equations(problem, batch, trial, self.robust))

    def evaluate(self, problem: Problem, batch: Batch, state: LmState, trial: Tensor) -> Evaluation:
        compute = partial(normal_equations, problem, robust=self.robust)
        failed = nowhere(trial)
        if not self.two_phases:
            return _evaluation(problem.attempt(compute, "Jacobian", batch, trial, failed=failed))
        losses = partial(robust_loss, problem, robust=self.robust)
        (loss,) = problem.attempt(losses, "loss", batch, trial, failed=failed[:1])
        # Derivatives only where the loss fell; of the others they are not looked at.
        places = (loss < state.loss).nonzero().squeeze(1)
        found = tuple(part.repeat_interleave(len(trial), 0) for part in failed)
        found[0].copy_(loss)
        if len(places):
            better = problem.attempt(compute, "Jacobian", batch.select(places), trial[places], failed=failed)
            for all_rows, part in zip(found, better, strict=True):
                all_rows[places] = part
            found[3][places] += 1
        return _evaluation(found)

    def advance(self, state: LmState, loss: Tensor, gradient: Tensor, matrix: Tensor) -> tuple[LmState, Tensor]:
        step = self.propose(state) - state.z
        predicted = _decrease(state.gradient, state.matrix, step)
        actual = state.loss - loss
        ratio = actual / predicted
        accept = ~state.born | ((ratio > _TAKEN) & (actual > 0))
        moved = accept & state.born
        gain = (1 - (2 * ratio - 1) ** 3).clamp(1 / 3, 1.0)
        damping = torch.where(
            moved, state.damping * gain, torch.where(accept, state.damping, state.damping * state.growth)
        )
        diagonal = torch.where(accept[:, None], matrix.diagonal(dim1=1, dim2=2), 0.0)
        new = replace(
            state,
            z=torch.where(accept[:, None], state.z + step, state.z),
            loss=torch.where(accept, loss, state.loss),
            gradient=torch.where(accept[:, None], gradient, state.gradient),
            matrix=torch.where(accept[:, None, None], matrix, state.matrix),
            scale=torch.maximum(state.scale, diagonal),
            damping=damping.clamp(_LEAST_DAMPING, _MOST_DAMPING),
            growth=torch.where(accept, 2.0, 2 * state.growth),
            iterations=state.iterations + moved,
            born=torch.ones_like(state.born),
        )
        new = replace(new, step=self._step(new))
        small = (actual <= self._ftol(loss) * state.loss) & (predicted <= self._ftol(loss) * state.loss)
        return new, self._outcome(new, moved & small & (ratio <= 2), step)

    def _ftol(self, loss: Tensor) -> float:
        return max(self.options.ftol, 4 * torch.finfo(loss.dtype).eps)

    def _step(self, state: LmState) -> Tensor:
        """−(H + λD²)⁻¹ g over the components that no bound holds (b, d)."""
        g, z = state.gradient, state.z
        held = ((z <= self.lower) & (g > 0)) | ((z >= self.upper) & (g < 0))
        # An unknown that has shown no effect yet is scaled by one.
        size = torch.where(state.scale > 0, state.scale, 1.0).sqrt()
        matrix = state.matrix / (size[:, :, None] * size[:, None, :])
        coupled = ~(held[:, :, None] | held[:, None, :])
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        matrix = torch.where(coupled, matrix, 0.0) + state.damping[:, None, None] * eye
        downhill = torch.where(held, 0.0, g / size)
        return -solve_definite(matrix, downhill) / size

    def _outcome(self, state: LmState, flat: Tensor, taken: Tensor) -> Tensor:
        o, eps, tiny = self.options, torch.finfo(state.loss.dtype).eps, torch.finfo(state.loss.dtype).tiny
        step = self.propose(state) - state.z
        predicted = _decrease(state.gradient, state.matrix, step)
        size = state.scale.sqrt()
        # The cosine of the angle between the residuals and each column of the Jacobian (Moré 1978).
        diagonal = state.matrix.diagonal(dim1=1, dim2=2)
        held = ((state.z <= self.lower) & (state.gradient > 0)) | ((state.z >= self.upper) & (state.gradient < 0))
        slope = torch.where(held | (diagonal <= 0), 0.0, state.gradient.abs())
        cosine = slope / (diagonal.sqrt() * (2 * state.loss).sqrt()[:, None]).clamp(min=tiny)
        orthogonal = cosine.amax(1) <= o.gtol
        short = (size * step).norm(dim=1) <= o.xtol * (size * state.z).norm(dim=1)
        nothing = predicted <= max(1e-3 * o.ftol, 4 * eps) * state.loss
        free = state.damping <= 1e-2
        still = ((state.z + step) == state.z).all(1)
        outcome = torch.full_like(state.iterations, RUNNING, dtype=torch.int8)
        outcome = outcome.masked_fill(state.iterations >= o.max_iterations, int(Status.BUDGET))
        outcome = outcome.masked_fill(still | (state.damping >= _MOST_DAMPING), int(Status.STALLED))
        converged = orthogonal | flat | short | (nothing & free) | (state.loss == 0)
        return outcome.masked_fill(converged, int(Status.CONVERGED))


def _decrease(gradient: Tensor, matrix: Tensor, step: Tensor) -> Tensor:
    """What the quadratic model says that the loss falls by (b,)."""
    return -(step * (gradient + 0.5 * (matrix * step[:, None, :]).sum(2))).sum(1)


def solve_definite(matrix: Tensor, right: Tensor) -> Tensor:
    """A⁻¹ b for positive definite A (b, d, d) of unit size and b (b, d), by Cholesky's decomposition.

    Few unknowns one entry after the other, for all rows at once in each operation: so a compiler makes one loop of it,
    and it is faster than a batch of LAPACK calls also where none does. A pivot below rounding is lifted to it; where
    LAPACK finds one, the result is that of the diagonal alone.
    """
    d = right.shape[1]
    if d > _UNROLLED:
        lower, info = torch.linalg.cholesky_ex(matrix)
        solution = torch.cholesky_solve(right[:, :, None], lower).squeeze(2)
        return torch.where((info == 0)[:, None], solution, right / matrix.diagonal(dim1=1, dim2=2))
    least = torch.finfo(matrix.dtype).eps
    factor: list[list[Tensor]] = [[] for _ in range(d)]
    solved: list[Tensor] = []
    for i in range(d):
        for j in range(i):
            entry = matrix[:, i, j]
            for k in range(j):
                entry = entry - factor[i][k] * factor[j][k]
            factor[i].append(entry / factor[j][j])
        pivot, value = matrix[:, i, i], right[:, i]
        for k in range(i):
            pivot = pivot - factor[i][k].square()
            value = value - factor[i][k] * solved[k]
        factor[i].append(pivot.clamp(min=least).sqrt())
        solved.append(value / factor[i][i])
    for i in reversed(range(d)):
        for k in range(i + 1, d):
            solved[i] = solved[i] - factor[k][i] * solved[k]
        solved[i] = solved[i] / factor[i][i]
    return torch.stack(solved, dim=1)


def _evaluation(found: tuple[Tensor, ...]) -> Evaluation:
    loss, gradient, matrix, evaluations, gradients = found
    return Evaluation(loss, (gradient, matrix), evaluations, gradients)


class Lm(RowMethod):
    """Levenberg–Marquardt of each example on its own, with Moré's scaling, bounds by projection, and robust losses."""

    name = "lm"

    class Options(BaseOptions):
        ftol: float = Field(
            1e-8, ge=0, description="converged once a step lowers the loss by less than this part of it"
        )
        xtol: float = Field(1e-8, ge=0, description="converged once a step is this short against the solution, scaled")
        gtol: float = Field(
            1e-8,
            ge=0,
            description="converged once the residuals are this orthogonal to the Jacobian's columns, a cosine",
        )
        max_iterations: int = Field(1000, ge=1, description="accepted steps per example at most")
        damping: float = Field(1e-3, gt=0, description="at the start, relative to the Gauss–Newton matrix's diagonal")
        loss: LossName = Field("linear", description="least squares, or a loss that outliers weigh less in")
        loss_scale: float = Field(
            1.0, gt=0, description="residual, in σ, from which on a robust loss takes it for an outlier"
        )

    options: Options

    def stepper(self, problem: Problem) -> LmStepper:
        return LmStepper(self.options, problem)
