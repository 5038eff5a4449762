"""What methods share that others are compared with: learn from simulated pairs, answer each example, refine the answer.

A simulated point serves the training alone. That one may happen to be near the solution of its own example is the merit
of drawing many, not of the network; so a refinement begins at the network's answer, whether or not it is lower than x0.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Generic

import torch
from pydantic import Field
from torch import Tensor

from invsolve.checkpoints import GlobalRandom
from invsolve.control import Control
from invsolve.data.solution import FoundBy
from invsolve.engine import RowResults
from invsolve.examples import Examples
from invsolve.methods.base import Budget
from invsolve.methods.candidates import Asking, Candidates
from invsolve.methods.joint import JointMethod, JointOptions, beginning_at
from invsolve.methods.simulations import MINIBATCH, LearnerKind, Lessons, PairOptions
from invsolve.methods.solver_network import training


class AnswerOptions(JointOptions, PairOptions):
    """What such methods share: unless told otherwise, the refinement begins at the network's answer alone."""

    restarts: int = Field(
        0,
        ge=0,
        le=2**12,
        description="further starts of each example, by priors or bounds, beside the network's answer: local solves "
        "then go on until `agree` of them do",
    )


class AnswerMethod(JointMethod, Generic[LearnerKind]):
    """Subclasses define what learns, and what it answers."""

    lessons: ClassVar[dict[str, Any]] = {}
    """How the network is trained, see `Plan`."""
    asked = 1
    """Answers to each example that are evaluated, at most."""
    options: AnswerOptions

    @abstractmethod
    def learner(self, examples: Examples) -> LearnerKind:
        """The network, untrained."""

    @abstractmethod
    def answers(self, learned: LearnerKind, examples: Examples, candidates: Candidates, control: Control) -> Tensor:
        """The points z (n, asked, d), inside the bounds, that it answers; no evaluation of F is made for them."""

    def train(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        z0 = examples.coordinates.to_solver(examples.x0)
        candidates = Candidates.at(z0, initial_loss, examples.crew)
        everyone = torch.ones(examples.n, dtype=torch.bool, device=examples.device)
        chosen = z0
        with training(examples, self.seed, self.lessons.get("minibatch", MINIBATCH)):
            learner = self.learner(examples)
            self.checkpoints.follow(examples=examples, network=learner, candidates=candidates)
            self.checkpoints.follow(random=GlobalRandom(examples.device))
            plan = self.options.plan(everyone, self.affordable(examples, budget), asked=self.asked, **self.lessons)
            lessons = Lessons(plan, learner, examples, candidates, self.seed)
            self.checkpoints.follow(proposals=lessons)
            lessons.run(control, self.checkpoints)
            self.tell("proposals", lessons.told(), lessons.curve)
            if lessons.errors:
                answers = self.answers(learner, examples, candidates, control)
                asking = Asking(answers, everyone, examples, candidates)
                self.checkpoints.follow(asking=asking)
                asking.run(control, self.checkpoints)
                chosen = asking.best.z
        found = candidates.results(examples, torch.zeros_like(examples.evaluations))
        return replace(found, **beginning_at((chosen, FoundBy.NETWORK)))
