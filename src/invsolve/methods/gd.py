"""Gradient descent, each row with a step size of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from invsolve.coordinates import projected
from invsolve.data.solution import Status
from invsolve.engine import RUNNING, RowState, RowStepper
from invsolve.methods.base import FirstOrder, RowMethod, RowOptions, loss_unit
from invsolve.problem import Problem

SUFFICIENT_DECREASE = 1e-4
SMALLEST_STEP = 1e-6  # of adam's first learning rate: below, a row has stopped moving


@dataclass
class DescentState(RowState):
    """b rows of d unknowns under steepest descent."""

    z: Tensor  # (b, d) last accepted point
    loss: Tensor  # (b,)
    first_loss: Tensor  # (b,) that of the start
    gradient: Tensor  # (b, d), projected
    step: Tensor  # (b,) the trial is z − step·gradient
    iterations: Tensor  # (b,) int64
    born: Tensor  # (b,) bool: the start has been evaluated


class DescentStepper(FirstOrder):
    """Steepest descent with backtracking: the step halves until the loss falls enough, and doubles when it did."""

    def __init__(self, options: Gd.Options, lower: Tensor, upper: Tensor) -> None:
        self.options, self.lower, self.upper = options, lower, upper
        self.first_length = 1.0 if options.learning_rate is None else options.learning_rate

    def start(self, z: Tensor) -> DescentState:
        b = len(z)
        return DescentState(
            z=z,
            loss=z.new_full((b,), torch.inf),
            first_loss=z.new_full((b,), torch.inf),
            gradient=torch.zeros_like(z),
            step=z.new_zeros(b),
            iterations=torch.zeros(b, dtype=torch.int64, device=z.device),
            born=torch.zeros(b, dtype=torch.bool, device=z.device),
        )

    def iterations(self, state: DescentState) -> Tensor:
        return state.iterations

    def propose(self, state: DescentState) -> Tensor:
        return (state.z - state.step[:, None] * state.gradient).clamp(self.lower, self.upper)

    def advance(self, state: DescentState, loss: Tensor, gradient: Tensor) -> tuple[DescentState, Tensor]:
        trial = self.propose(state)
        expected = (state.gradient * (state.z - trial)).sum(1)
        accept = ~state.born | (loss <= state.loss - SUFFICIENT_DECREASE * expected)
        downhill = projected(gradient, trial, self.lower, self.upper)
        first_loss = torch.where(state.born, state.first_loss, loss)
        first = torch.minimum(self.first_length / downhill.norm(dim=1), 1 / loss_unit(first_loss))
        step = torch.where(accept, 2 * state.step, 0.5 * state.step)
        moved = accept & state.born
        state = DescentState(
            z=torch.where(accept[:, None], trial, state.z),
            loss=torch.where(accept, loss, state.loss),
            first_loss=first_loss,
            gradient=torch.where(accept[:, None], downhill, state.gradient),
            step=torch.where(state.born, step, first),
            iterations=state.iterations + moved,
            born=torch.ones_like(state.born),
        )
        # A step that no longer changes any digit of z.
        reach = (state.step[:, None] * state.gradient).abs()
        still = (reach <= torch.finfo(loss.dtype).eps * state.z.abs()).all(1)
        return state, _outcome(state.gradient, state.first_loss, state.iterations, still, self.options)


@dataclass
class AdamState(RowState):
    """b rows of d unknowns under Adam (Kingma and Ba 2015, algorithm 1)."""

    z: Tensor  # (b, d) the trial
    mean: Tensor  # (b, d) first moment of the gradient
    square: Tensor  # (b, d) second moment
    rate: Tensor  # (b,) learning rate
    best: Tensor  # (b,) lowest loss so far
    first_loss: Tensor  # (b,) that of the start
    waited: Tensor  # (b,) int64: trials since then
    iterations: Tensor  # (b,) int64


class AdamStepper(FirstOrder):
    """Adam with moments per row; a row's learning rate halves when its loss has not fallen for `patience` trials."""

    def __init__(self, options: Gd.Options, lower: Tensor, upper: Tensor) -> None:
        self.options, self.lower, self.upper = options, lower, upper
        self.rate = 0.05 if options.learning_rate is None else options.learning_rate

    def start(self, z: Tensor) -> AdamState:
        b = len(z)
        return AdamState(
            z=z,
            mean=torch.zeros_like(z),
            square=torch.zeros_like(z),
            rate=z.new_full((b,), self.rate),
            best=z.new_full((b,), torch.inf),
            first_loss=z.new_full((b,), torch.inf),
            waited=torch.zeros(b, dtype=torch.int64, device=z.device),
            iterations=torch.zeros(b, dtype=torch.int64, device=z.device),
        )

    def iterations(self, state: AdamState) -> Tensor:
        return state.iterations

    def propose(self, state: AdamState) -> Tensor:
        return state.z

    def advance(self, state: AdamState, loss: Tensor, gradient: Tensor) -> tuple[AdamState, Tensor]:
        gradient = projected(gradient, state.z, self.lower, self.upper)
        improved = loss < state.best
        waited = torch.where(improved, 0, state.waited + 1)
        tired = waited >= self.options.patience
        t = (state.iterations + 1).to(loss.dtype)[:, None]
        mean = 0.9 * state.mean + 0.1 * gradient
        square = 0.999 * state.square + 0.001 * gradient.square()
        rate = torch.where(tired, 0.5 * state.rate, state.rate)
        root = (square / (1 - 0.999**t)).sqrt()
        move = torch.where(root > 0, mean / (1 - 0.9**t) / root, 0.0)
        following = replace(
            state,
            z=(state.z - rate[:, None] * move).clamp(self.lower, self.upper),
            mean=mean,
            square=square,
            rate=rate,
            best=torch.minimum(loss, state.best),
            first_loss=torch.where(state.iterations == 0, loss, state.first_loss),
            waited=waited.masked_fill(tired, 0),
            iterations=state.iterations + 1,
        )
        # A trial where F failed has no gradient, which must not pass for a stationary point.
        known = torch.where(torch.isfinite(loss)[:, None], gradient, torch.inf)
        still = rate < SMALLEST_STEP * self.rate
        return following, _outcome(known, following.first_loss, following.iterations, still, self.options)


