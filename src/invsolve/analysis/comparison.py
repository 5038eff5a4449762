"""Solutions of the same examples by several methods, from one seed or several, held against one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from invsolve.analysis.compare import OUTCOMES, compare_losses, pair_losses
from invsolve.analysis.profiles import curves, first_solved, mark_by_best, profiles, solved_enough
from invsolve.analysis.rank_test import holm
from invsolve.analysis.summary import finite_or_none, is_solved, mark_by_truth, quantiles, summarize
from invsolve.data.dataset import Dataset
from invsolve.data.solution import OPTIONAL, Solution, Status
from invsolve.errors import DataError
from invsolve.models.base import ForwardModel

if TYPE_CHECKING:
    from invsolve.analysis.study import Study


@dataclass(frozen=True)
class Contender:
    """What one method made of the examples."""

    runs: tuple[Solution, ...]  # one of each seed, or one for all where the seed does not matter
    shared: bool  # examples share what was learned: they are no independent replicates
    uses_seed: bool = True

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run."""
        return tuple(_seed_of(run) for run in self.runs)

    def column(self, name: str, seeds: int) -> np.ndarray:
        """One column of all runs (seeds, n), a single run for each of the seeds."""
        values = np.stack([getattr(run, name) for run in self.runs])
        return np.broadcast_to(values, (seeds, values.shape[1]))

    def of_seeds(self, seeds: int) -> tuple[Solution, ...]:
        """The run of each of the seeds."""
        return self.runs if len(self.runs) == seeds else self.runs[:1] * seeds


@dataclass(frozen=True)
class Source:
    """The problems that were solved, as far as they are at hand."""

    dataset: Dataset | None = None
    model: ForwardModel | None = None  # given with the dataset
    loss_true: np.ndarray | None = None  # (n,) at x_true, where it is known
    missing: str = ""  # why there is no dataset


@dataclass(frozen=True)
class Comparison:
    """Solutions of the same examples by several methods, and what they say against the baseline."""

    baseline: str
    n: int
    seeds: tuple[int, ...]
    methods: dict[str, dict[str, Any]]  # as in `compare --json`
    profiles: dict[str, Any]  # as there
    curves: dict[str, dict[str, np.ndarray]]  # of the methods with histories, see `profiles.curves`
    contenders: dict[str, Contender]
    source: Source
    study: Study | None = None  # the same over subsets of the examples or over budgets, where it was asked for

    @property
    def loss_true(self) -> np.ndarray | None:
        """Losses (n,) at x_true, where it is known."""
        return self.source.loss_true

    @property
    def solutions(self) -> dict[str, Solution]:
        """Each method's solution, of the first seed."""
        return {name: contender.runs[0] for name, contender in self.contenders.items()}

    def to_json(self) -> dict[str, Any]:
        """The `compare --json` document (contract, section 5)."""
        return {
            "schema": "invsolve-compare/1",
            "baseline": self.baseline,
            "n": self.n,
            "seeds": list(self.seeds),
            "methods": self.methods,
            "profiles": self.profiles,
            "curves": {name: _curve_json(curve) for name, curve in self.curves.items()},
        } | (self.study.to_json() if self.study is not None else {})

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """A header, then a row for each method, seed and example; empty is what is not known or has no meaning.

        A method that needs one run for all seeds has its rows for each of them, as it is counted. With a study, each
        row begins with where on its axis it is, see `Study.rows`.
        """
        if self.study is not None:
            yield from self.study.rows(self)
            return
        has_prior = any(run.loss_prior is not None for c in self.contenders.values() for run in c.runs)
        prior = ("loss_prior",) if has_prior else ()
        names = {int(status): status.name.lower() for status in Status}
        yield (
            "example", "method", "seed", "loss", *prior, "loss_initial", "status", "evaluations", "gradients", "solved",
            "outcome",
        )  # fmt: skip
        for block in self.blocks():
            run, unknown = block.run, [""] * self.n
            words = unknown if block.outcome is None else [OUTCOMES[code] for code in block.outcome.tolist()]
            solved = unknown if block.solved is None else ["yes" if yes else "no" for yes in block.solved.tolist()]
            numbers = [run.loss, *([_prior_of(run)] if has_prior else []), run.loss_initial]
            statuses = [names.get(code, "") for code in run.status.tolist()]
            yield from zip(
                run.example.tolist(), [block.method] * self.n, [block.seed] * self.n, *(v.tolist() for v in numbers),
                statuses, run.evaluations.tolist(), run.gradients.tolist(), solved, words, strict=True,
            )  # fmt: skip

    def blocks(self) -> Iterator[Block]:
        """What each method made of the examples from each seed; one run for all seeds comes once for each of them."""
        against = self.contenders[self.baseline].column("objective", len(self.seeds))
        for name, contender in self.contenders.items():
            for s, seed in enumerate(self.seeds):
                many = len(contender.runs) == len(self.seeds)
                run = contender.runs[s if many else 0]
                outcome = None
                if name != self.baseline:
                    outcome, _ = pair_losses(run.objective, against[s], run.loss_initial)
                solved = None if self.loss_true is None else is_solved(run, self.loss_true)
                yield Block(name, _seed_of(run) if many else seed, run, outcome, solved)


