"""Pairs that a method makes itself: F at points where solutions may be, and a network that learns the way back.

Where the loss is flat or rugged its gradient says nothing, but F is known: of targets that it gave, the solution is
known too. Each point is simulated with the identifiers of one example, and so is a candidate for that example as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from invsolve.checkpoints import Checkpoints, Part, State, optimizer_state, restore_optimizer
from invsolve.control import Control
from invsolve.data.solution import FoundBy
from invsolve.examples import Examples, Window
from invsolve.methods.candidates import TOGETHER, Asking, Candidates, simulate
from invsolve.methods.curve import Curve
from invsolve.methods.pairs import Pairs
from invsolve.methods.solver_network import NetworkOptions, SolverNetwork
from invsolve.networks.features import Features
from invsolve.options import Options
from invsolve.problem import Problem
from invsolve.sampling import Sampler, stream

RATES = (3e-4, 1e-3, 3e-3)  # of AdamW, that are raced
_RACE = 100  # steps of each rate
_LEAST = 8  # points for each example, if so many are affordable
_ASKED = 1  # evaluation of each example, to see how good the network's answer is
MINIBATCH = 32  # pairs of a training step
MOST_STEPS = 20_000  # however many examples there are: a network has seen enough by then
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


class Learner(Part, Protocol):
    """What is trained on pairs: a network, and what it sees of one."""

    network: nn.Module

    def pairs(self, problem: Problem, rows: Tensor, z: Tensor, y: Tensor) -> tuple[Features, Tensor]:
        """Inputs and answers (b, outputs) of the pairs that z (b, d) and y (b, *y_shape) are for the rows (b,)."""
        ...


LearnerKind = TypeVar("LearnerKind", bound=Learner)


@dataclass
class Pass:
    """A pass over all examples that is under way: how far it is, and the network's error so far, in sum."""

    judged: dict[str, Tensor]  # the network as it was at the beginning, to which the error belongs
    windows: int = 0  # finished
    parts: int = 0  # of the window after them, that are simulated
    steps: int = 0  # of training after that
    wrong: float = 0.0
    pairs: int = 0


Turn = Callable[[Control, Checkpoints], "str | None"]
"""A turn of lessons, to its end: the name of the next one, or None where it was stopped."""
_OVER = "over"


