"""The neural adjoint: a network learns F, and local solves descend through it instead of through F.

Ren, Padilla and Malof 2020, "Benchmarking deep inverse models over time, and the neural-adjoint method",
arXiv 2009.12919, section 3; with BFGS for Adam, and bounds for their boundary loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from invsolve.checkpoints import State
from invsolve.control import Control, Progress
from invsolve.examples import Examples, Tour, Window
from invsolve.methods.answers import AnswerMethod, AnswerOptions
from invsolve.methods.base import Budget
from invsolve.methods.bfgs import Bfgs
from invsolve.methods.candidates import Candidates
from invsolve.methods.solver_network import ArchitectureOptions
from invsolve.methods.surrogate import Surrogate
from invsolve.sampling import Sampler

_TOGETHER = 4096  # descents


class NeuralAdjoint(AnswerMethod[Surrogate]):
    """For comparison: a network learns F, BFGS descends through it from several points, and its best end is refined."""

    name = "neural-adjoint"
    lessons: ClassVar[dict[str, Any]] = {
        "noise": 0.0,  # S is to be exact, not smooth
        "replay": 6.0,
        "minibatch": 64,
        "good": 1e-6,
        "finish": 500,  # of few pairs, more steps: they cost less than what they save of F
        "forgotten": math.inf,  # the error of a pass tells how wild F is where its points fell
    }

    class Options(AnswerOptions, ArchitectureOptions):
        width: int = Field(256, ge=1, description="units of each fully connected layer")
        depth: int = Field(3, ge=0, description="number of fully connected layers")
        starts: int = Field(
            32, ge=1, le=2**12, description="points, by priors or bounds, from which BFGS descends through the network"
        )
        iterations: int = Field(100, ge=1, description="BFGS iterations through the network at most")
        asked: int = Field(
            4,
            ge=1,
            description="ends of these descents, the best by the network's account, that F is evaluated at to choose",
        )

    options: Options

    def __init__(self, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> None:
        super().__init__(options, seed=seed)
        self.asked = min(self.options.asked, self.options.starts)
        self.descent = Bfgs({"max_iterations": self.options.iterations})

    def refusal(self, d: int, dtype: torch.dtype) -> str | None:
        if self.descent.refusal(d, dtype) is None:
            return None
        return f"method '{self.name}' descends by 'bfgs', which cannot take d = {d} unknowns; use --method lbfgs"

    def learner(self, examples: Examples) -> Surrogate:
        return Surrogate(self.options, examples, self.seed)

    def answers(self, learned: Surrogate, examples: Examples, candidates: Candidates, control: Control) -> Tensor:
        learned.network.requires_grad_(False)
        z0 = examples.coordinates.to_solver(examples.x0)
        best = z0[:, None].repeat(1, self.asked, 1)
        tour = Tour(examples, max(1, _TOGETHER // self.options.starts))
        self.checkpoints.follow(descents=Descents(best, tour))
        for window, rows in tour:
            which = window.examples[rows]

            def seen(p: Progress, done: float = float(which[0]) / examples.n) -> Progress:
                return candidates.progress("descent", examples, done)

            ends = self._descend(learned, window, rows, z0[which], control.seen_as(seen))
            if self.checkpoints.stops(control):  # before what a stop cut off counts
                break
            best[which] = ends
            del window  # before the next one is loaded
        return best

    def _descend(self, learned: Surrogate, window: Window, rows: Tensor, z0: Tensor, control: Control) -> Tensor:
        """The best ends (b, asked, d) of the descents for the rows (b,) of a window, by the network's own account."""
        b, starts = len(rows), self.options.starts
        problem = learned.in_place_of_f(window.problem, rows.repeat_interleave(starts))
        points = Sampler(problem, self.seed).spread(window.examples[rows].cpu(), starts, z0)
        ends = self.descent.solve(problem, points.flatten(0, 1), Budget(slots=_TOGETHER), control)
        best = ends.best.reshape(b, starts).argsort(dim=1)[:, : self.asked]
        return ends.z.reshape(b, starts, -1)[torch.arange(b, device=rows.device)[:, None], best]


@dataclass(frozen=True)
class Descents:
    """How far the descents are: their ends (n, asked, d), where there are some already."""

    best: Tensor
    tour: Tour

    def state(self) -> State:
        return {"best": self.best, "tour": self.tour.state()}

    def restore(self, state: State) -> None:
        self.best.copy_(state["best"])
        self.tour.restore(state["tour"])
