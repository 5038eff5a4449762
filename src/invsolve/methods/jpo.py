"""Joint parameterized optimization: one network, trained on all examples at once, gives every solution.

Holl and Thuerey 2024 (arXiv 2408.08119), algorithm 1: x_i = x0_i + scale ∘ N_θ(y*_i, γ_i), θ trained on Σ_i L_i.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator
from functools import reduce
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from invsolve.coordinates import projected
from invsolve.data.solution import Status
from invsolve.engine import Control, Progress, RowResults
from invsolve.errors import OptionError
from invsolve.examples import Examples, Window
from invsolve.methods.base import Budget
from invsolve.methods.joint import JointMethod
from invsolve.networks.architectures import KINDS, VectorNetwork, choose_kind, grid_shape
from invsolve.networks.features import Features, Standard
from invsolve.options import Options as BaseOptions


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

    def train(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        cuda = [examples.device] if examples.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), _threads_for(self.options.minibatch * math.prod(examples.y_shape)):
            torch.manual_seed(self.seed)
            steps = self._steps(examples, budget)
            return Training(self.options, examples, initial_loss, steps, self.seed).run(control)

    def _steps(self, examples: Examples, budget: Budget) -> int:
        """Steps that options and budget allow, a part of the budget being left for the refinement that follows."""
        passes = self.options.passes
        if budget.max_evaluations is not None:
            left = budget.max_evaluations - int(examples.evaluations.max())
            passes = min(passes, left - min(REFINEMENT, left // 2) if budget.refined else left)
        return min(self.options.steps, passes * math.ceil(examples.n / self.options.minibatch))


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
    """One training run: the network, its optimizer, and the best z of every row so far.

    What is known of each row stays in memory, (n, d) and (n,); its data come and go with the windows of the examples.
    """

    def __init__(self, options: Jpo.Options, examples: Examples, initial_loss: Tensor, steps: int, seed: int) -> None:
        self.options, self.examples, self.steps = options, examples, steps
        self.spatial = _spatial(options, examples.y_shape)
        self.standard, one = self._look_at_all()
        network = VectorNetwork(one, examples.d, width=options.width, depth=options.depth, channels=options.channels)
        self.network = network.to(examples.device)
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
        self.z0 = examples.coordinates.to_solver(examples.x0)
        self.results = RowResults.unstarted(self.z0, initial_loss)
        self.evaluations = 0

    def _look_at_all(self) -> tuple[Standard, Features]:
        """The standard of all examples, and the features of one of them, which have the shapes of all."""
        standards = []
        for window in self.examples.windows():
            targets, identifiers = _seen(window)
            standards.append(Standard.measured(targets, identifiers, self.spatial))
            one = targets[:1].clone(), {k: v[:1].clone() for k, v in identifiers.items()}
            del window, targets, identifiers  # before the next one is loaded
        standard = reduce(Standard.joined, standards)
        return standard, standard.features(*one)

    def _rate(self, step: int) -> float:
        if self.options.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / max(self.steps, 1)))

    def run(self, control: Control) -> RowResults:
        """Train to the end of the steps, or until `control` stops it."""
        with contextlib.closing(self._minibatches()) as minibatches:
            for step in range(self.steps):
                if control.stopped:
                    break
                self._step(*next(minibatches), done=step / self.steps)
                control.report(lambda step=step: self._progress(step + 1))  # type: ignore[misc]
        begun = self.results.iterations > 0
        failed = torch.where(torch.isfinite(self.results.best), int(Status.BUDGET), int(Status.NONFINITE))
        self.results.status = torch.where(begun, failed, int(Status.NOT_RUN)).to(torch.int8)
        return self.results

    def _minibatches(self) -> Generator[tuple[Window, Features, Tensor]]:
        """Endless shuffled passes over all examples, so that each is evaluated equally often.

        Minibatches (rows of a window) are drawn from all rows of a window, windows from blocks of the data that are
        shuffled too.
        """
        size = self.options.minibatch
        features: Features | None = None
        while True:
            with contextlib.closing(self.examples.windows(self.order, multiple=size)) as windows:
                for window in windows:
                    if features is None or not self.examples.in_memory:
                        features = self.standard.features(*_seen(window))
                    for rows in torch.split(torch.randperm(len(window.examples), generator=self.order), size):
                        yield window, features, rows.to(self.examples.device)
                    del window  # before the next one is loaded

    def _step(self, window: Window, features: Features, rows: Tensor, done: float) -> None:
        c, results, examples = self.examples.coordinates, self.results, window.examples[rows]
        output = self.network(features[rows].blurred(self.options.input_noise * (1 - done))).to(self.z0.dtype)
        z = self.z0[examples] + self.options.scale * output
        trial = z.detach().clamp(c.lower, c.upper)
        # A row that fails has gradient zero: it is left out.
        loss, gradient = window.problem.evaluate(rows, trial)
        self.evaluations += len(rows)
        better = loss < results.best[examples]
        results.best[examples] = torch.where(better, loss, results.best[examples])
        results.z[examples] = torch.where(better[:, None], trial, results.z[examples])
        results.iterations[examples] += 1
        self.optimizer.zero_grad(set_to_none=True)
        z.backward(projected(gradient, trial, c.lower, c.upper))
        self.optimizer.step()
        self.schedule.step()

    def _progress(self, step: int) -> Progress:
        best = self.results.best
        return Progress(
            stage="jpo",
            total=self.examples.n,
            done=0,
            fraction=step / self.steps,
            evaluations=self.evaluations,
            losses=best[torch.isfinite(best)],
        )


def _spatial(options: Jpo.Options, y_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the targets that the network convolves over."""
    kind = options.network if options.network != "auto" else choose_kind(y_shape)
    spatial = grid_shape(kind, y_shape)
    if kind != "mlp" and not spatial:
        raise OptionError(
            f"network '{kind}' does not fit targets of shape {y_shape}; valid here: "
            f"{', '.join(k for k in KINDS if k == 'mlp' or grid_shape(k, y_shape))}"
        )
    return spatial


def _seen(window: Window) -> tuple[Tensor, dict[str, Tensor]]:
    """What of a window's data the network is shown: targets (w, *y_shape), and identifiers by name."""
    problem = window.problem
    identifiers = problem.identifiers
    if identifiers is not None and not isinstance(identifiers, dict):
        identifiers = {"identifiers": identifiers}
    return problem.targets.reshape(problem.n, *problem.y_shape), identifiers or {}
