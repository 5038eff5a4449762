"""One run: one method on groups of n examples, or the alignment of joint steps; and what came of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from benchmarks import kept
from benchmarks.kept import DATA_SEED
from benchmarks.paper.experiments import CONTESTANTS, EXPERIMENTS

import invsolve

ALIGNMENT = "alignment"  # in place of a contestant


@dataclass(frozen=True)
class Case:
    """A contestant on the first groups of n examples of a dataset."""

    model: str  # a key of EXPERIMENTS
    n: int
    who: str  # a key of CONTESTANTS, or ALIGNMENT
    seed: int
    groups: int = 1
    shown: bool = False  # whether its solutions are kept for pictures

    @property
    def key(self) -> str:
        """Everything that tells it from other cases, also after an experiment has changed."""
        e = EXPERIMENTS[self.model]
        who = self.who
        if who in CONTESTANTS:
            c = CONTESTANTS[who]
            who = ",".join([c.method, *(f"{k}={v}" for k, v in c.options.items())])
        parts = [self.model, f"of{e.examples}", f"{self.groups}x{self.n}", who, f"max{e.budget}", e.dtype]
        return ".".join([*parts, f"seed{self.seed}", *(["shown"] if self.shown else [])])

    def to_json(self) -> str:
        """For the command line of a process."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        """The reverse of `to_json`."""
        return cls(**kept.as_fields(text))


@dataclass(frozen=True)
class Result(kept.Result):
    """What came of a case; of all its groups, one after the other, so that the examples are the first of the data."""

    solved: list[bool] = field(default_factory=list, repr=False)  # (n,) by the contract's rule
    evaluations: float = math.nan  # per example, mean, as are the gradients
    gradients: float = math.nan
    seconds: float = math.nan
    alignment: dict[str, Any] | None = None  # fields of `diagnosis.result.Alignment`

    def told(self) -> str:
        if self.outcome != "done":
            return super().told()
        if self.alignment is not None:
            return f"cosine {self.alignment['joint'][-1]:.2f}, {self.seconds:.1f} s"
        return f"{np.mean(self.solved):.3f} solved, {self.evaluations:.0f} evaluations, {self.seconds:.1f} s"


Store = kept.Store[Case, Result]


def dataset(model: str, seed: int) -> invsolve.Dataset:
    """All examples of an experiment."""
    return invsolve.generate(model, EXPERIMENTS[model].examples, seed=DATA_SEED + seed)


def part(data: invsolve.Dataset, start: int, stop: int) -> invsolve.Dataset:
    """Some of its examples as a dataset of their own."""
    rows = data.rows(start, stop)
    assert data.x_true is not None
    return invsolve.Dataset(
        rows.targets, rows.identifiers, x_true=np.asarray(data.x_true[start:stop]), model=data.model
    )
