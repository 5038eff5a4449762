"""The paper's experiments as far as our models have them, and who takes part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Experiment:
    """A model, how many of its examples are solved together, and what that may cost."""

    model: str
    sizes: tuple[int, ...]  # n, up to all examples that there are
    cover: int  # examples that are solved of small n, by several groups of n, each on its own
    budget: int | None = None  # max_evaluations, of every method
    dtype: str = "float64"

    @property
    def examples(self) -> int:
        """Examples of a dataset: smaller n take the first ones."""
        return max(self.sizes)


@dataclass(frozen=True)
class Contestant:
    """A method as it takes part."""

    label: str
    method: str
    options: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """What the command line takes for it."""
        return " ".join([f"--method {self.method}", *(f"-O {k}={v}" for k, v in self.options.items())])


EXPERIMENTS = {
    e.model: e
    for e in (
        Experiment("wave-packet", (2, 4, 8, 16, 32, 64, 128, 256), cover=8),
        Experiment("billiards", (2, 4, 8, 16, 32, 64, 128, 256), cover=8),
        Experiment("kuramoto-sivashinsky", (2, 4, 8, 16, 32, 64, 128), cover=8, budget=500),
        Experiment("navier-stokes", (2, 4, 8, 16, 32), cover=4, budget=200, dtype="float32"),
    )
}
BASELINE = "bfgs"
JOINT = "jpo-on-loss"
CONTESTANTS = {
    "bfgs": Contestant("bfgs", "bfgs"),
    "gd": Contestant("gd", "gd"),
    # As in the paper: nothing but training on the loss, and one local solve of each example behind it.
    JOINT: Contestant("jpo on the loss alone", "jpo", {"proposals": "none", "restarts": 0, "agree": 1}),
    "jpo": Contestant("jpo", "jpo"),
}
