"""The runs of a comparison: every method with every seed, on all examples or the first of them, within budgets."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from invsolve.analysis.comparison import Comparison, Contender, Source, compared
from invsolve.analysis.study import Axis, Study
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.errors import ModelError, OptionError
from invsolve.run import Run
from invsolve.settings import LEAST_EVALUATIONS, MANY, Settings

LEAST_EXAMPLES = 2  # of a subset: one example alone has no interval
_ALL = "all"


class Contest:
    """Methods that are to solve the same examples from the same starts; all are checked before the first one computes.

    Args:
        dataset, model, model_options: as for `Run`.
        entries: the settings of each method by its name, with the first seed.
        baseline: the name of the method that the others are held against.
        seeds: what a method that uses a seed runs with, in turn.
        axis: what the comparison is repeated over, if it is.
        points: where on the axis, ascending: the first so many examples, or evaluations at most.

    Raises:
        InvsolveError: as for `Run`.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: Any,
        model_options: dict[str, Any],
        entries: Mapping[str, Settings],
        baseline: str,
        seeds: tuple[int, ...],
        axis: Axis | None = None,
        points: Sequence[int] = (),
    ) -> None:
        self.dataset, self.model, self.model_options, self.entries = dataset, model, model_options, entries
        self.baseline, self.seeds, self.axis = baseline, seeds, axis
        limit = entries[baseline].max_evaluations
        self.whole = len(dataset) if axis == "examples" else limit
        self.points = tuple(points)
        self.runs = {name: self._runs_of(dataset, settings) for name, settings in entries.items()}
        again = [len(runs) for runs in self.runs.values() if axis == "budgets" or runs[0].is_joint]
        elsewhere = sum(at != self.whole for at in self.points)
        self._begun, self._count = 0, sum(map(len, self.runs.values())) + elsewhere * sum(again)

    def hold(self, control: Control) -> Comparison:
        """Solve all examples by all methods, and then at each point of the axis what is not known by that already."""
        first = self.runs[self.baseline][0]
        source = Source(self.dataset, first.model, first.loss_true(control))
        contenders = {name: self._solved(name, runs, "", control) for name, runs in self.runs.items()}
        comparison = compared(contenders, self.baseline, self.seeds, source)
        return comparison if self.axis is None else replace(comparison, study=self._study(comparison, control))

    def _study(self, whole: Comparison, control: Control) -> Study:
        """A point is done if all of its runs were done before an interruption."""
        assert self.axis is not None
        done: dict[int, Comparison] = {}
        ahead = ends_first(self.points)
        while ahead and not control.interrupted:
            at = ahead.pop(0)
            if at == self.whole:
                point = whole
            elif self.axis == "examples":
                point = self._of_first(at, whole, control)
            else:
                point = self._within(at, whole, control)
            if not control.interrupted:
                done[at] = point
        return Study(
            axis=self.axis,
            points={at: done[at] for at in self.points if at in done},
            not_run=tuple(at for at in self.points if at not in done),
            whole=self.whole,
        )

    def _of_first(self, n: int, whole: Comparison, control: Control) -> Comparison:
        """The first n examples: joint methods are run with them alone, what solves by rows has solved them already."""
        some = self.dataset.first(n, self.runs[self.baseline][0].x_shape)
        contenders = {}
        for name, found in whole.contenders.items():
            # Of examples none of which can be evaluated nothing is learned, and a run of them alone would be refused.
            if found.shared and (found.runs[0].status[:n] != Status.NONFINITE).any():
                runs = self._runs_of(some, self.entries[name])
                contenders[name] = self._solved(name, runs, f" n={n}", control)
            else:
                contenders[name] = replace(found, runs=tuple(run.first(n) for run in found.runs))
        truth = None if whole.loss_true is None else whole.loss_true[:n]
        source = replace(whole.source, dataset=some, loss_true=truth)
        return compared(contenders, self.baseline, self.seeds, source)

    def _within(self, limit: int, whole: Comparison, control: Control) -> Comparison:
        """All methods within another budget."""
        contenders = {}
        for name, settings in self.entries.items():
            runs = self._runs_of(self.dataset, replace(settings, max_evaluations=limit))
            contenders[name] = self._solved(name, runs, f" ≤{limit}", control)
        return compared(contenders, self.baseline, self.seeds, whole.source)

    def _runs_of(self, dataset: Dataset, settings: Settings) -> list[Run]:
        """One method's runs: one of each seed, or one for all where it uses none."""
        first = Run(dataset, self.model, self.model_options, settings)
        others = self.seeds[1:] if first.uses_seed else ()
        return [first, *(Run(dataset, self.model, self.model_options, replace(settings, seed=s)) for s in others)]

    def _solved(self, name: str, runs: Sequence[Run], where: str, control: Control) -> Contender:
        solutions = []
        for run in runs:
            self._begun += 1
            seed = f" seed {run.settings.seed}" if len(runs) > 1 else ""
            control.begin_run(f"{self._begun}/{self._count} {name}{where}{seed}")
            solutions.append(run.solve(None, False, False, control).load())
            if run.hung:
                raise ModelError(run.hung)
        return Contender(tuple(solutions), runs[0].is_joint, runs[0].uses_seed)


def ends_first(points: Sequence[int]) -> list[int]:
    """Ascending points in the order that tells most first: the ends, then what lies in the middle of what is left."""
    found, spans = [points[0], points[-1]], [(0, len(points) - 1)]
    for low, high in spans:  # which grows meanwhile
        if high - low > 1:
            middle = (low + high) // 2
            found.append(points[middle])
            spans += [(low, middle), (middle, high)]
    return list(dict.fromkeys(found))


def read_points(
    examples: Sequence[int | str] | None, budgets: Sequence[int | str] | None, n: int, limit: int | None
) -> tuple[Axis | None, tuple[int, ...]]:
    """What a comparison of n examples, within a limit of evaluations or none, is to be repeated over, and where.

    Args:
        examples: sizes of subsets, as numbers or their text; "all" is n.
        budgets: evaluations per example, likewise.

    Raises:
        OptionError: both are given; or some are no numbers, do not ascend, or are out of range.
    """
    if examples is None and budgets is None:
        return None, ()
    if examples is not None and budgets is not None:
        raise OptionError(
            "examples and budgets are two questions with an answer each; give one of them, and a limit for the former "
            "by max_evaluations"
        )
    if examples is not None:
        given = [n if value == _ALL else value for value in examples]
        return "examples", _ascending("examples", given, LEAST_EXAMPLES, n, f"the {n} of the dataset")
    most = MANY if limit is None else limit
    return "budgets", _ascending("budgets", budgets or (), LEAST_EVALUATIONS, most,
        f"{MANY}" if limit is None else f"the {limit} of max_evaluations")  # fmt: skip


def _ascending(name: str, given: Sequence[int | str], least: int, most: int, most_words: str) -> tuple[int, ...]:
    found = [_whole_number(name, value) for value in given]
    told = ", ".join(map(str, found)) or "none"
    if not found or any(b <= a for a, b in itertools.pairwise(found)):
        raise OptionError(f"{name} must be numbers that ascend, such as 8,32,128; found {told}")
    outside = [value for value in found if not least <= value <= most]
    if outside:
        raise OptionError(f"{name} must be from {least} to {most_words}, found {outside[0]}")
    return tuple(found)


def _whole_number(name: str, value: int | str) -> int:
    try:
        return int(value) if isinstance(value, str) else operator.index(value)
    except (ValueError, TypeError):
        known = " or all" if name == "examples" else ""
        raise OptionError(f"{name} must be whole numbers such as 8,32,128{known}, found '{value}'") from None
