"""Points of each example at which F was evaluated: the best that was seen, and the answers of a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.checkpoints import Checkpoints, State
from invsolve.control import Control, Progress
from invsolve.crew import ALONE, Crew
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.examples import Examples, Tour, Window
from invsolve.problem import Batch, Problem

TOGETHER = 1024  # rows that are simulated in one call


@dataclass
class Candidates:
    """The best that was seen of each example: where (n, d), and its loss (n,)."""

    z: Tensor
    loss: Tensor
    origin: Tensor  # (n,) int8, see FoundBy
    crew: Crew = ALONE  # each of whom sees its own examples, until what they saw is merged

    @classmethod
    def at(cls, z0: Tensor, loss: Tensor, crew: Crew = ALONE) -> Candidates:
        """The starts z0 (n, d) with their losses (n,)."""
        return cls(z0.clone(), loss.clone(), torch.full_like(loss, int(FoundBy.START), dtype=torch.int8), crew)

    def merge(self) -> None:
        """Let all members know the best that one of them saw."""
        crew = self.crew
        if crew.size == 1:
            return
        least = crew.least_(self.loss.clone())
        whose = crew.least_(torch.where(self.loss == least, crew.rank, crew.size))
        mine = whose == crew.rank
        self.loss.copy_(least)
        for values in (self.z, self.origin):
            values[~mine] = 0
            crew.sum_(values)

    def state(self) -> State:
        self.merge()
        return {"z": self.z, "loss": self.loss, "origin": self.origin}

    def restore(self, state: State) -> None:
        for name in ("z", "loss", "origin"):
            getattr(self, name).copy_(state[name])

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
        self.merge()
        examples.merge()
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


class Asking:
    """Evaluates the answers (n, k, d) of a network to the examples of a mask (n,), and keeps what is better.

    `best` is the best answer of each example, its start where there is none at which F can be evaluated.
    """

    def __init__(self, answers: Tensor, which: Tensor, examples: Examples, candidates: Candidates) -> None:
        self.answers, self.candidates = answers, candidates
        z0 = examples.coordinates.to_solver(examples.x0)
        self.best = Candidates.at(z0, torch.full_like(candidates.loss, torch.inf), examples.crew)
        self._tour = Tour(examples, TOGETHER, which)

    def run(self, control: Control, checkpoints: Checkpoints) -> bool:
        """Ask all that were not asked yet; whether that was done."""
        left = False
        for window, rows in self._tour:
            left = checkpoints.leaves(control)
            if left:
                break
            for z in self.answers[window.examples[rows]].unbind(1):
                loss, _ = simulate(window.problem, rows, z)
                self.best.take(window, rows, z, loss, FoundBy.NETWORK)
                self.candidates.take(window, rows, z, loss, FoundBy.NETWORK)
            del window  # before the next one is loaded
        self.best.merge()
        self.candidates.merge()
        return not checkpoints.agree(left)

    def state(self) -> State:
        return {"best": self.best.state(), "tour": self._tour.state()}

    def restore(self, state: State) -> None:
        self.best.restore(state["best"])
        self._tour.restore(state["tour"])


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
