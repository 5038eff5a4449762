"""Joint parameterized optimization: one network, trained on all examples at once, gives every solution.

Holl and Thuerey 2024 (arXiv 2408.08119), algorithm 1: x_i = x0_i + scale ∘ N_θ(y*_i, γ_i), θ trained on Σ_i L_i.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from invsolve.checkpoints import Checkpoints, GlobalRandom, State, optimizer_state, restore_optimizer
from invsolve.control import Control
from invsolve.coordinates import projected
from invsolve.data.solution import FoundBy
from invsolve.engine import RowResults
from invsolve.examples import Examples, Window
from invsolve.methods.base import Budget
from invsolve.methods.candidates import Candidates
from invsolve.methods.curve import Curve
from invsolve.methods.joint import beginning_at
from invsolve.methods.simulations import ProposalOptions, Simulation
from invsolve.methods.solver_network import NetworkMethod, SolverNetwork, training
from invsolve.networks.features import Features
from invsolve.sampling import stream


class Jpo(NetworkMethod):
    """Joint parameterized optimization: a network gives all solutions at once and is trained on their common loss."""

    name = "jpo"
    trains_in_crews = True

    class Options(ProposalOptions):
        proposals: Literal["auto", "prior", "best", "both", "none"] = Field(
            "auto",
            description="where points are simulated to train the network on first: by priors or bounds, around the "
            "best seen, or both in turns; auto is prior",
        )
        steps: int = Field(10_000, ge=1, description="training steps at most, one minibatch each")
        passes: int | None = Field(
            None,
            ge=0,
            description="passes over all examples at most, in training on their loss; none is 10, or 300 where there "
            "are no proposals",
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

    options: Options

    def train(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        o = self.options
        with training(examples, self.seed, o.minibatch):
            network = self.begin_network(examples)
            candidates = Candidates.at(examples.coordinates.to_solver(examples.x0), initial_loss, examples.crew)
            self.checkpoints.follow(examples=examples, network=network, candidates=candidates)
            self.checkpoints.follow(random=GlobalRandom(examples.device))
            learned = o.proposals != "none" and self._learn(network, examples, candidates, budget, control)
            steps = self._steps(examples, budget)
            run = Training(o, network, examples, candidates, initial_loss, steps, self.seed, gently=learned)
            self.checkpoints.follow(training=run)
            found = run.run(control, self.checkpoints)
            self.tell("training", run.told(), run.curve)
            answers = network.all_solutions(examples, run.z0)
            return replace(found, **beginning(found, answers, run.z0, initial_loss, learned=learned))

    def _learn(
        self, network: SolverNetwork, examples: Examples, candidates: Candidates, budget: Budget, control: Control
    ) -> bool:
        """Let the network learn from proposals, unless it knows enough; whether it does then."""
        everyone = torch.ones(examples.n, dtype=torch.bool, device=examples.device)
        where = "prior" if self.options.proposals == "auto" else self.options.proposals
        plan = self.options.plan(everyone, self.affordable(examples, budget) // 2, where)
        experienced = self.saved is not None
        simulation = Simulation(plan, network, examples, candidates, self.seed, experienced=experienced)
        self.checkpoints.follow(proposals=simulation)
        simulation.run(control, self.checkpoints)
        self.tell("proposals", simulation.told(), simulation.curve)
        return simulation.learned

    def _steps(self, examples: Examples, budget: Budget) -> int:
        """Steps that options and budget allow, a part of the budget being left for the refinement that follows."""
        passes = self.options.passes
        if passes is None:
            passes = PASSES if self.options.proposals == "none" else PASSES_AFTER_PROPOSALS
        passes = min(passes, self.affordable(examples, budget))
        return min(self.options.steps, passes * math.ceil(examples.n / self.options.minibatch))


PASSES = 300  # over all examples: what few examples are trained for
PASSES_AFTER_PROPOSALS = 10
MUCH_BETTER = 0.1  # of the loss at x0, is what is left at a point that a local solve had better begin at
NEARLY_GONE = 1e-2  # of the first loss
GENTLY = 0.3  # of learning rate, weight decay and noise: of a network that knows something already


def beginning(
    found: RowResults, answers: Tensor, z0: Tensor, initial_loss: Tensor, *, learned: bool
) -> dict[str, Tensor]:
    """Where local solves begin: at the best point seen, the network's answer, then x0.

    Where the network learned little, x0 comes first if the best point seen is hardly better: a random point is mostly a
    worse start.
    """
    assert found.found_by is not None
    best, answer, x0 = (found.z, found.found_by), (answers, FoundBy.NETWORK), (z0, FoundBy.LOCAL)
    usual, cautious = beginning_at(best, answer, x0), beginning_at(x0, best, answer)
    hardly = torch.full_like(initial_loss, not learned, dtype=torch.bool) & (found.best > MUCH_BETTER * initial_loss)
    for name, those in usual.items():
        those[hardly] = cautious[name][hardly]
    return usual


class Training:
    """One training run: the network, its optimizer, and the best z of every row so far.

    What is known of each row stays in memory, (n, d) and (n,); its data come and go with the windows of the examples.
    A crew shares each minibatch out by whose examples they are; the sum of all their gradients is that of the whole.
    """

    def __init__(
        self,
        options: Jpo.Options,
        network: SolverNetwork,
        examples: Examples,
        candidates: Candidates,
        first_loss: Tensor,
        steps: int,
        seed: int,
        *,
        gently: bool = False,
    ) -> None:
        self.options, self.network, self.examples, self.steps = options, network, examples, steps
        self.minibatches = Minibatches(examples, network, options.minibatch, seed)
        part = GENTLY if gently else 1.0
        self.noise = part * options.input_noise
        self.each_pass = math.ceil(examples.n / options.minibatch)
        self.made, self.ended = 0, "after all steps"
        # The size of a loss is the user's unit: only a tiny eps keeps Adam indifferent to it.
        self.optimizer = torch.optim.AdamW(
            network.network.parameters(),
            lr=part * options.learning_rate,
            weight_decay=part * options.weight_decay,
            eps=1e-16,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.z0 = examples.coordinates.to_solver(examples.x0)
        self.candidates, self.first_loss = candidates, first_loss
        self.iterations = torch.zeros(examples.n, dtype=torch.int64, device=examples.device)
        self._merged = self.iterations.clone()  # as all members of the crew knew them last
        self.parallel = examples.crew.parallel(network.network)
        self.curve = Curve("loss", steps, examples.crew)
        self._before, self._evaluated = float(examples.evaluations.double().mean()), 0

    def _rate(self, step: int) -> float:
        if self.options.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / max(self.steps, 1)))

    def run(self, control: Control, checkpoints: Checkpoints) -> RowResults:
        """Train to the end of the steps, or until nearly all losses are nearly gone, or `control` stops it."""
        with contextlib.closing(self.minibatches.drawn()) as drawn:
            for step in range(self.made, self.steps):
                if checkpoints.stops(control):
                    self.ended = "by a stop"
                    break
                if step and step % self.each_pass == 0 and self._fits():
                    self.ended = "as nearly all losses were nearly gone"
                    break
                self._step(*next(drawn), done=step / self.steps)
                self.made += 1
                fraction = (step + 1) / self.steps
                control.report(lambda f=fraction: self.candidates.progress("jpo", self.examples, f))  # type: ignore[misc]
        self._merge()
        return self.candidates.results(self.examples, self.iterations)

    def _merge(self) -> None:
        """Let all members of the crew know what each has done."""
        self.iterations.copy_(self._merged + self.examples.crew.sum_(self.iterations - self._merged))
        self._merged.copy_(self.iterations)

    def told(self) -> dict[str, Any]:
        """How long it went on, and why it ended, as JSON values."""
        passes = self.made / self.each_pass
        return {"passes": round(passes, 2), "learning_rate": self.optimizer.defaults["lr"], "ended": self.ended}

    def _fits(self) -> bool:
        """Whether the best losses of most examples are so small, beside the first, that local solves do the rest."""
        self.candidates.merge()
        known = torch.isfinite(self.first_loss)
        left = (self.candidates.loss / self.first_loss.clamp(min=torch.finfo(torch.float32).tiny))[known]
        return len(left) > 0 and float(left.kthvalue(math.ceil(0.9 * len(left))).values) < NEARLY_GONE

    def _step(self, window: Window, features: Features, places: Tensor, done: float) -> None:
        own, rows = window.mine(places)
        c, crew, examples = self.examples.coordinates, self.examples.crew, window.examples[rows]
        blurred = features[rows].blurred(self.noise * (1 - done), len(places), own)
        z = self.network.solutions(blurred, self.z0[examples], by=self.parallel)
        trial = z.detach().clamp(c.lower, c.upper)
        left = trial.new_full((len(places),), torch.nan)
        gradient = torch.zeros_like(trial)
        if len(rows):
            # A row that fails has gradient zero: it is left out.
            loss, gradient = window.problem.evaluate(rows, trial)
            self.candidates.take(window, rows, trial, loss, FoundBy.NETWORK)
            self.iterations[examples] += 1
            left[own] = loss / self.first_loss[examples].clamp(min=torch.finfo(loss.dtype).tiny)
        self._evaluated += len(places)
        self.curve.add(self._before + self._evaluated / self.examples.n, left)
        self.optimizer.zero_grad(set_to_none=True)
        # A crew's gradient is the mean of its members', not the sum.
        torch.autograd.backward(z, crew.size * projected(gradient, trial, c.lower, c.upper))
        self.optimizer.step()
        self.schedule.step()

    def state(self) -> State:
        self._merge()
        return {
            "steps": self.steps,
            "made": self.made,
            "optimizer": optimizer_state(self.optimizer),
            "schedule": self.schedule.state_dict(),
            "minibatches": self.minibatches.state(),
            "iterations": self.iterations,
            "curve": self.curve.state(),
            "evaluated": [self._before, self._evaluated],
        }

    def restore(self, state: State) -> None:
        """Go on where a training of this state was; network and candidates are restored already."""
        self.steps, self.made = state["steps"], state["made"]
        restore_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.minibatches.restore(state["minibatches"])
        self.iterations.copy_(state["iterations"])
        self._merged.copy_(self.iterations)
        self.curve.restore(state["curve"])
        self._before, self._evaluated = state["evaluated"]


class Minibatches:
    """Endless shuffled passes over all examples, so that each is evaluated equally often.

    Minibatches (places in a window) are drawn from all rows of a window, windows from blocks of the data that are
    shuffled too. What the generator was at the beginning of the pass and of the window tells the order of both, so that
    one who goes on in the middle loads no window that is done.
    """

    def __init__(self, examples: Examples, network: SolverNetwork, size: int, seed: int) -> None:
        self.examples, self.network, self.size = examples, network, size
        self.order = stream(seed, "order")
        self._windows = self._taken = 0  # windows done in this pass, and minibatches of the one after them
        self._at_pass = self._at_window = self.order.get_state()

    def drawn(self) -> Generator[tuple[Window, Features, Tensor]]:
        """From where it is: the window, features of its examples, and the places (b,) to take of everyone's there."""
        features: Features | None = None
        while True:
            self.order.set_state(self._at_pass)
            left = self.examples.windows(self.order, multiple=self.size, skip=self._windows)
            with contextlib.closing(left) as windows:
                for window in windows:
                    if features is None or not self.examples.in_memory:
                        features = self.network.features(window)
                    if self._taken:
                        self.order.set_state(self._at_window)
                    self._at_window = self.order.get_state()
                    shuffled = torch.randperm(len(window.everyone), generator=self.order)
                    for places in torch.split(shuffled, self.size)[self._taken :]:
                        self._taken += 1
                        yield window, features, places.to(self.examples.device)
                    self._windows, self._taken = self._windows + 1, 0
                    del window  # before the next one is loaded
            self._windows, self._at_pass = 0, self.order.get_state()
            if not self.examples.in_memory:  # the next windows are shared out otherwise
                self.examples.merge()

    def state(self) -> State:
        return {
            "windows": self._windows,
            "taken": self._taken,
            "at_pass": self._at_pass,
            "at_window": self._at_window,
        }

    def restore(self, state: State) -> None:
        self._windows, self._taken = state["windows"], state["taken"]
        self._at_pass, self._at_window = state["at_pass"], state["at_window"]
