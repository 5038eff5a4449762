"""Gauss–Newton steps of many unknowns, by conjugate gradients in a trust region (Steihaug 1983; N&W algorithm 7.2).

A product with the Gauss–Newton matrix is what a row asks for in a round, or the loss at a trial: so rows that are
within their conjugate gradients stand beside rows that try a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from invsolve.coordinates import projected
from invsolve.data.solution import Status
from invsolve.engine import RUNNING, Evaluation, RowState
from invsolve.least_squares import RobustLoss, gauss_newton_product
from invsolve.problem import Batch, Problem

_TAKEN = 1e-4  # of the predicted decrease that a step must bring
_MOST_PRODUCTS = 200  # of one step
_EXACT = 1e-4  # of the gradient that a step may leave which gains nothing, for a row to have converged


@dataclass
class NewtonCgState(RowState):
    """b rows of d unknowns. Where `trying`, the trial is z + step; else a product with `q` is asked for at z."""

    z: Tensor  # (b, d) last accepted point
    loss: Tensor  # (b,)
    gradient: Tensor  # (b, d), projected
    step: Tensor  # (b, d) p of the conjugate gradients
    rest: Tensor  # (b, d) r = g + B p
    q: Tensor  # (b, d) their direction
    radius: Tensor  # (b,)
    first: Tensor  # (b,) norm of the gradient at the start
    products: Tensor  # (b,) int64 of this step
    iterations: Tensor  # (b,) int64
    trying: Tensor  # (b,) bool
    born: Tensor  # (b,) bool: the start has been evaluated


class NewtonCgStepper:
    """One transition of all rows: a step of the conjugate gradients, or the judgement of a trial."""

    cost = 1

    def __init__(
        self, problem: Problem, robust: RobustLoss, *, radius: float, ftol: float, xtol: float, gtol: float, most: int
    ) -> None:
        self.lower, self.upper = problem.coordinates.lower, problem.coordinates.upper
        self.robust, self.radius, self.most = robust, radius, most
        self.ftol, self.xtol, self.gtol = ftol, xtol, gtol

    def start(self, z: Tensor) -> NewtonCgState:
        b = len(z)
        zeros, none = torch.zeros_like(z), torch.zeros(b, dtype=torch.int64, device=z.device)
        return NewtonCgState(
            z=z, loss=z.new_full((b,), torch.inf), gradient=zeros, step=zeros, rest=zeros, q=zeros,
            radius=self.radius * z.norm(dim=1).clamp(min=1.0), first=z.new_zeros(b), products=none, iterations=none,
            trying=none == 0, born=none != 0,
        )  # fmt: skip

    def iterations(self, state: NewtonCgState) -> Tensor:
        return state.iterations

    def propose(self, state: NewtonCgState) -> Tensor:
        """Where they try, z + step; elsewhere z, whose loss is known."""
        return (state.z + torch.where(state.trying[:, None], state.step, 0.0)).clamp(self.lower, self.upper)

    def evaluate(self, problem: Problem, batch: Batch, state: NewtonCgState, trial: Tensor) -> Evaluation:
        """Loss and gradient where a row tries a step, the product with q elsewhere; what is not asked for is kept."""
        loss, gradient = state.loss.clone(), state.gradient.clone()
        product, one = torch.zeros_like(trial), torch.ones_like(batch.rows)
        evaluations, gradients = one.clone(), one.clone()
        tries, asks = (mask.nonzero().squeeze(1) for mask in (state.trying, ~state.trying))
        if len(tries):
            compute = partial(problem.objective, loss_of=self.robust)
            loss[tries], gradient[tries] = problem.attempt(
                compute, "gradient", batch.select(tries), trial[tries], failed=problem.nowhere(trial)
            )
        if len(asks):
            failed = (torch.full_like(trial[:1], torch.nan), one[:1], 0 * one[:1])
            product[asks], evaluations[asks], gradients[asks] = problem.attempt(
                partial(gauss_newton_product, problem, robust=self.robust), "Jacobian", batch.select(asks),
                state.z[asks], state.q[asks], failed=failed,
            )  # fmt: skip
        return Evaluation(loss, (gradient, product), evaluations, gradients)

    def advance(
        self, state: NewtonCgState, loss: Tensor, gradient: Tensor, product: Tensor
    ) -> tuple[NewtonCgState, Tensor]:
        tried, small = self._judged(state, loss, gradient)
        asked, nothing = self._conjugated(state, product)
        after = tried.where(state.trying, asked)
        return after, self._outcome(after, torch.where(state.trying, small, nothing))

    def _judged(self, state: NewtonCgState, loss: Tensor, gradient: Tensor) -> tuple[NewtonCgState, Tensor]:
        """The rows after their trials; those accepted begin conjugate gradients anew, others go back along the step."""
        predicted = -(state.gradient * state.step + 0.5 * state.step * (state.rest - state.gradient)).sum(1)
        actual = state.loss - loss
        ratio = torch.where(torch.isfinite(loss), actual / predicted, -torch.inf)
        accept = ~state.born | ((ratio > _TAKEN) & (actual > 0))
        length = state.step.norm(dim=1)
        z = torch.where(accept[:, None], self.propose(state), state.z)
        downhill = torch.where(accept[:, None], projected(gradient, z, self.lower, self.upper), state.gradient)
        radius = torch.where(ratio > 0.75, torch.maximum(state.radius, 2 * length), state.radius)
        radius = torch.where(ratio < 0.25, 0.25 * length, radius)
        shorter = 0.25 * state.step
        after = replace(
            state,
            z=z,
            loss=torch.where(accept, loss, state.loss),
            gradient=downhill,
            # B is linear: of a part of the step it is that part of B p.
            step=torch.where(accept[:, None], 0.0, shorter),
            rest=torch.where(accept[:, None], downhill, state.gradient + 0.25 * (state.rest - state.gradient)),
            q=-downhill,
            radius=torch.where(state.born, radius, state.radius),
            first=torch.where(state.born, state.first, downhill.norm(dim=1)),
            products=torch.zeros_like(state.products),
            iterations=state.iterations + (accept & state.born),
            trying=~accept,
            born=torch.ones_like(state.born),
        )
        tolerance = self.ftol * state.loss
        return after, accept & state.born & (actual <= tolerance) & (predicted <= tolerance)

    def _conjugated(self, state: NewtonCgState, product: Tensor) -> tuple[NewtonCgState, Tensor]:
        """The rows after a step of their conjugate gradients over what no bound holds; those that are done try it.

        And (b,) whether a row has nothing to gain any more.
        """
        held = (state.gradient == 0) & ((state.z <= self.lower) | (state.z >= self.upper))
        product = torch.where(held, 0.0, product)
        square, bend = state.rest.square().sum(1), (state.q * product).sum(1)
        inside = torch.isfinite(bend) & (bend > 0)
        step = state.step + torch.where(inside, square / bend, 0.0)[:, None] * state.q
        beyond = ~inside | (step.norm(dim=1) >= state.radius)
        reach = torch.where(beyond, _to_the_edge(state), square / bend)
        known = torch.isfinite(bend)
        rest = state.rest + torch.where(known, reach, 0.0)[:, None] * product.nan_to_num(nan=0.0)
        step = state.step + reach[:, None] * state.q
        left, size = rest.square().sum(1), state.gradient.norm(dim=1)
        # Exact enough for the convergence to be superlinear (N&W eq. 7.3).
        rough = torch.minimum(torch.full_like(size, 0.5), (size / state.first).sqrt())
        gain = -(state.gradient * step + 0.5 * step * (rest - state.gradient)).sum(1)
        nothing = (gain <= self.ftol * state.loss) | (step.abs() <= self.xtol * state.z.abs()).all(1)
        # A step that would end the row must be exact: where unknowns differ in scale, a rough one moves but a few.
        enough = left.sqrt() <= torch.where(nothing, rough.clamp(max=_EXACT), rough) * size
        products = state.products + 1
        # The cosine of the angle between the residuals and J g: the first direction is −g.
        orthogonal = (state.products == 0) & inside & (square <= self.gtol * (2 * state.loss * bend).sqrt())
        after = replace(
            state,
            step=step,
            rest=rest,
            q=-rest + (left / square)[:, None] * state.q,
            products=products,
            trying=beyond | enough | (products >= _MOST_PRODUCTS),
        )
        return after, orthogonal | (enough & ~beyond & nothing)

    def _outcome(self, state: NewtonCgState, small: Tensor) -> Tensor:
        eps = torch.finfo(state.loss.dtype).eps
        still = state.trying & (state.step.abs() <= eps * state.z.abs()).all(1) & (state.products == 0)
        outcome = torch.full_like(state.iterations, RUNNING, dtype=torch.int8)
        outcome = outcome.masked_fill(state.iterations >= self.most, int(Status.BUDGET))
        outcome = outcome.masked_fill(still, int(Status.STALLED))
        # What no step resolves any more counts as converged.
        hidden = still & (-(state.gradient * state.step).sum(1) <= 8 * eps * state.loss)
        flat = (state.gradient == 0).all(1)
        return outcome.masked_fill(flat | small | hidden | (state.loss == 0), int(Status.CONVERGED))


def _to_the_edge(state: NewtonCgState) -> Tensor:
    """τ ≥ 0 (b,) with ‖p + τ q‖ = radius."""
    a, b = state.q.square().sum(1), (state.q * state.step).sum(1)
    c = state.radius.square() - state.step.square().sum(1)
    return ((b.square() + a * c).clamp(min=0.0).sqrt() - b) / a
