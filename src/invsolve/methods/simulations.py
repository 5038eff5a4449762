"""Pairs that a method makes itself: F at points where solutions may be, and a network that learns the way back.

Where the loss is flat or rugged its gradient says nothing, but F is known: of targets that it gave, the solution is
known too. Each point is simulated with the identifiers of one example, and so is a candidate for that example as well.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from invsolve.control import Control, Progress
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.examples import Examples, Window
from invsolve.methods.curve import Curve
from invsolve.methods.solver_network import NetworkOptions, SolverNetwork
from invsolve.networks.features import Features
from invsolve.options import Options
from invsolve.problem import Batch, Problem
from invsolve.sampling import Sampler

MEMORY = 2**28  # bytes of pairs that are kept; older ones make room
RATES = (3e-4, 1e-3, 3e-3)  # of AdamW, that are raced
_RACE = 100  # steps of each rate
_LEAST = 8  # points for each example, if so many are affordable
_ASKED = 1  # evaluation of each example, to see how good the network's answer is
MINIBATCH = 32  # pairs of a training step
MOST_STEPS = 20_000  # however many examples there are: a network has seen enough by then
TOGETHER = 1024  # rows that are simulated in one call
_STALLED = 10  # passes whose error is held against that of as many before them
_FALLING = 0.95  # of it, above which it falls no more
_LEARNED = 0.3  # of the error at first
_FOUND = 0.1  # of the first loss, or of the error of a network that knows nothing
_JUDGED = 1000  # pairs
_WEIGHT_DECAY = 0.01


class PairOptions(Options):
    """How many pairs methods simulate to train on."""

    simulations: int = Field(100, ge=1, description="points simulated for each example at most")
    pairs: int = Field(30_000, ge=1, description="points simulated in all, about: of many examples, fewer for each")

    def plan(self, which: Tensor, affordable: int, where: str = "prior", *, asked: int = _ASKED, **more: Any) -> Plan:
        """What is simulated for the examples of a mask (n,), for `affordable` evaluations of each at most.

        They suffice for `asked` answers of each besides. `more` says how a network is trained on it, see `Plan`.
        """
        wanted = max(_LEAST, math.ceil(self.pairs / max(int(which.sum()), 1)))
        return Plan(max(0, min(self.simulations, wanted, affordable - asked)), where, which, **more)


class ProposalOptions(NetworkOptions, PairOptions):
    """What methods share that train a network which gives solutions on pairs that they simulate."""


@dataclass
class Candidates:
    """The best that was seen of each example: where (n, d), and its loss (n,)."""

    z: Tensor
    loss: Tensor
    origin: Tensor  # (n,) int8, see FoundBy

    @classmethod
    def at(cls, z0: Tensor, loss: Tensor) -> Candidates:
        """The starts z0 (n, d) with their losses (n,)."""
        return cls(z0.clone(), loss.clone(), torch.full_like(loss, int(FoundBy.START), dtype=torch.int8))

    def take(self, window: Window, rows: Tensor, z: Tensor, loss: Tensor, origin: FoundBy) -> None:
        """Keep what is better of a window's rows (b,), each named once: z (b, d) with these losses (b,)."""
        examples = window.examples[rows]
        window.problem.note(rows, loss)
        better = loss < self.loss[examples]
        self.loss[examples] = torch.where(better, loss, self.loss[examples])
        self.z[examples] = torch.where(better[:, None], z, self.z[examples])
        self.origin[examples[better]] = int(origin)

    def results(self, examples: Examples, iterations: Tensor) -> RowResults:
        """What a training of so many iterations (n,) leaves."""
        begun = examples.evaluations > 1  # beside the scoring of the start
        failed = torch.where(torch.isfinite(self.loss), int(Status.BUDGET), int(Status.NONFINITE))
        return RowResults(
            z=self.z,
            status=torch.where(begun, failed, int(Status.NOT_RUN)).to(torch.int8),
            iterations=iterations,
            best=self.loss,
            found_by=self.origin,
        )

    def progress(self, stage: str, examples: Examples, fraction: float) -> Progress:
        """That of a stage which works on all examples."""
        return Progress(
            stage=stage,
            total=examples.n,
            done=0,
            fraction=fraction,
            evaluations=int(examples.evaluations.sum()),
            losses=self.loss[torch.isfinite(self.loss)],
        )