class Lessons(Generic[LearnerKind]):
    """Simulates points for examples, and trains a network on them, until it learns no more from further ones.

    The learning rate is raced for on the first pairs, stays while there are new ones, and then falls to zero. How good
    the network is shows on pairs that it was not trained on yet.
    """

    def __init__(self, plan: Plan, network: LearnerKind, examples: Examples, candidates: Candidates, seed: int) -> None:
        self.plan, self.network, self.examples, self.candidates = plan, network, examples, candidates
        self.sampler, self.generator = Sampler(examples, seed), stream(seed, "points")
        self.z0 = examples.coordinates.to_solver(examples.x0)
        self.count, self.crew = int(plan.which.sum()), examples.crew
        self.pairs: Pairs | None = None
        self.rate = 0.0
        self.errors: list[float] = []  # of each pass, of its pairs before they were trained on
        self.curve = Curve("error", plan.passes)
        self.ended = "before any point was simulated"  # why
        self.turns: dict[str, Turn] = {"learn": self._learn, "anneal": self._anneal}
        self.turn = "learn"
        self._passes = self._annealed = 0  # finished; steps of the last turn
        self._pass: Pass | None = None
        self._asked, self._size = 0, 0.0  # of the first pairs: how many, and the sum of squares of what is asked
        self._outputs = 1  # numbers in an answer
        self._optimizer: torch.optim.Optimizer | None = None
        self._kept: dict[str, Tensor] = {}  # the network when it was best

    def run(self, control: Control, checkpoints: Checkpoints) -> None:
        """All that is left to do, unless `control` stops it."""
        while self.turn != _OVER and (following := self.turns[self.turn](control, checkpoints)) is not None:
            self.turn = following

    def _learn(self, control: Control, checkpoints: Checkpoints) -> str | None:
        """All passes, or until the network learns no more."""
        while self._passes < self.plan.passes:
            done = self._go_over_all(control, checkpoints)
            if done is None:
                self.ended = "by a stop"
                return None
            self._passes += 1
            if done.pairs:  # F may fail at all points of a pass
                self.errors.append(done.wrong / done.pairs)
                self._record()
                self._keep_or_take_back(done.judged)
                if self._is_done():
                    return "anneal"
        self.ended = "after all points" if self.plan.passes else self.ended
        return "anneal" if self.errors else _OVER

    def _go_over_all(self, control: Control, checkpoints: Checkpoints, *, train: bool = True) -> Pass | None:
        """Simulate a point for each example and, with `train`, learn from the pairs window by window; None: stopped."""
        if self._pass is None:
            self._pass = Pass(copy.deepcopy(self.network.network.state_dict()))
        at = self._pass
        for window in self.examples.windows(skip=at.windows):
            rows = self.plan.which[window.everyone].nonzero().squeeze(1)
            # Alone it can be left after each part. The shares of a crew are parts of the window, not of parts of it.
            together = TOGETHER if self.crew.size == 1 else len(window.everyone)
            for some in torch.split(rows[at.parts * TOGETHER :], together):
                if checkpoints.stops(control) or (made := self._simulate(window, some, control, checkpoints)) is None:
                    return None
                at.parts += math.ceil(len(some) / TOGETHER)
                at.wrong, at.pairs = at.wrong + made[0], at.pairs + made[1]
            if train and not self._train(at, self._steps(len(rows)), control, checkpoints):
                return None
            at.windows, at.parts, at.steps = at.windows + 1, 0, 0
            fraction = (self._passes + 1) / max(self.plan.passes, 1)
            control.report(lambda f=fraction: self.candidates.progress("proposals", self.examples, f))  # type: ignore[misc]
            del window  # before the next one is loaded
        self._pass = None
        self.candidates.merge()
        self.examples.merge()
        return at

    def _record(self) -> None:
        """Add the root mean square of the last pass to the curve, of an output."""
        error = math.sqrt(self.errors[-1] / self._outputs)
        self.curve.add(float(self.examples.evaluations.double().mean()), torch.tensor([error]))

    def told(self) -> dict[str, Any]:
        """What was chosen and why it ended, as JSON values; errors are root mean squares of an output."""
        told: dict[str, Any] = {"points": len(self.errors)}
        if self.errors:
            first, last = (math.sqrt(e / self._outputs) for e in (self.errors[0], self.errors[-1]))
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
        return self.plan.good * self._outputs

    def _keep_or_take_back(self, judged: dict[str, Tensor]) -> None:
        """Keep the network while it learns; one that forgot what it knew goes back, and on at a smaller rate.

        `judged` is the network as it was at the beginning of the last pass, to which the last error belongs.
        """
        error, least = self.errors[-1], min(self.errors)
        if error <= least:
            self._kept = judged
        elif not error < self.plan.forgotten * least + self._good and self._kept:
            self.network.network.load_state_dict(self._kept)
            self.rate /= 3
            self._optimizer = _optimizer(self.network, self.rate)

    @torch.no_grad()
    def _simulate(
        self, window: Window, places: Tensor, control: Control, checkpoints: Checkpoints
    ) -> tuple[float, int] | None:
        """One more point for each of some places of a window; the network's error there, in sum, and of how many.

        None where a member of the crew was stopped.
        """
        made: list[tuple[Features, Tensor]] = []
        wrong, left = 0.0, False
        for some in torch.split(places, TOGETHER):
            left = len(some) < len(places) and control.stopped
            if left:
                break
            own, rows = window.mine(some)
            z = self._drawn(window.everyone[some])[own]
            if len(rows) and (pairs := self._pairs(window, rows, z)) is not None:
                made.append(pairs)
                wrong += float((self.network.network(pairs[0]) - pairs[1]).square().sum())
        if checkpoints.agree(left):
            return None
        return sum(self.crew.gather(wrong)), self._take_in(made)

    def _drawn(self, which: Tensor) -> Tensor:
        """A point z (b, d) for each of the examples (b,)."""
        z0, done = self.z0[which], self._passes
        if self.plan.where == "best" or (self.plan.where == "both" and done % 2):
            return self._near_the_best(which, z0, done / self.plan.passes)
        return self.sampler.draw(z0, self.generator)

    def _pairs(self, window: Window, rows: Tensor, z: Tensor) -> tuple[Features, Tensor] | None:
        """What F gives at z (b, d) for the rows (b,), as pairs; None where it fails at all of them."""
        loss, y = simulate(window.problem, rows, z)
        self.seen(window, rows, z, loss)
        usable = torch.isfinite(loss) & torch.isfinite(y.flatten(1)).all(1)
        if not bool(usable.any()):
            return None
        return self.network.pairs(window.problem, rows[usable], z[usable], y[usable])

    def _take_in(self, made: list[tuple[Features, Tensor]]) -> int:
        """Keep the pairs of all members, in the order of the examples; how many they are."""
        told = self.crew.gather(made)
        new = [pairs for of_one in told for pairs in of_one]
        for features, answers in new:
            if self.pairs is None:
                self._outputs = answers.shape[1]
                self.pairs = Pairs(features, self._outputs, self.plan.passes * self.count)
            self.pairs.add(features, answers)
            if not self.errors:
                self._asked += len(answers)
                self._size += float(answers.square().sum())
        return sum(len(answers) for _, answers in new)

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

    def _train(self, at: Pass, steps: int, control: Control, checkpoints: Checkpoints) -> bool:
        """The steps that a window of a pass is still to have; whether that was done."""
        if self.pairs is None or not self.pairs.count:
            return True
        if self._optimizer is None:
            self.rate = self._race()
            self._optimizer = _optimizer(self.network, self.rate)
        while at.steps < steps:
            if checkpoints.stops(control):
                return False
            self._train_step(self.network, self._optimizer, self.plan.noise)
            at.steps += 1
        return True

    def _anneal(self, control: Control, checkpoints: Checkpoints) -> str | None:
        """Let the rate and the noise fall to zero, over a third as many steps as there were."""
        assert self._optimizer is not None  # for there were pairs
        steps = max(math.ceil(len(self.errors) * self._steps(self.count) / 3), self.plan.finish)
        while self._annealed < steps:
            if checkpoints.stops(control):
                return None
            left = 0.5 * (1 + math.cos(math.pi * self._annealed / steps))
            for group in self._optimizer.param_groups:
                group["lr"] = self.rate * left
            self._train_step(self.network, self._optimizer, self.plan.noise * left)
            self._annealed += 1
        return _OVER

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

    def state(self) -> State:
        """Where it is; once it is over, no more than what is told of it."""
        told: State = {
            "points": self.plan.passes,
            "turn": self.turn,
            "passes": self._passes,
            "annealed": self._annealed,
            "rate": self.rate,
            "errors": self.errors,
            "ended": self.ended,
            "first_pairs": [self._asked, self._size],
            "outputs": self._outputs,
            "curve": self.curve.state(),
        }
        if self.turn == _OVER:
            return told
        return told | {
            "generator": self.generator.get_state(),
            "pass": None if self._pass is None else vars(self._pass),
            "pairs": None if self.pairs is None else self.pairs.state(),
            "optimizer": None if self._optimizer is None else optimizer_state(self._optimizer),
            "kept": self._kept,
        }

    def restore(self, state: State) -> None:
        """Go on where lessons of this state were; the network is restored already."""
        self.plan = replace(self.plan, passes=state["points"])
        self.turn, self._passes, self._annealed = state["turn"], state["passes"], state["annealed"]
        self.rate, self.errors, self.ended = state["rate"], list(state["errors"]), state["ended"]
        (self._asked, self._size), self._outputs = state["first_pairs"], state["outputs"]
        self.curve.restore(state["curve"])
        if self.turn == _OVER:
            return
        self.generator.set_state(state["generator"])
        self._pass = None if state["pass"] is None else Pass(**state["pass"])
        self.pairs = None if state["pairs"] is None else Pairs.restored(state["pairs"], self.examples.device)
        if state["optimizer"] is not None:
            self._optimizer = _optimizer(self.network, self.rate)
            restore_optimizer(self._optimizer, state["optimizer"])
        self._kept = state["kept"]


