"""Which cases there are, and which of them a figure is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.paper.experiments import CONTESTANTS, EXPERIMENTS
from benchmarks.paper.runs import ALIGNMENT, Case

from invsolve.methods.joint import JointMethod
from invsolve.registry import method_class


@dataclass(frozen=True)
class Plan:
    """Everything that was asked for."""

    models: tuple[str, ...]
    seeds: tuple[int, ...]
    sizes: tuple[int, ...] | None = None  # by default those of each experiment

    def sizes_of(self, model: str) -> Sequence[int]:
        """Numbers of examples, those that the experiment has."""
        own = EXPERIMENTS[model].sizes
        return own if self.sizes is None else [n for n in own if n in self.sizes]

    def largest(self, model: str) -> int:
        """The most examples that are solved together."""
        return max(self.sizes_of(model))

    def groups(self, model: str, n: int) -> int:
        """Groups of n examples that are solved, each on its own: of few examples a share says little."""
        return max(1, min(EXPERIMENTS[model].cover, self.largest(model)) // n)

    def case(self, model: str, n: int, who: str, seed: int) -> Case:
        """The case that tells what a contestant does with n examples solved together.

        One that solves each example on its own does the same with any n, and is run once on all of them.
        """
        most, groups = self.largest(model), self.groups(model, n)
        if not issubclass(method_class(CONTESTANTS[who].method), JointMethod):
            n, groups = most, 1
        return Case(model, n, who, seed, groups, shown=n == most and seed == self.seeds[0])

    def alignment(self, model: str) -> Case:
        """The case that tells where joint steps point."""
        return Case(model, self.largest(model), ALIGNMENT, self.seeds[0])

    def cases(self) -> Iterator[Case]:
        """All of them, each once: all models by one seed before more seeds, and cheap models before dear ones."""
        every = (
            self.case(model, n, who, seed)
            for seed in self.seeds
            for model in self.models
            for n in self.sizes_of(model)
            for who in CONTESTANTS
        )
        yield from map(self.alignment, self.models)
        yield from dict.fromkeys(every)
