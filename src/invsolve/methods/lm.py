"""Levenberg–Marquardt on each row: Gauss–Newton steps within a trust region (Moré 1978, Lecture Notes in Math. 630)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from invsolve.data.solution import Status
from invsolve.engine import RUNNING, Evaluation, RowState, worth
from invsolve.jacobian import find_out, jacobian_cost
from invsolve.least_squares import LossName, RobustLoss, fused_normal_equations, normal_equations, nowhere
from invsolve.methods.base import RowMethod
from invsolve.methods.newton_cg import NewtonCgStepper
from invsolve.methods.trust_region import by_factor, by_normal_equations
from invsolve.options import Options as BaseOptions
from invsolve.problem import Batch, Problem
from invsolve.tracing import is_traced

_TAKEN = 1e-4  # of the predicted decrease that a step must bring (Moré 1978)
MOST_DENSE = 128  # unknowns, above which Jacobians cost more than conjugate gradients
MOST_COMPILED = 12  # unknowns
_BOUND_ROUNDS = 8  # in which a step is made again for the bounds it meets, at most
_TWO_PHASES = 8  # unknowns, from which on derivatives cost so much that rejected trials are spared them


@dataclass
class LmState(RowState):
    """b rows of d unknowns. The trial is z + step, clipped to the bounds."""

    z: Tensor  # (b, d) last accepted point
    loss: Tensor  # (b,)
    gradient: Tensor  # (b, d)
    matrix: Tensor  # (b, d, d) Gauss–Newton
    factor: Tensor  # (b, d, d + 1) of an ill-conditioned matrix, see `normal_equations`; elsewhere 0
    scale: Tensor  # (b, d) largest diagonal of the matrix so far: D² of Moré
    radius: Tensor  # (b,) of the region in which the quadratic model is trusted, ‖D p‖
    damping: Tensor  # (b,) λ of the step, 0 where the region does not limit it
    step: Tensor  # (b, d)
    iterations: Tensor  # (b,) int64
    born: Tensor  # (b,) bool: the start has been evaluated


class LmStepper:
    """One transition of all rows: judge the trial by its gain ratio, then solve for the next step."""

    def __init__(self, options: Lm.Options, problem: Problem) -> None:
        self.options = options
        self.lower, self.upper = problem.coordinates.lower, problem.coordinates.upper
        self.bounded = problem.coordinates.bounded
        self.robust = RobustLoss(options.loss, options.loss_scale)
        self.two_phases = problem.d >= _TWO_PHASES
        self.cost = jacobian_cost(problem.d, problem.targets.shape[1], problem.conduct) + self.two_phases

    def start(self, z: Tensor) -> LmState:
        b, d = z.shape
        return LmState(
            z=z,
            loss=z.new_full((b,), torch.inf),
            gradient=torch.zeros_like(z),
            matrix=z.new_zeros(b, d, d),
            factor=z.new_zeros(b, d, d + 1),
            scale=torch.zeros_like(z),
            radius=z.new_full((b,), torch.inf),
            damping=z.new_zeros(b),
            step=torch.zeros_like(z),
            iterations=torch.zeros(b, dtype=torch.int64, device=z.device),
            born=torch.zeros(b, dtype=torch.bool, device=z.device),
        )

    def iterations(self, state: LmState) -> Tensor:
        return state.iterations

    def propose(self, state: LmState) -> Tensor:
        trial = (state.z + state.step).clamp(self.lower, self.upper)
        # On a bound to the last bit, which rounding may miss.
        return torch.where(state.step >= self.upper - state.z, self.upper, trial) if self.bounded else trial

    def compute(self, problem: Problem, batch: Batch, state: LmState, trial: Tensor) -> Evaluation:
        # Nothing in it may be for some rows alone: the normal equations must do for all.
        loss, gradient, matrix, evaluations, gradients = fused_normal_equations(problem, batch, trial, self.robust)
        return Evaluation(loss, (gradient, matrix), evaluations, gradients)

    def evaluate(self, problem: Problem, batch: Batch, state: LmState, trial: Tensor) -> Evaluation:
        compute = partial(normal_equations, problem, robust=self.robust)
        failed = nowhere(trial)
        if not self.two_phases:
            return _evaluation(problem.attempt(compute, "Jacobian", batch, trial, failed=failed))
        losses = partial(problem.objective, differentiate=False, loss_of=self.robust)
        loss, _ = problem.attempt(losses, "loss", batch, trial, failed=failed[:2])
        # Derivatives only where the loss fell; of the others they are not looked at.
        places = (loss < state.loss).nonzero().squeeze(1)
        found = tuple(part.repeat_interleave(len(trial), 0) for part in failed)
        found[0].copy_(loss)
        if len(places):
            better = problem.attempt(compute, "Jacobian", batch.select(places), trial[places], failed=failed)
            for all_rows, part in zip(found, better, strict=True):
                all_rows[places] = part
            found[4][places] += 1
        return _evaluation(found)

    def advance(
        self, state: LmState, loss: Tensor, gradient: Tensor, matrix: Tensor, factor: Tensor | None = None
    ) -> tuple[LmState, Tensor]:
        step = self.propose(state) - state.z
        predicted = _decrease(state, step)
        actual = state.loss - loss
        # What bounds have left of a step may go uphill: such a trial tells nothing but that it was too long.
        ratio = torch.where(torch.isfinite(loss) & (predicted > 0), actual / predicted, -torch.inf)
        accept = ~state.born | ((ratio > _TAKEN) & (actual > 0))
        moved = accept & state.born
        diagonal = torch.where(accept[:, None], matrix.diagonal(dim1=1, dim2=2), 0.0)
        new = replace(
            state,
            z=torch.where(accept[:, None], self.propose(state), state.z),
            loss=torch.where(accept, loss, state.loss),
            gradient=torch.where(accept[:, None], gradient, state.gradient),
            matrix=torch.where(accept[:, None, None], matrix, state.matrix),
            factor=state.factor if factor is None else torch.where(accept[:, None, None], factor, state.factor),
            scale=torch.maximum(state.scale, diagonal),
            iterations=state.iterations + moved,
            born=torch.ones_like(state.born),
        )
        size = _size(new)
        first = self.options.radius * (size * new.z).norm(dim=1)
        first = torch.where(first > 0, first, self.options.radius)
        length = (_size(state) * step).norm(dim=1)
        radius = torch.where(state.born, _radius(state, ratio, actual, step, length), first)
        # Where bounds left nothing of the step that would gain anything, its length tells nothing.
        tolerance = self._ftol(loss) * state.loss
        radius = torch.where(state.born & (predicted <= tolerance), 0.25 * state.radius, radius)
        new = replace(new, radius=radius)
        step, damping, settled = self._step(new, size)
        new = replace(new, step=step, damping=damping)
        small = moved & (actual <= tolerance) & (predicted <= tolerance) & (ratio <= 2)
        return new, self._outcome(new, small, size, settled)

    def _ftol(self, loss: Tensor) -> float:
        return max(self.options.ftol, 4 * torch.finfo(loss.dtype).eps)

    def _held(self, state: LmState) -> Tensor:
        """Components (b, d) that a bound holds: the loss falls only beyond it."""
        z, g = state.z, state.gradient
        return ((z <= self.lower) & (g > 0)) | ((z >= self.upper) & (g < 0))

    def _step(self, state: LmState, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The step (b, d), its λ (b,), and whether bounds leave it as it is (b,).

        Where it would lead beyond a bound, it goes to there, and anew over what is left; what a bound holds in vain is
        let go: the primal-dual active set method (Hintermüller, Ito and Kunisch 2002), for a few rounds.
        """
        fixed = self._held(state)
        shift = torch.zeros_like(size)
        step, damping = self._within_radius(state, size, fixed, shift)
        settled = torch.ones_like(state.born)
        # Each round would take a compiler as long as all else: there, a smaller region finds the way.
        rounds = 0 if is_traced() else _BOUND_ROUNDS
        for _ in range(rounds if self.bounded else 0):
            changed, shift = self._active(state, step, fixed)
            settled = (changed == fixed).all(1)
            if not worth(~settled):
                break
            fixed = changed
            step, damping = self._within_radius(state, size, fixed, torch.where(fixed, shift, 0.0))
        if self.bounded:
            settled = (self._active(state, step, fixed)[0] == fixed).all(1)
        return step, damping, settled

    def _active(self, state: LmState, step: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """Which components (b, d) a bound stops, of this step and those `fixed` for it, and where (b, d), from z."""
        low, high = self.lower - state.z, self.upper - state.z
        slope = state.gradient + (state.matrix * step[:, None, :]).sum(2)
        pushed = torch.where(step >= high, slope < 0, slope > 0)
        return torch.where(fixed, pushed, (step < low) | (step > high)), step.clamp(low, high)

    def _within_radius(self, state: LmState, size: Tensor, fixed: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """The minimizer p (b, d) of the quadratic model with ‖D p‖ ≤ radius and its λ (b,); `fixed` ones go to `shift`.

        From the normal equations; of rows for which these are ill-conditioned, from their triangular factor.
        """
        gradient = state.gradient + (state.matrix * shift[:, None, :]).sum(2) if self.bounded else state.gradient
        step, damping = by_normal_equations(state.matrix, gradient, size, fixed, state.radius, state.damping)
        step = torch.where(fixed, shift, step)
        ill = _ill_conditioned(state)
        if len(ill):
            parts = (state.factor, size, fixed, shift, state.radius, state.damping)
            better, its = by_factor(*(part[ill] for part in parts))
            step, damping = step.index_copy(0, ill, better), damping.index_copy(0, ill, its)
        return step, damping

    def _outcome(self, state: LmState, small: Tensor, size: Tensor, settled: Tensor) -> Tensor:
        o, kind = self.options, torch.finfo(state.loss.dtype)
        step = self.propose(state) - state.z
        predicted = _decrease(state, step)
        # The cosine of the angle between the residuals and each column of the Jacobian (Moré 1978).
        root = state.matrix.diagonal(dim1=1, dim2=2).sqrt()
        slope = torch.where(self._held(state) | (root <= 0), 0.0, state.gradient.abs())
        cosine = slope / (root * (2 * state.loss).sqrt()[:, None]).clamp(min=kind.tiny)
        orthogonal = (cosine.amax(1) <= o.gtol) | (state.loss == 0)
        short = (size * state.step).norm(dim=1) <= max(o.xtol, 4 * kind.eps) * (size * state.z).norm(dim=1)
        # The undamped step would gain nothing that counts: it need not be tried.
        nothing = (state.damping == 0) & (predicted.abs() <= self._ftol(state.loss) * state.loss)
        still = settled & ((state.z + step) == state.z).all(1)
        outcome = torch.full_like(state.iterations, RUNNING, dtype=torch.int8)
        outcome = outcome.masked_fill(state.iterations >= o.max_iterations, int(Status.BUDGET))
        outcome = outcome.masked_fill(still, int(Status.STALLED))
        return outcome.masked_fill(orthogonal | small | (settled & (short | nothing)), int(Status.CONVERGED))


def _size(state: LmState) -> Tensor:
    """D (b, d); an unknown that has shown no effect yet is scaled by one."""
    return torch.where(state.scale > 0, state.scale, 1.0).sqrt()


def _radius(state: LmState, ratio: Tensor, actual: Tensor, step: Tensor, length: Tensor) -> Tensor:
    """The trust radius (b,) after a trial step of this `length` ‖D p‖ (Moré 1978, section 4)."""
    slope = (state.gradient * step).sum(1)
    # Where the parabola through both losses and the slope has its minimum, between a tenth and a half of the step.
    parabola = torch.where(actual >= 0, 0.5, 0.5 * slope / (slope + actual)).nan_to_num(nan=0.1, posinf=0.1, neginf=0.1)
    shrunk = parabola.clamp(0.1, 0.5) * torch.minimum(state.radius, 10 * length)
    grown = torch.where((ratio >= 0.75) | (state.damping == 0), 2 * length, state.radius)
    return torch.where(ratio <= 0.25, shrunk, grown)


def _ill_conditioned(state: LmState) -> Tensor:
    """The rows (k,) that have a factor; none while rounds are recorded, which have no factors."""
    if is_traced():
        return torch.empty(0, dtype=torch.int64)
    return state.factor.diagonal(dim1=1, dim2=2).any(1).nonzero().squeeze(1)


def _decrease(state: LmState, step: Tensor) -> Tensor:
    """What the quadratic model says that the loss falls by (b,)."""
    falls = -(step * (state.gradient + 0.5 * (state.matrix * step[:, None, :]).sum(2))).sum(1)
    ill = _ill_conditioned(state)
    if len(ill):
        # A long step of little effect is lost in the rounding of JᵀJ, but not in that of R.
        factor, step = state.factor[ill], step[ill]
        change = (factor[:, :, :-1] * step[:, None, :]).sum(2)
        falls = falls.index_copy(0, ill, -(change * (factor[:, :, -1] + 0.5 * change)).sum(1))
    return falls


def _evaluation(found: tuple[Tensor, ...]) -> Evaluation:
    loss, gradient, matrix, factor, evaluations, gradients = found
    return Evaluation(loss, (gradient, matrix, factor), evaluations, gradients)


class Lm(RowMethod):
    """Levenberg–Marquardt of each example on its own, with Moré's scaling, bounds by active sets, and robust losses."""

    name = "lm"
    uses_seed = False

    class Options(BaseOptions):
        ftol: float = Field(
            1e-11, ge=0, description="converged once a step lowers the loss by less than this part of it"
        )
        xtol: float = Field(1e-10, ge=0, description="converged once a step is this short against the solution, scaled")
        gtol: float = Field(
            1e-10,
            ge=0,
            description="converged once the residuals are this orthogonal to the Jacobian's columns, a cosine",
        )
        max_iterations: int = Field(1000, ge=1, description="accepted steps per example at most")
        radius: float = Field(
            1.0, gt=0, description="of the first trust region, relative to the start's distance from zero, scaled"
        )
        solver: Literal["auto", "dense", "cg"] = Field(
            "auto",
            description=f"of the steps: dense Jacobians, or products with them in conjugate gradients; these by "
            f"auto above {MOST_DENSE} unknowns",
        )
        loss: LossName = Field("linear", description="least squares, or a loss that outliers weigh less in")
        loss_scale: float = Field(
            1.0, gt=0, description="residual, in σ, from which on a robust loss takes it for an outlier"
        )

    options: Options

    @property
    def minimizes_loss(self) -> bool:
        return self.options.loss == "linear"

    def why_uncompiled(self, d: int) -> str | None:
        if not self._is_dense(d):
            return "its rows ask for different things at a time"
        if d <= MOST_COMPILED:
            return None
        return f"its matrices are written out entry by entry, for {MOST_COMPILED} unknowns at most, and x has {d}"

    def row_bytes(self, d: int, dtype: torch.dtype) -> int:
        return (10 * d * (d + 4) if self._is_dense(d) else 16 * d) * dtype.itemsize

    def prepare(self, problem: Problem, limit: Tensor) -> None:
        if self._is_dense(problem.d):
            find_out(problem, limit)

    def stepper(self, problem: Problem) -> LmStepper | NewtonCgStepper:
        o = self.options
        if self._is_dense(problem.d):
            return LmStepper(o, problem)
        robust, least = RobustLoss(o.loss, o.loss_scale), 4 * torch.finfo(problem.dtype).eps
        ftol, xtol = max(o.ftol, least), max(o.xtol, least)
        return NewtonCgStepper(
            problem, robust, radius=o.radius, ftol=ftol, xtol=xtol, gtol=o.gtol, most=o.max_iterations
        )

    def _is_dense(self, d: int) -> bool:
        return d <= MOST_DENSE if self.options.solver == "auto" else self.options.solver == "dense"