class Simulation(Lessons[SolverNetwork]):
    """Lessons for a network that gives solutions; every simulated point may be one of its example as well.

    At the end the network is asked for the examples' own targets. One that is `experienced` is asked first, and then
    at a simulated point of each: where it answers as one that was taught, it is not taught anything here. What that
    takes is taken from the passes.
    """

    def __init__(
        self,
        plan: Plan,
        network: SolverNetwork,
        examples: Examples,
        candidates: Candidates,
        seed: int,
        *,
        experienced: bool = False,
    ) -> None:
        super().__init__(plan, network, examples, candidates, seed)
        self.turns |= {"look": self._look, "try": self._try, "ask": self._ask}
        self.turn = "look" if experienced and plan.passes else "learn"
        self.knew = False  # enough before
        self.learned = False
        """Whether the network knows most of what there is to know of simulated solutions, or of those asked for."""
        self._first_loss = candidates.loss.clone()
        self._proposed = Candidates.at(self.z0, torch.full_like(candidates.loss, torch.inf), examples.crew)
        self._asking: Asking | None = None

    @property
    def proposed(self) -> Tensor:
        """The best of the simulated points of each example, (n, d)."""
        self._proposed.merge()
        return self._proposed.z

    def seen(self, window: Window, rows: Tensor, z: Tensor, loss: Tensor) -> None:
        self.candidates.take(window, rows, z, loss, FoundBy.PROPOSAL)
        self._proposed.take(window, rows, z, loss, FoundBy.PROPOSAL)

    def run(self, control: Control, checkpoints: Checkpoints) -> None:
        if self.turn != _OVER:
            super().run(control, checkpoints)
            last = self.errors[-_STALLED:]
            taught = bool(last) and (sum(last) / len(last) < _LEARNED * self.ignorant or self._found_most())
            self.learned = self.knew or taught

    def _look(self, control: Control, checkpoints: Checkpoints) -> str | None:
        """See whether the network knows the examples."""
        if not self._ask_all(control, checkpoints):
            return None
        return self._reckon() if self._found_most() else "try"

    def _try(self, control: Control, checkpoints: Checkpoints) -> str | None:
        """See what it knows of simulated points."""
        tried = self._go_over_all(control, checkpoints, train=False)
        return None if tried is None else self._reckon(tried)

    def _reckon(self, tried: Pass | None = None) -> str:
        """Take the look from the passes; what is next, by whether the network knew enough."""
        self.plan = replace(self.plan, passes=max(0, self.plan.passes - _ASKED - 1))
        wrong = tried.wrong / tried.pairs if tried is not None and tried.pairs else math.inf
        self.knew = self._found_most() or wrong < _FOUND * self.ignorant
        self.ended = "as the network knew enough before" if self.knew else self.ended
        return _OVER if self.knew else "learn"

    def _anneal(self, control: Control, checkpoints: Checkpoints) -> str | None:
        return None if super()._anneal(control, checkpoints) is None else "ask"

    def _ask(self, control: Control, checkpoints: Checkpoints) -> str | None:
        """See how good the network's answers to the examples' own targets are."""
        return _OVER if self._ask_all(control, checkpoints) else None

    def _ask_all(self, control: Control, checkpoints: Checkpoints) -> bool:
        self._asking = self._asking or self._questions()
        done = self._asking.run(control, checkpoints)
        self._asking = None if done else self._asking
        return done

    def _questions(self) -> Asking:
        answers = self.network.all_solutions(self.examples, self.z0)
        return Asking(answers[:, None], self.plan.which, self.examples, self.candidates)

    def _found_most(self) -> bool:
        """Whether of most examples a point was seen that leaves little of the first loss."""
        left = (self.candidates.loss / self._first_loss)[self.plan.which & torch.isfinite(self._first_loss)]
        return len(left) > 0 and bool(left.median() < _FOUND)

    def state(self) -> State:
        own: State = {"knew": self.knew, "learned": self.learned, "proposed": self._proposed.state()}
        asking = None if self._asking is None else self._asking.state()
        return super().state() | own | {"first_loss": self._first_loss, "asking": asking}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.knew, self.learned = state["knew"], state["learned"]
        self._proposed.restore(state["proposed"])
        self._first_loss.copy_(state["first_loss"])
        if state["asking"] is not None:
            self._asking = self._questions()
            self._asking.restore(state["asking"])


def _optimizer(network: Learner, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.network.parameters(), lr=rate, weight_decay=_WEIGHT_DECAY, fused=True)