class Pairs:
    """What a network would see, and the `outputs` numbers that it should answer, of the `most` pairs simulated last."""

    def __init__(self, like: Features, outputs: int, most: int) -> None:
        row = 4 * (like.grid[0].numel() + like.flat[0].numel() + outputs)
        self.most, self.count, self._next = max(1, min(most, MEMORY // row)), 0, 0
        self.features = Features(*(t.new_empty(self.most, *t.shape[1:]) for t in (like.grid, like.flat)))
        self.answers = like.flat.new_empty(self.most, outputs)

    def add(self, features: Features, answers: Tensor) -> None:
        """Keep pairs (b,); where there is no room, in place of the oldest."""
        places = (self._next + torch.arange(len(answers), device=answers.device)) % self.most
        self.features.grid[places], self.features.flat[places] = features.grid, features.flat
        self.answers[places] = answers.to(self.answers.dtype)
        self._next = (self._next + len(answers)) % self.most
        self.count = min(self.count + len(answers), self.most)

    def draw(self, size: int, generator: torch.Generator) -> tuple[Features, Tensor]:
        """So many pairs at random."""
        places = torch.randint(self.count, (size,), generator=generator).to(self.answers.device)
        return self.features[places], self.answers[places]


@dataclass(frozen=True)
class Plan:
    """How much is simulated, and how a network is trained on it."""

    passes: int  # points simulated for each example, at most
    where: str  # "prior", "best", or "both" in turns: around the best seen of each example
    which: Tensor  # (n,) bool: the examples that points are simulated for
    replay: float = 3.0  # times that a pair is trained on, about
    minibatch: int = MINIBATCH
    noise: float = 0.5  # on the standardized inputs, falling to zero at the end
    good: float = 3e-4  # mean square error of an output at which it ends: of an unknown, in typical changes
    finish: int = 100  # steps at least in which the learning rate falls to zero
    forgotten: float = 10.0  # times the least error of a pass, at which the network goes back to where it was then


class Learner(Protocol):
    """What is trained on pairs: a network, and what it sees of one."""

    network: nn.Module

    def pairs(self, problem: Problem, rows: Tensor, z: Tensor, y: Tensor) -> tuple[Features, Tensor]:
        """Inputs and answers (b, outputs) of the pairs that z (b, d) and y (b, *y_shape) are for the rows (b,)."""
        ...


LearnerKind = TypeVar("LearnerKind", bound=Learner)


class Lessons(Generic[LearnerKind]):
    """Simulates points for examples, and trains a network on them, until it learns no more from further ones.

    The learning rate is raced for on the first pairs, stays while there are new ones, and then falls to zero. How good
    the network is shows on pairs that it was not trained on yet.
    """

    def __init__(self, plan: Plan, network: LearnerKind, examples: Examples, candidates: Candidates, seed: int) -> None:
        self.plan, self.network, self.examples, self.candidates = plan, network, examples, candidates
        self.sampler, self.generator = Sampler(examples, seed), torch.Generator().manual_seed(seed)
        self.z0 = examples.coordinates.to_solver(examples.x0)
        self.count = int(plan.which.sum())
        self.pairs: Pairs | None = None
        self.rate = 0.0
        self.errors: list[float] = []  # of each pass, of its pairs before they were trained on
        self.curve = Curve("error", plan.passes)
        self.ended = "before any point was simulated"  # why
        self._asked, self._size = 0, 0.0  # of the first pairs: how many, and the sum of squares of what is asked
        self._optimizer: torch.optim.Optimizer | None = None
        self._kept: dict[str, Tensor] | None = None  # the network when it was best

    def run(self, control: Control) -> None:
        """All passes, or until the network learns no more, or `control` stops it."""
        for done in range(self.plan.passes):
            self.ended = "by a stop"
            wrong, pairs, judged = 0.0, 0, copy.deepcopy(self.network.network.state_dict())
            for window in self.examples.windows():
                if control.stopped:
                    return
                error, count = self._simulate_window(window, done, control)
                wrong, pairs = wrong + error, pairs + count
                self._train(self._steps(int(self.plan.which[window.examples].sum())), control)
                fraction = (done + 1) / self.plan.passes
                control.report(lambda f=fraction: self.candidates.progress("proposals", self.examples, f))  # type: ignore[misc]
                del window  # before the next one is loaded
            if pairs:  # F may fail at all points of a pass
                self.errors.append(wrong / pairs)
                self._record()
                self._keep_or_take_back(judged)
                if self._is_done():
                    break
        else:
            self.ended = "after all points" if self.plan.passes else self.ended
        if self.errors:
            self._anneal(control)

    def _record(self) -> None:
        """Add the root mean square of the last pass to the curve, of an output."""
        assert self.pairs is not None
        error = math.sqrt(self.errors[-1] / self.pairs.answers.shape[1])
        self.curve.add(float(self.examples.evaluations.double().mean()), torch.tensor([error]))

    def told(self) -> dict[str, Any]:
        """What was chosen and why it ended, as JSON values; errors are root mean squares of an output."""
        told: dict[str, Any] = {"points": len(self.errors)}
        if self.errors and self.pairs is not None:
            first, last = (math.sqrt(e / self.pairs.answers.shape[1]) for e in (self.errors[0], self.errors[-1]))
            told |= {"learning_rate": self.rate, "error_at_first": first, "error_at_last": last}
        return {k: v for k, v in told.items() if math.isfinite(v)} | {"ended": self.ended}

    def seen(self, window: Window, rows: Tensor, z: Tensor, loss: Tensor) -> None:
        """The points z (b, d) that were simulated for the rows (b,) of a window have these losses (b,)."""

    @property
    def ignorant(self) -> float:
        """The error of a network that answers the same to all."""
        return self._size / max(self._asked, 1)

    def _is_done(self) -> bool:
        """Whether the error of new pairs does not fall any more, or is no more than a local solve can mend."""
        before, lately = self.errors[-2 * _STALLED : -_STALLED], self.errors[-_STALLED:]
        judging = math.ceil(_JUDGED / max(self.count, 1))  # passes that have enough pairs for a judgement
        if len(self.errors) > judging and max(self.errors[-judging:]) < self._good:
            self.ended = "as the network knew enough"
            return True
        if len(before) == _STALLED and sum(lately) > _FALLING * sum(before):
            self.ended = "as its error of new points fell no more"
            return True
        return False

    @property
    def _good(self) -> float:
        """The error, of all outputs in sum, at which a training ends."""
        assert self.pairs is not None
        return self.plan.good * self.pairs.answers.shape[1]

    def _keep_or_take_back(self, judged: dict[str, Tensor]) -> None:
        """Keep the network while it learns; one that forgot what it knew goes back, and on at a smaller rate.

        `judged` is the network as it was at the beginning of the last pass, to which the last error belongs.
        """
        error, least = self.errors[-1], min(self.errors)
        if error <= least:
            self._kept = judged
        elif not error < self.plan.forgotten * least + self._good and self._kept is not None:
            self.network.network.load_state_dict(self._kept)
            self.rate /= 3
            self._optimizer = _optimizer(self.network, self.rate)

    def _simulate_window(self, window: Window, done: int, control: Control) -> tuple[float, int]:
        """`_simulate` for all rows of a window that points are simulated for, unless `control` stops it."""
        rows = self.plan.which[window.examples].nonzero().squeeze(1)
        parts = itertools.takewhile(lambda _: not control.stopped, torch.split(rows, TOGETHER))
        found = [self._simulate(window, some, done) for some in parts]
        return sum(error for error, _ in found), sum(count for _, count in found)

    @torch.no_grad()
    def _simulate(self, window: Window, rows: Tensor, done: int) -> tuple[float, int]:
        """One more point for each of some rows of a window; the network's error there, in sum, and of how many."""
        which = window.examples[rows]
        z0 = self.z0[which]
        if self.plan.where == "best" or (self.plan.where == "both" and done % 2):
            z = self._near_the_best(which, z0, done / self.plan.passes)
        else:
            z = self.sampler.draw(z0, self.generator)
        loss, y = simulate(window.problem, rows, z)
        self.seen(window, rows, z, loss)
        usable = torch.isfinite(loss) & torch.isfinite(y.flatten(1)).all(1)
        if not bool(usable.any()):
            return 0.0, 0
        features, answers = self.network.pairs(window.problem, rows[usable], z[usable], y[usable])
        if self.pairs is None:
            self.pairs = Pairs(features, answers.shape[1], self.plan.passes * self.count)
        self.pairs.add(features, answers)
        if not self.errors:
            self._asked += len(answers)
            self._size += float(answers.square().sum())
        return float((self.network.network(features) - answers).square().sum()), len(answers)

    def _near_the_best(self, which: Tensor, z0: Tensor, done: float) -> Tensor:
        """Points (b, d) around the best seen of the examples (b,), the nearer the later."""
        width = 0.5 * 0.05**done
        noise = torch.randn(z0.shape, dtype=torch.float64, generator=self.generator).to(z0)
        c = self.examples.coordinates
        near: Tensor = (self.candidates.z[which] + width * self.sampler.units(z0) * noise).clamp(c.lower, c.upper)
        return near

    def _steps(self, pairs: int) -> int:
        """Of training, for so many new pairs."""
        most = MOST_STEPS * pairs / (self.plan.passes * max(self.count, 1))
        return math.ceil(min(self.plan.replay * pairs / self.plan.minibatch, most))

    def _train(self, steps: int, control: Control) -> None:
        if self.pairs is None or not self.pairs.count:
            return
        if self._optimizer is None:
            self.rate = self._race()
            self._optimizer = _optimizer(self.network, self.rate)
        for _ in range(steps):
            if control.stopped:
                return
            self._train_step(self.network, self._optimizer, self.plan.noise)

    def _anneal(self, control: Control) -> None:
        """Let the rate and the noise fall to zero, over a third as many steps as there were."""
        steps = max(math.ceil(len(self.errors) * self._steps(self.count) / 3), self.plan.finish)
        if self._optimizer is None:
            return
        for step in range(steps):
            if control.stopped:
                return
            left = 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in self._optimizer.param_groups:
                group["lr"] = self.rate * left
            self._train_step(self.network, self._optimizer, self.plan.noise * left)

    def _train_step(self, network: LearnerKind, optimizer: torch.optim.Optimizer, noise: float) -> None:
        assert self.pairs is not None
        features, answers = self.pairs.draw(self.plan.minibatch, self.generator)
        error = (network.network(features.blurred(noise)) - answers).square().sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(error)
        torch.nn.utils.clip_grad_norm_(network.network.parameters(), 1.0)
        optimizer.step()

    def _race(self) -> float:
        """The rate that brings the error of the first pairs down furthest in a few steps."""
        errors = {}
        for rate in RATES:
            rival = copy.copy(self.network)
            rival.network = copy.deepcopy(self.network.network)
            optimizer = _optimizer(rival, rate)
            for _ in range(_RACE):
                self._train_step(rival, optimizer, self.plan.noise)
            errors[rate] = self._error(rival)
        return min(errors, key=lambda rate: errors[rate])

    @torch.no_grad()
    def _error(self, network: LearnerKind) -> float:
        assert self.pairs is not None
        features, answers = self.pairs.draw(1024, self.generator)
        error = float((network.network(features) - answers).square().sum(1).mean())
        return error if math.isfinite(error) else math.inf


class Simulation(Lessons[SolverNetwork]):
    """Lessons for a network that gives solutions; every simulated point may be one of its example as well."""

    def __init__(
        self, plan: Plan, network: SolverNetwork, examples: Examples, candidates: Candidates, seed: int
    ) -> None:
        super().__init__(plan, network, examples, candidates, seed)
        self._first_loss = candidates.loss.clone()
        self._proposed = Candidates.at(self.z0, torch.full_like(candidates.loss, torch.inf))

    @property
    def proposed(self) -> Tensor:
        """The best of the simulated points of each example, (n, d)."""
        return self._proposed.z

    def seen(self, window: Window, rows: Tensor, z: Tensor, loss: Tensor) -> None:
        self.candidates.take(window, rows, z, loss, FoundBy.PROPOSAL)
        self._proposed.take(window, rows, z, loss, FoundBy.PROPOSAL)

    def run(self, control: Control) -> None:
        """All passes; then see how good the network's answers to the examples' own targets are."""
        super().run(control)
        if self.errors:
            self._ask(control)

    @property
    def learned(self) -> bool:
        """Whether the network knows most of what there is to know of simulated solutions, or of those asked for."""
        last = self.errors[-_STALLED:]
        return bool(last) and (sum(last) / len(last) < _LEARNED * self.ignorant or self._found_most())

    def knows_already(self, control: Control) -> bool:
        """Whether the network, before it is taught anything here, answers as one that was: the examples, or else a
        simulated point for each. What that takes is taken from the passes that are left.
        """
        if not self.plan.passes:
            return False
        self._ask(control)
        wrong, pairs = 0.0, 0
        if not self._found_most():
            for window in self.examples.windows():
                if control.stopped:
                    return False
                error, count = self._simulate_window(window, 0, control)
                wrong, pairs = wrong + error, pairs + count
                del window  # before the next one is loaded
        self.plan = replace(self.plan, passes=max(0, self.plan.passes - _ASKED - 1))
        knows = self._found_most() or (pairs > 0 and wrong / pairs < _FOUND * self.ignorant)
        self.ended = "as the network knew enough before" if knows else self.ended
        return knows

    def _ask(self, control: Control) -> None:
        answers = self.network.all_solutions(self.examples, self.z0)
        ask(answers[:, None], self.plan.which, self.examples, self.candidates, control)

    def _found_most(self) -> bool:
        """Whether of most examples a point was seen that leaves little of the first loss."""
        left = (self.candidates.loss / self._first_loss)[self.plan.which & torch.isfinite(self._first_loss)]
        return len(left) > 0 and bool(left.median() < _FOUND)


def ask(answers: Tensor, which: Tensor, examples: Examples, candidates: Candidates, control: Control) -> Tensor:
    """Evaluate the answers (n, k, d) of a network to the examples of a mask (n,), and keep what is better.

    Returns:
        The best answer (n, d) of each example, its start where there is none at which F can be evaluated.
    """
    z0 = examples.coordinates.to_solver(examples.x0)
    best = Candidates.at(z0, torch.full_like(candidates.loss, torch.inf))
    for window in examples.windows():
        rows = which[window.examples].nonzero().squeeze(1)
        for some in torch.split(rows, TOGETHER):
            mine = window.examples[some]
            for z in answers[mine].unbind(1):
                if control.stopped:
                    return best.z
                loss, _ = simulate(window.problem, some, z)
                best.take(window, some, z, loss, FoundBy.NETWORK)
                candidates.take(window, some, z, loss, FoundBy.NETWORK)
        del window  # before the next one is loaded
    return best.z


def simulate(problem: Problem, rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (b,) as solvers see it, +inf where F fails, and y (b, *y_shape) of the rows (b,) at z (b, d). Counted."""

    def compute(batch: Batch, z: Tensor) -> tuple[Tensor, Tensor]:
        x = problem.coordinates.to_user(z)
        y = problem.predict(batch, x)
        loss = problem.loss_at(batch, y)
        return loss if problem.penalty is None else loss + problem.penalty.loss(x), y

    nothing = z.new_full((1, *problem.y_shape), torch.nan)
    loss, y = problem.attempt(compute, "loss", problem.batch(rows), z, failed=(z.new_full((1,), torch.inf), nothing))
    problem.count(rows, evaluations=1, gradients=0)
    return torch.where(torch.isfinite(loss), loss, torch.inf), y.reshape(len(rows), *problem.y_shape)


def _optimizer(network: Learner, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.network.parameters(), lr=rate, weight_decay=_WEIGHT_DECAY, fused=True)
