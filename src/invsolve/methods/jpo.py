"""Joint parameterized optimization: one network, trained on all examples at once, gives every solution.

Holl and Thuerey 2024 (arXiv 2408.08119), algorithm 1: x_i = x0_i + scale ∘ N_θ(y*_i, γ_i), θ trained on Σ_i L_i.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from invsolve.coordinates import projected
from invsolve.data.solution import Status
from invsolve.engine import Control, Progress, RowResults
from invsolve.errors import OptionError
from invsolve.methods.base import Budget
from invsolve.methods.joint import JointMethod
from invsolve.networks.architectures import KINDS, VectorNetwork, choose_kind, grid_shape
from invsolve.networks.features import Features, make_features
from invsolve.options import Options as BaseOptions
from invsolve.problem import Problem


class Jpo(JointMethod):
    """Joint parameterized optimization: a network gives all solutions at once and is trained on their common loss."""

    name = "jpo"

    class Options(BaseOptions):
        network: Literal["auto", "mlp", "conv1d", "conv2d"] = Field(
            "auto", description="architecture; auto chooses by the shape of the targets"
        )
        width: int = Field(64, ge=1, description="units of each fully connected layer")
        depth: int = Field(2, ge=0, description="number of fully connected layers")
        channels: int = Field(
            16, ge=1, description="channels of the first convolution; they double at each further one"
        )
        steps: int = Field(10_000, ge=1, description="training steps at most, one minibatch each")
        passes: int = Field(
            300, ge=1, description="passes over all examples at most: what few examples are trained for"
        )
        minibatch: int = Field(
            8, ge=1, description="examples per training step; small and noisy finds better solutions"
        )
        learning_rate: float = Field(3e-3, gt=0, description="of AdamW, at the start")
        schedule: Literal["cosine", "constant"] = Field("cosine", description="how the learning rate goes on")
        weight_decay: float = Field(
            1.0, ge=0, description="decoupled, of AdamW; keeps the network too smooth to settle into each local minimum"
        )
        input_noise: float = Field(
            1.0,
            ge=0,
            description="noise on the standardized inputs, falling to zero over the training; to the same end",
        )
        scale: float = Field(
            1.0, gt=0, description="scale of the network's output, in typical changes of each parameter"
        )

    options: Options

    def train(self, problem: Problem, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        cuda = [problem.device] if problem.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), _threads_for(self.options.minibatch * problem.targets.shape[1]):
            torch.manual_seed(self.seed)
            steps = self._steps(problem, budget)
            return Training(self.options, problem, initial_loss, steps, self.seed).run(control)

    def _steps(self, problem: Problem, budget: Budget) -> int:
        """Steps that options and budget allow, a part of the budget being left for the refinement that follows."""
        passes = self.options.passes
        if budget.max_evaluations is not None:
            left = budget.max_evaluations - int(problem.evaluations.max())
            passes = min(passes, left - min(REFINEMENT, left // 2) if budget.refined else left)
        return min(self.options.steps, passes * math.ceil(problem.n / self.options.minibatch))


REFINEMENT = 30  # evaluations per example that a refinement may need after training


@contextlib.contextmanager
def _threads_for(elements: int) -> Iterator[None]:
    """One thread while a step works on few elements: waiting for each other would cost more than it gains.

    The limit is the grain size below which torch splits no elementwise operation.
    """
    before = torch.get_num_threads()
    if elements < 32_768:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Training:
    """One training run: the network, its optimizer, and the best z of every row so far."""

    def __init__(self, options: Jpo.Options, problem: Problem, initial_loss: Tensor, steps: int, seed: int) -> None:
        self.options, self.problem, self.steps = options, problem, steps
        self.features = _features(options, problem)
        network = VectorNetwork(
            self.features, problem.d, width=options.width, depth=options.depth, channels=options.channels
        )
        self.network = network.to(problem.device)
        # The size of a loss is the user's unit: only a tiny eps keeps Adam indifferent to it.
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            eps=1e-16,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.order = torch.Generator().manual_seed(seed)
        self.z0 = problem.coordinates.to_solver(problem.x0)
        self.results = RowResults.unstarted(self.z0, initial_loss)

    def _rate(self, step: int) -> float:
        if self.options.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / max(self.steps, 1)))

    def run(self, control: Control) -> RowResults:
        """Train to the end of the steps, or until `control` stops it."""
        batches = _minibatches(self.problem.n, self.options.minibatch, self.order)
        for step in range(self.steps):
            if control.stopped:
                break
            self._step(next(batches).to(self.problem.device), done=step / self.steps)
            control.report(lambda step=step: self._progress(step + 1))  # type: ignore[misc]
        begun = self.results.iterations > 0
        failed = torch.where(torch.isfinite(self.results.best), int(Status.BUDGET), int(Status.NONFINITE))
        self.results.status = torch.where(begun, failed, int(Status.NOT_RUN)).to(torch.int8)
        return self.results

    def _step(self, rows: Tensor, done: float) -> None:
        c, results = self.problem.coordinates, self.results
        features = self.features[rows].blurred(self.options.input_noise * (1 - done))
        output = self.network(features).to(self.z0.dtype)
        z = self.z0[rows] + self.options.scale * output
        trial = z.detach().clamp(c.lower, c.upper)
        loss, gradient = self.problem.evaluate(rows, trial)  # a row that fails has gradient zero: it is left out
        better = loss < results.best[rows]
        results.best[rows] = torch.where(better, loss, results.best[rows])
        results.z[rows] = torch.where(better[:, None], trial, results.z[rows])
        results.iterations[rows] += 1
        self.optimizer.zero_grad(set_to_none=True)
        z.backward(projected(gradient, trial, c.lower, c.upper))
        self.optimizer.step()
        self.schedule.step()

    def _progress(self, step: int) -> Progress:
        best = self.results.best
        return Progress(
            stage="jpo",
            total=self.problem.n,
            done=0,
            fraction=step / self.steps,
            evaluations=int(self.problem.evaluations.sum()),
            losses=best[torch.isfinite(best)],
        )


def _features(options: Jpo.Options, problem: Problem) -> Features:
    kind = options.network if options.network != "auto" else choose_kind(problem.y_shape)
    spatial = grid_shape(kind, problem.y_shape)
    if kind != "mlp" and not spatial:
        raise OptionError(
            f"network '{kind}' does not fit targets of shape {problem.y_shape}; valid here: "
            f"{', '.join(k for k in KINDS if k == 'mlp' or grid_shape(k, problem.y_shape))}"
        )
    targets = problem.targets.reshape(problem.n, *problem.y_shape)
    identifiers = problem.identifiers
    if identifiers is not None and not isinstance(identifiers, dict):
        identifiers = {"identifiers": identifiers}
    return make_features(targets, identifiers or {}, spatial)


def _minibatches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless shuffled passes over n rows, so that every example is evaluated equally often."""
    while True:
        yield from torch.split(torch.randperm(n, generator=generator), size)