@dataclass(frozen=True)
class Block:
    """One run of one method, paired with the baseline's run of the same seed."""

    method: str
    seed: int
    run: Solution
    outcome: np.ndarray | None  # (n,) see OUTCOMES; None for the baseline itself
    solved: np.ndarray | None  # (n,) None where x_true is not known


ALIKE = ("method", "method_options", "refine", "dtype", "max_evaluations", "network_sha256")
"""Attributes that runs of one method with several seeds have in common."""


def by_seed(read: Mapping[Path, Solution]) -> dict[str, list[Solution]]:
    """Solutions by method, those of several seeds in the order of these; by file where they differ in more than that.

    Raises:
        DataError: files that differ in more have the same name.
    """
    groups: dict[str, list[Solution]] = {}
    for solution in read.values():
        groups.setdefault(str(solution.attributes.get("method")), []).append(solution)
    for runs in groups.values():
        runs.sort(key=_seed_of)
        alike = all(run.attributes.get(key) == runs[0].attributes.get(key) for run in runs for key in ALIKE)
        if not alike or len({_seed_of(run) for run in runs}) < len(runs):
            break
    else:
        return groups
    named = {path.stem: [solution] for path, solution in read.items()}
    if len(named) < len(read):
        raise DataError("several solution files have the same name; rename one")
    return named


def common_seeds(contenders: Mapping[str, Contender]) -> tuple[int, ...]:
    """The seeds that all methods were run with, but those that need none.

    Raises:
        DataError: some have other seeds than others, where there are several.
    """
    longest = max(contenders, key=lambda name: len(contenders[name].runs))
    seeds = contenders[longest].seeds
    for name, contender in contenders.items():
        if len(seeds) > 1 and contender.uses_seed and contender.seeds != seeds:
            raise DataError(
                f"'{longest}' is given with seeds {_listed(seeds)}, '{name}' with {_listed(contender.seeds)}; "
                "give files of the same seeds for both"
            )
    return seeds


def _listed(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds))


def _seed_of(run: Solution) -> int:
    """Its attribute, which in a file may be anything."""
    seed = run.attributes.get("seed")
    return int(seed) if isinstance(seed, int | np.integer) else 0


def compared(contenders: dict[str, Contender], baseline: str, seeds: tuple[int, ...], source: Source) -> Comparison:
    """All statistics of the contenders, each with one run or one for each of the seeds."""
    loss_true = source.loss_true
    first, count = contenders[baseline], len(seeds)
    against = first.column("objective", count)
    methods = {
        name: _summary(contender, loss_true)
        | compare_losses(
            contender.column("objective", count),
            against,
            contender.column("loss_initial", count),
            shared=contender.shared or first.shared,
        )
        for name, contender in contenders.items()
    }
    methods[baseline] |= {"p_value": None, "note": "baseline"}
    corrected = holm({name: m["p_value"] for name, m in methods.items() if m["p_value"] is not None})
    for name, m in methods.items():
        m["p_holm"] = corrected.get(name)
    return Comparison(
        baseline=baseline,
        n=against.shape[1],
        seeds=seeds,
        methods=methods,
        profiles=_profiles(contenders, count, loss_true),
        curves=_curves(contenders),
        contenders=contenders,
        source=source,
    )


def _prior_of(run: Solution) -> np.ndarray:
    return np.zeros(len(run)) if run.loss_prior is None else run.loss_prior


def _summary(contender: Contender, loss_true: np.ndarray | None) -> dict[str, Any]:
    """One document of all runs: quantiles and means are over their examples together, totals and seconds are sums."""
    runs = contender.runs
    tiled = None if loss_true is None else np.tile(loss_true, len(runs))
    together = _joined(runs)
    told = summarize(together, None if tiled is None else float(is_solved(together, tiled).mean()), out=None)
    told["seeds"] = list(contender.seeds)
    told["n"] = len(runs[0])
    told["loss_initial"] = quantiles(lambda: [runs[0].loss_initial])  # all runs have the same starts
    told["independent"] = not contender.shared
    return told


