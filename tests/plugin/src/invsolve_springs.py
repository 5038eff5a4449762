"""What another package may bring: a forward model and a row method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve import ForwardModel, Parameter, Status, Uniform
from invsolve.coordinates import projected
from invsolve.engine import RUNNING, RowState
from invsolve.methods.base import FirstOrder, RowMethod, RowOptions
from invsolve.problem import Problem


class Spring(ForwardModel):
    """Stiffness and damping of a spring from its free oscillation, released at 1 m."""

    parameters = (
        Parameter("stiffness", unit="N/m", lower=0.1, upper=10, scale="log", initial=1.0, prior=Uniform(0.5, 2)),
        Parameter("damping", unit="N s/m", lower=0, upper=1, initial=0.2, prior=Uniform(0.05, 0.5)),
    )

    def forward(self, x: Tensor, identifiers: None) -> Tensor:
        t = torch.linspace(0, 5, 30, dtype=x.dtype, device=x.device)
        return torch.exp(-0.5 * x[:, 1:] * t) * torch.cos(x[:, :1].sqrt() * t)


@dataclass
class BarzilaiBorweinState(RowState):
    """b rows: the last two points and gradients."""

    z: Tensor  # (b, d)
    gradient: Tensor  # (b, d)
    trial: Tensor  # (b, d)
    iterations: Tensor  # (b,)


class BarzilaiBorweinStepper(FirstOrder):
    """z ← z − (s·s / s·y) g, projected (Barzilai and Borwein 1988, IMA J. Numer. Anal. 8, 141)."""

    def __init__(self, options: RowOptions, lower: Tensor, upper: Tensor) -> None:
        self.options, self.lower, self.upper = options, lower, upper

    def start(self, z: Tensor) -> BarzilaiBorweinState:
        return BarzilaiBorweinState(z, torch.zeros_like(z), z, torch.full((len(z),), -1, device=z.device))

    def iterations(self, state: BarzilaiBorweinState) -> Tensor:
        return state.iterations.clamp(min=0)

    def propose(self, state: BarzilaiBorweinState) -> Tensor:
        return state.trial

    def advance(
        self, state: BarzilaiBorweinState, loss: Tensor, gradient: Tensor
    ) -> tuple[BarzilaiBorweinState, Tensor]:
        s, y = state.trial - state.z, gradient - state.gradient
        curvature = (s * y).sum(1)
        length = torch.where(curvature > 0, s.square().sum(1) / curvature, 0.1)
        length = torch.where(state.iterations < 0, 0.1, length).clamp(1e-6, 1e3)
        failed = torch.isinf(loss)  # halfway back, where F fails
        point = torch.where(failed[:, None], 0.5 * (state.z + state.trial), state.trial)
        trial = torch.where(failed[:, None], point, point - length[:, None] * gradient).clamp(self.lower, self.upper)
        downhill = projected(gradient, state.trial, self.lower, self.upper).abs().amax(1)
        state = BarzilaiBorweinState(
            torch.where(failed[:, None], state.z, state.trial),
            torch.where(failed[:, None], state.gradient, gradient),
            trial,
            state.iterations + 1,
        )
        outcome = torch.full_like(state.iterations, RUNNING, dtype=torch.int8)
        outcome = outcome.masked_fill(state.iterations >= self.options.max_iterations, int(Status.BUDGET))
        converged = ~failed & (downhill <= self.options.grad_tolerance)
        return state, outcome.masked_fill(converged, int(Status.CONVERGED))


class BarzilaiBorwein(RowMethod):
    """Steepest descent whose step is the last one's curvature, kept within bounds by projection."""

    name = "barzilai-borwein"
    Options = RowOptions

    def stepper(self, problem: Problem) -> BarzilaiBorweinStepper:
        return BarzilaiBorweinStepper(self.options, problem.coordinates.lower, problem.coordinates.upper)