def _outcome(gradient: Tensor, first_loss: Tensor, iterations: Tensor, still: Tensor, options: Gd.Options) -> Tensor:
    outcome = torch.full_like(iterations, RUNNING, dtype=torch.int8)
    outcome = outcome.masked_fill(iterations >= options.max_iterations, int(Status.BUDGET))
    outcome = outcome.masked_fill(still, int(Status.STALLED))
    flat = gradient.abs().amax(1) <= options.grad_tolerance * loss_unit(first_loss)
    return outcome.masked_fill(flat, int(Status.CONVERGED))


class Gd(RowMethod):
    """Gradient descent of each example on its own, by backtracking steepest descent or Adam; bounds by projection."""

    name = "gd"
    uses_seed = False

    class Options(RowOptions):
        optimizer: Literal["sgd", "adam"] = Field("sgd", description="steepest descent with backtracking, or Adam")
        learning_rate: float | None = Field(
            None,
            gt=0,
            description="length of the first step in typical changes of the parameters; none: 1 for sgd, 0.05 for adam",
        )
        patience: int = Field(20, ge=1, description="adam: trials without a lower loss until a row's rate is halved")

    options: Options

    def stepper(self, problem: Problem) -> RowStepper[DescentState] | RowStepper[AdamState]:
        bounds = problem.coordinates.lower, problem.coordinates.upper
        if self.options.optimizer == "adam":
            return AdamStepper(self.options, *bounds)
        return DescentStepper(self.options, *bounds)
