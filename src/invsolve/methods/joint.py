"""What methods share that learn from all examples at once: the fit learns, the ranges polish what it found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from invsolve.checkpoints import Checkpoints
from invsolve.control import Control
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.examples import Examples
from invsolve.methods.base import Budget, Method
from invsolve.methods.curve import Curve
from invsolve.methods.search import Starts, search_in_parts
from invsolve.options import Options as BaseOptions
from invsolve.problem import Problem
from invsolve.sampling import Sampler


class JointOptions(BaseOptions):
    """What joint methods share: how their solutions are refined, unless `refine` is none."""

    agree: int = Field(
        2, ge=1, description="an example is done once so many local solves, from different points, agree on the best"
    )
    restarts: int = Field(
        64, ge=0, le=2**12, description="further starts, by priors or bounds, of an example of which they do not agree"
    )


REFINEMENT = 30  # evaluations per example that a refinement may need


class JointMethod(Method):
    """Subclasses define `train`: what it finds for row i is where the local solves of example i begin."""

    refines_with = "bfgs"
    columns = ("found_by", "starts", "minima")
    trains_in_crews: ClassVar[bool] = False
    """Whether several processes may call `train` together, each with its share of the examples."""
    options: JointOptions

    def __init__(self, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> None:
        super().__init__(options, seed=seed)
        self.fitted: RowResults | None = None
        self.first_fitted = 0
        """The example that the first row of `fitted` is of: elsewhere than where it was made there is but a part."""
        self.checkpoints = Checkpoints()
        """Of the training under way: `train` has it follow what it works with, and asks it between steps."""
        self.chosen: dict[str, dict[str, Any]] = {}
        """What was chosen in training, and why it ended, by the name of the stage: JSON values, to be told."""
        self.training_curve: dict[str, dict[str, list[Any]]] = {}
        """How the training went, by the name of the stage, see `Curve.told`; without stages that there were none of."""

    def tell(self, stage: str, chosen: dict[str, Any], curve: Curve) -> None:
        """Keep what was chosen in a stage of the training, and how that went."""
        self.chosen[stage] = chosen
        if (told := curve.told())["evaluations"]:
            self.training_curve[stage] = told

    @abstractmethod
    def train(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        """The best z of every row (n, d) that was evaluated, the start included, `found_by` which stage.

        `candidates` (n, c, d) and their `origins` are where local solves begin, see `beginning_at`.
        """

    def affordable(self, examples: Examples, budget: Budget) -> int:
        """Evaluations of each example that `train` may make, for a refinement is to have its share."""
        left = budget.left(examples.evaluations)
        return left if budget.refiner is None else left - min(REFINEMENT, left // 2)

    def fit(
        self,
        examples: Examples,
        initial_loss: Tensor,
        budget: Budget,
        control: Control,
        checkpoints: Checkpoints | None = None,
    ) -> RowResults:
        """Learn from all n examples at once, whose losses (n,) at x0 are known, before any range is solved."""
        self.checkpoints = checkpoints or Checkpoints()
        self.fitted = replace(self.train(examples, initial_loss, budget, control), first=initial_loss)
        self.checkpoints = Checkpoints()  # what it followed is free
        return self.fitted

    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        """What was learned of the problem's rows and, where it is to be refined, the best that local solves make of it.

        They begin at the candidates, then at `restarts` further points.
        """
        assert self.fitted is not None, "fit comes first"
        first = problem.start - self.first_fitted
        found = self.fitted.slice(first, first + problem.n)
        found.starts = found.minima = torch.zeros_like(found.iterations)
        if budget.refiner is None or control.stopped:
            return replace(found, candidates=None, origins=None, first=None)

        def starts_of(part: Problem, start: int) -> Starts:
            stop = start + part.n
            return self._starts(part, z0[start:stop], found.slice(start, stop))

        assert found.candidates is not None
        most = found.candidates.shape[1] + self.options.restarts
        ended = search_in_parts(budget.refiner, problem, starts_of, most, budget, control, budget.refiner.name)
        return _better(found, ended)

    def _starts(self, problem: Problem, z0: Tensor, found: RowResults) -> Starts:
        assert found.candidates is not None
        assert found.origins is not None
        points, origins = found.candidates, found.origins
        if self.options.restarts:
            more = Sampler(problem, self.seed).spread(problem.examples, self.options.restarts, z0)
            points = torch.cat([points, more], dim=1)
            origins = torch.cat([origins, torch.full_like(more[..., 0], int(FoundBy.MULTISTART)).to(origins)], dim=1)
        # What a local solve makes of x0 is told as such, however x0 came to be among the points.
        is_x0 = (points == z0[:, None]).all(2)
        agree = self.options.agree
        return Starts(
            points,
            origins.masked_fill(is_x0, int(FoundBy.LOCAL)),
            agree,
            agree,
            found.first,
            seen=found,
            peers=True,
            race=True,
        )


def beginning_at(*points: tuple[Tensor, Tensor | FoundBy]) -> dict[str, Tensor]:
    """Points z (n, d) where local solves begin, in this order, each with its kind (n,): fields of `RowResults`."""
    kinds = [k if isinstance(k, Tensor) else torch.full_like(z[:, 0], int(k), dtype=torch.int8) for z, k in points]
    return {"candidates": torch.stack([z for z, _ in points], dim=1), "origins": torch.stack(kinds, dim=1)}


def _better(found: RowResults, ended: RowResults) -> RowResults:
    """Of each row the better of what was found and where the local solves from there ended."""
    better = ended.best <= found.best
    ran = ended.status != int(Status.NOT_RUN)
    assert found.found_by is not None
    assert ended.found_by is not None
    return RowResults(
        z=torch.where(better[:, None], ended.z, found.z),
        status=torch.where(ran, ended.status, found.status),
        iterations=found.iterations + ended.iterations,
        best=torch.minimum(ended.best, found.best),
        found_by=torch.where(better, ended.found_by, found.found_by),
        starts=ended.starts,
        minima=ended.minima,
    )
