"""Every StRD set as an inverse problem: data, forward model, two starts, and the certified optimum."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invsolve.data.dataset import Dataset
from invsolve.models.base import Identifiers
from tests.strd.models import MODELS, Model

_FOLDER = Path(__file__).parent / "data"
NAMES = tuple(sorted(MODELS))

LOSS_TOLERANCE = 1e-6
"""How near to the certified residual sum of squares a solution must be, relative to it."""
DIGITS = 4
"""To how many digits (logarithm of the relative error) each parameter must agree."""
NOISE = 1e-11
"""Residuals below this part of the largest target count as none.

The sum of squares certified for Lanczos1, 1.4e-25, is that of data written with 14 digits: in double precision it is
below what the rounding of x to the 11 digits certified makes of it, 1e-21. None of the other sets has so small
residuals: for them this allows less than a hundredth of what LOSS_TOLERANCE does.
"""


@dataclass(frozen=True, eq=False)
class Problem:
    """One set: m observations of a model with d parameters."""

    name: str
    difficulty: str  # "Lower", "Average" or "Higher", as NIST has it
    model: Model
    predictors: np.ndarray  # (m,), or (m, 2) for Nelson
    targets: np.ndarray  # (m,), for Nelson the logarithm of the response
    starts: np.ndarray  # (2, d), the first is the farther one
    certified: np.ndarray  # (d,)
    certified_rss: float

    @property
    def function(self) -> Callable[[Tensor, Identifiers], Tensor]:
        """F(x, identifiers) -> y, x (b, d) to y (b, m), for `invsolve.solve`; the identifiers are not used."""

        def forward(x: Tensor, identifiers: Identifiers = None) -> Tensor:
            return self.model.formula(x.split(1, dim=1), torch.from_numpy(self.predictors).to(x))

        return forward

    @property
    def floor(self) -> float:
        """A sum of squares that counts as none, see `NOISE`."""
        return float(len(self.targets) * (NOISE * np.abs(self.targets).max()) ** 2)

    def dataset(self) -> Dataset:
        """Two examples: the same targets from the two starts."""
        return Dataset(targets=np.tile(self.targets, (2, 1)), x0=self.starts)

    def rss(self, x: np.ndarray) -> float:
        """The residual sum of squares at x (d,), twice the loss; NaN where the model fails."""
        y = self.function(torch.from_numpy(np.asarray(x, dtype=np.float64))[None], None)[0].numpy()
        return float(np.square(y - self.targets).sum())

    def digits(self, x: np.ndarray) -> float:
        """To how many digits the worst component of x (d,) agrees with the certified values, at most 11.

        Solutions that differ from the certified one by a symmetry of the model are as good.
        """
        with np.errstate(invalid="ignore"):
            errors = [np.max(np.abs((x - same) / same)) for same in self._equivalents()]
        return float(-np.log10(np.clip(np.nan_to_num(min(errors), nan=np.inf), 1e-11, None)))

    def reached(self, x: np.ndarray) -> bool:
        """Whether x (d,) is the certified optimum: in its sum of squares and in every component."""
        with np.errstate(invalid="ignore", over="ignore"):
            near = abs(self.rss(x) - self.certified_rss) <= LOSS_TOLERANCE * self.certified_rss + self.floor
        return bool(near) and self.digits(x) >= DIGITS

    def _equivalents(self) -> list[np.ndarray]:
        """The certified x and what the symmetries of the model make of it, each (d,)."""
        found = []
        places = [i for term in self.model.terms for i in term]
        for order in itertools.permutations(self.model.terms):
            x = self.certified.copy()
            x[places] = self.certified[[i for term in order for i in term]]
            for signs in itertools.product((1, -1), repeat=len(self.model.flips)):
                same = x.copy()
                for components, sign in zip(self.model.flips, signs, strict=True):
                    same[list(components)] *= sign
                found.append(same)
        return found


@functools.cache
def load(name: str) -> Problem:
    """The set of this name, one of `NAMES`, read from NIST's file."""
    lines = (_FOLDER / f"{name}.dat").read_text(encoding="ascii").splitlines()
    text = "\n".join(lines)
    rows = re.findall(r"^\s*b\d+ =(.*)$", text, re.MULTILINE)
    # Each row: start 1, start 2, certified value, standard deviation.
    table = np.array([[float(word) for word in row.split()] for row in rows])
    first, last = map(int, _found(r"Data +\(lines +(\d+) to +(\d+)\)", text))
    data = np.array([[float(word) for word in line.split()] for line in lines[first - 1 : last]])
    (count,) = _found(r"Number of Observations: +(\d+)", text)
    assert len(data) == int(count)
    response, predictors = data[:, 0], data[:, 1:]
    return Problem(
        name=name,
        difficulty=_found(r"(\w+) Level of Difficulty", text)[0],
        model=MODELS[name],
        predictors=predictors if predictors.shape[1] > 1 else predictors[:, 0],
        targets=np.log(response) if name == "Nelson" else response,
        starts=table[:, :2].T.copy(),
        certified=table[:, 2].copy(),
        certified_rss=float(_found(r"Residual Sum of Squares: +(\S+)", text)[0]),
    )


def load_all() -> list[Problem]:
    """All 27 sets."""
    return [load(name) for name in NAMES]


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    assert match is not None, pattern
    return match.groups()
