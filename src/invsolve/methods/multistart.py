"""Multi-start: a local method from many points for each example, until enough of them agree on the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from invsolve.control import Control
from invsolve.data.solution import FoundBy
from invsolve.engine import RowResults
from invsolve.methods.base import Budget, Method, RowMethod
from invsolve.methods.bfgs import Bfgs
from invsolve.methods.gd import Gd
from invsolve.methods.lbfgs import Lbfgs
from invsolve.methods.lm import Lm
from invsolve.methods.search import Starts, search_in_parts
from invsolve.options import Options as BaseOptions
from invsolve.problem import Problem
from invsolve.sampling import Sampler

LOCAL: dict[str, type[RowMethod]] = {kind.name: kind for kind in (Bfgs, Lbfgs, Lm, Gd)}
_FIRST = 8  # starts of an example before it is asked whether they agree


class Multistart(Method):
    """A local method on each example from many starts: by the priors or bounds of the parameters, or around x0."""

    name = "multistart"
    columns = ("starts", "minima", "found_by")

    class Options(BaseOptions):
        starts: int = Field(64, ge=1, le=2**12, description="starts of an example at most, its own x0 the first")
        agree: int = Field(
            8, ge=1, description="an example is done once so many of its starts, 8 at least, ended in its best minimum"
        )
        local: Literal["bfgs", "lbfgs", "lm", "gd"] = Field("bfgs", description="the method used from each start")
        around: Literal["auto", "x0"] = Field(
            "auto",
            description="auto starts where priors, else bounds, say that x may be, else around x0; x0 always there",
        )
        spread: float = Field(1.0, gt=0, description="standard deviation of starts around x0, in typical changes")

    options: Options

    def __init__(self, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> None:
        super().__init__(options, seed=seed)
        self.local = LOCAL[self.options.local]()

    @property
    def row_method(self) -> RowMethod:
        return self.local

    @property
    def rows_each(self) -> int:
        return min(_FIRST, self.options.starts)

    def refusal(self, d: int, dtype: torch.dtype) -> str | None:
        if self.local.refusal(d, dtype) is None:
            return None
        return f"method 'multistart' uses '{self.local.name}', which cannot take d = {d} unknowns; add -O local=lbfgs"

    def solve(self, problem: Problem, z0: Tensor, budget: Budget, control: Control) -> RowResults:
        def starts_of(part: Problem, start: int) -> Starts:
            return self._starts(part, z0[start : start + part.n])

        return search_in_parts(self.local, problem, starts_of, self.options.starts, budget, control, self.name)

    def _starts(self, problem: Problem, z0: Tensor) -> Starts:
        o = self.options
        sampler = Sampler(problem, self.seed, around_start=o.around == "x0", width=o.spread)
        points = sampler.spread(problem.examples, o.starts, z0)
        points[:, 0] = z0
        origins = torch.full(points.shape[:2], int(FoundBy.MULTISTART), dtype=torch.int8, device=z0.device)
        origins[:, 0] = int(FoundBy.LOCAL)
        return Starts(points, origins, o.agree, _FIRST)
