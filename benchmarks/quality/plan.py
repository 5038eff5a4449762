"""Which cases there are, in the order in which they can be known: some follow from what others took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.quality.problems import PROBLEMS, RIVAL_EVALUATIONS
from benchmarks.quality.runs import Case, Result, Store

BUDGETS = (25, 50, 100, 200, 400, 800)
_MOST_STARTS = 2**16  # that multistart takes


@dataclass(frozen=True)
class Plan:
    """Everything that was asked for."""

    problems: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: tuple[int, ...] = BUDGETS
    sizes: tuple[int, ...] | None = None  # by default those of each problem

    def sizes_of(self, problem: str) -> Sequence[int]:
        """Numbers of examples; none above the largest that the problem is solved for."""
        own = PROBLEMS[problem].sizes
        return own if self.sizes is None else [n for n in self.sizes if n <= max(own)]

    def unlimited(self) -> list[Case]:
        """All methods to their own end; small batches of all problems before large ones."""
        cases = [
            Case(problem, n, method, seed)
            for problem in self.problems
            for n in self.sizes_of(problem)
            for seed in self.seeds
            for method in self.methods
        ]
        return sorted(cases, key=lambda case: case.n)

    def limited(self, store: Store) -> list[Case]:
        """The same with every budget that some example would feel."""
        return [
            replace(case, budget=budget)
            for case in self.unlimited()
            for budget in self.budgets
            if (result := store.done(case)) is not None and _is_felt(budget, result)
        ]

    def rivals(self, store: Store) -> list[Case]:
        """Multistart with several times the evaluations of methods that shall solve no less."""
        return [
            rival
            for case in self.unlimited()
            for goal in PROBLEMS[case.problem].goals
            if goal.beats_multistart and (goal.method, goal.n) == (case.method, case.n)
            if (rival := rival_of(case, store)) is not None
        ]


def _is_felt(budget: int, result: Result) -> bool:
    return budget < result.most_evaluations


def under_budget(case: Case, store: Store) -> Result | None:
    """The result of a case with a budget, be it that the unlimited one stayed below it."""
    unlimited = store.done(case.unlimited)
    if case.budget is None or (unlimited is not None and not _is_felt(case.budget, unlimited)):
        return unlimited
    return store.done(case)


def rival_of(case: Case, store: Store) -> Case | None:
    """Multistart from so many starts that it takes `RIVAL_EVALUATIONS` times the evaluations, agreed or not.

    A start is taken to cost what it does in multistart at its defaults. A budget instead would be shared unevenly: the
    last starts would be cut off.
    """
    result, measure = store.done(case), store.done(replace(case, method="multistart"))
    if result is None or measure is None or math.isnan(measure.starts):
        return None
    starts = round(RIVAL_EVALUATIONS * result.evaluations * measure.starts / measure.evaluations)
    starts = min(max(starts, 1), _MOST_STARTS)
    return replace(case, method="multistart", options=(("starts", starts), ("agree", starts)))


def stages(plan: Plan, store: Store) -> Iterator[tuple[str, list[Case]]]:
    """Name and cases of each stage; those of one are known once the one before has been run."""
    yield "unlimited", plan.unlimited()
    yield "rivals", plan.rivals(store)
    yield "budgets", plan.limited(store)
