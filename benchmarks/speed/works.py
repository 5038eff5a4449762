"""The work that invsolve and its peers are given, and who they are; free of torch, which disturbs JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SEED = 300


@dataclass(frozen=True)
class Contestant:
    """One way to do a work: a function `prepare(work, arrays, **options)` of a module here, see `Prepared`."""

    module: str
    prepare: str = "prepare"
    options: Mapping[str, Any] = field(default_factory=dict)
    goal: str = ""
    against: str = "invsolve"  # whose speed its own is held against
    subset: int | None = None  # rows it is measured on unless asked for all: spread evenly over the work's


@dataclass(frozen=True)
class Work:
    """n inverse problems under a model, the method by which invsolve solves them, and all who do so."""

    model: str
    n: int
    method: str
    contestants: Mapping[str, Contestant]
    model_options: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[int, tuple[float, float]] = field(default_factory=dict)  # of components of x_true, not the priors'
    agreement: float = 1e-9  # relative, between the model's versions


@dataclass(frozen=True)
class Prepared:
    """A solve of all rows that is ready to be timed."""

    solve: Callable[[], Array]  # x (n, d)
    note: str = ""  # tolerances, batch size
    compile_seconds: float = 0.0
    cold: bool = False  # the first solve compiles or fills caches: it is made apart, and what it takes more is told
    compiling: Callable[[], float] = float  # seconds of the last solve that went into compiling it anew: left out


class Arrays(dict[str, Array]):
    """What everyone reads: targets, x0 and, of some models, identifiers, (n, ...); and a few `witness_` rows of them.

    `witness_x`, `witness_loss` and `witness_gradient` are ours, for other versions of the model to agree with.
    """

    @classmethod
    def read(cls, path: Path) -> Self:
        with np.load(path) as file:
            return cls({k: file[k] for k in file.files})

    def select(self, rows: NDArray[np.int64]) -> Self:
        """Only these rows."""
        return type(self)({k: v if k.startswith("witness") else v[rows] for k, v in self.items()})

    def check(self, loss: Any, gradient: Any, agreement: float) -> None:
        """See that a version of the model gives our losses and gradients at the witnesses."""
        for name, found in (("witness_loss", loss), ("witness_gradient", gradient)):
            ours = self[name]
            difference = np.abs(np.asarray(found) - ours).max() / np.abs(ours).max()
            if not difference <= agreement:
                raise AssertionError(f"{name} differs by {difference:.1e} of the largest, more than {agreement:.0e}")


def _gaussian() -> Work:
    contestants = {
        "invsolve": Contestant("with_invsolve", options={"dtype": "float32", "compile": "on"}, goal="≥ 60,000 fits/s"),
        "invsolve-float64": Contestant("with_invsolve", options={"compile": "on"}, goal="≥ 30,000 fits/s"),
        "invsolve-guess": Contestant("with_invsolve", options={"dtype": "float32", "compile": "on", "guess": True}),
        "invsolve-plain": Contestant("with_invsolve", options={"dtype": "float32"}),
        "scipy": Contestant("with_scipy", "prepare_lm", subset=2000, against="invsolve-float64"),
    }
    for dtype, ours in (("float32", "invsolve"), ("float64", "invsolve-float64")):
        for linear in ("qr", "cholesky"):
            options = {"dtype": dtype, "linear": linear, "tolerance": 1e-3}
            contestants[f"optimistix-{linear}-{dtype}"] = Contestant("with_jax", "prepare_lm", options, against=ours)
    return Work("gaussian-2d", 20_000, "lm", contestants, {"shape": "symmetric"}, {0: (80, 120)})


def _wave_packet() -> Work:
    contestants = {
        "invsolve": Contestant("with_invsolve"),
        "invsolve-compiled": Contestant("with_invsolve", options={"compile": "on"}),
        "scipy": Contestant("with_scipy", "prepare_bfgs", goal="≥ 20 ×"),
        "optimistix": Contestant("with_jax", "prepare_optimistix", {"tolerance": 1e-5}, goal="≥ 10 ×"),
        "optimistix-one-batch": Contestant(
            "with_jax", "prepare_optimistix", {"tolerance": 1e-5, "batches": (1024,)}, goal="≥ 10 ×"
        ),
        "jaxopt": Contestant("with_jax", "prepare_jaxopt", goal="≥ 300 ×"),
        "phiml": Contestant("with_phiml", goal="≥ 10 ×"),
    }
    return Work("wave-packet", 1024, "bfgs", contestants, {"duration": 50, "width": 5, "samples": 256})


def _billiards() -> Work:
    contestants = {
        "invsolve": Contestant("with_invsolve"),
        "invsolve-compiled": Contestant("with_invsolve", options={"compile": "on"}),
        "scipy": Contestant("with_scipy", "prepare_bfgs", goal="≥ 100 ×"),
        "optimistix": Contestant("with_jax", "prepare_optimistix", {"tolerance": 1e-3}),
    }
    return Work("billiards", 2048, "bfgs", contestants)


def _kuramoto_sivashinsky() -> Work:
    contestants = {
        "invsolve": Contestant("with_invsolve"),
        "scipy": Contestant("with_scipy", "prepare_bfgs", goal="≥ 20 ×", subset=32),
        "optimistix": Contestant("with_jax", "prepare_optimistix", {"tolerance": 1e-3}, goal="≥ 3 ×"),
    }
    return Work("kuramoto-sivashinsky", 256, "bfgs", contestants, agreement=1e-6)


WORKS = {
    "gaussian": _gaussian(),
    "wave-packet": _wave_packet(),
    "billiards": _billiards(),
    "kuramoto-sivashinsky": _kuramoto_sivashinsky(),
}