def _joined(runs: tuple[Solution, ...]) -> Solution:
    """The runs one after the other; columns that not all have are left out, and attributes that differ."""
    if len(runs) == 1:
        return runs[0]
    names = [f.name for f in fields(Solution) if f.name not in ("attributes", "parameters")]
    columns: dict[str, Any] = {}
    for name in names:
        parts = [getattr(run, name) for run in runs]
        if any(part is None for part in parts):
            assert name in OPTIONAL
            columns[name] = None
        else:
            columns[name] = np.concatenate(parts)
    first: Mapping[str, Any] = runs[0].attributes
    kept = {key: v for key, v in first.items() if all(run.attributes.get(key) == v for run in runs)}
    seconds = [run.attributes.get("seconds") for run in runs]
    kept["seconds"] = None if None in seconds else float(sum(seconds))  # type: ignore[arg-type]
    return replace(runs[0], **columns, attributes=kept)


def _profiles(contenders: dict[str, Contender], seeds: int, loss_true: np.ndarray | None) -> dict[str, Any]:
    """Profiles over all pairs of example and seed, by the evaluations until each was solved, or until it ended."""
    every = contenders.values()
    runs = [run for contender in every for run in contender.runs]
    initial = _each(next(iter(every)).column("loss_initial", seeds), seeds)
    if loss_true is not None:
        solved = np.stack([_each(np.stack([is_solved(run, loss_true) for run in c.runs]), seeds) for c in every])
        mark = mark_by_truth(np.tile(loss_true, seeds), initial)
    else:
        losses = np.stack([_each(c.column("objective", seeds), seeds) for c in every])
        losses = np.where(np.isnan(losses), np.inf, losses)
        solved, mark = solved_enough(losses, initial), mark_by_best(losses.min(0), initial)
    # With a prior histories are of its sum with the loss, of which x_true tells nothing.
    first = all(run.history is not None and (loss_true is None or run.loss_prior is None) for run in runs)
    marks = mark.reshape(seeds, -1) if first else None
    spent = np.stack([_spent(contender, seeds, marks) for contender in every])
    seconds = spent * np.stack([[_pace(run)] for c in every for run in c.of_seeds(seeds)]).reshape(len(spent), -1, 1)
    costs, times = (np.where(solved, v.reshape(solved.shape), np.inf) for v in (np.maximum(spent, 1), seconds))
    return profiles(
        list(contenders),
        costs,
        solved_by="x_true" if loss_true is not None else "the best of all methods",
        cost="until first solved" if first else "until ended",
        seconds=None if any(np.isnan(_pace(run)) for run in runs) else times,
    )


def _spent(contender: Contender, seeds: int, marks: np.ndarray | None) -> np.ndarray:
    """Evaluations (seeds, n) of each example until it was known to be at its mark (seeds, n), if there is one."""
    spent = contender.column("evaluations", seeds)
    if marks is None:
        return spent
    each = zip(contender.of_seeds(seeds), marks, spent, strict=True)
    return np.stack([first_solved(run.history, mark, ended) for run, mark, ended in each if run.history is not None])


def _pace(run: Solution) -> float:
    """Seconds of a run for each of its evaluations, NaN where they are not known."""
    seconds = run.attributes.get("seconds")
    return float(seconds) / max(int(run.evaluations.sum()), 1) if isinstance(seconds, int | float) else np.nan


def _curve_json(curve: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    counts, *bands = curve.items()
    return {counts[0]: counts[1].tolist()} | {key: [finite_or_none(v) for v in band] for key, band in bands}


def _curves(contenders: dict[str, Contender]) -> dict[str, dict[str, np.ndarray]]:
    """Loss against evaluations of the methods of which there are histories, over all their runs together."""
    found = {}
    for name, contender in contenders.items():
        histories = [run.history for run in contender.runs if run.history is not None]
        if len(histories) == len(contender.runs):
            found[name] = np.concatenate(histories)
    return curves(found)


def _each(values: np.ndarray, seeds: int) -> np.ndarray:
    """(K, n) or (1, n) as one row of all pairs (seeds·n,)."""
    return np.broadcast_to(values, (seeds, values.shape[1])).reshape(-1)
