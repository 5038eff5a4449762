"""What the runs say, in numbers and in Markdown: who is better than the baseline, by how many examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.paper.experiments import BASELINE, CONTESTANTS
from benchmarks.paper.plan import Plan
from benchmarks.paper.runs import Result, Store
from benchmarks.table import as_markdown

from invsolve.analysis.compare import compare_losses

COLUMNS = (
    "model", "n", "method", "better than bfgs (min–max)", "worse", "solved (min–max)", "evaluations", "gradients",
    "seconds", "groups", "seeds",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A contestant with n examples solved together: shares of each seed (S,), and means of what it cost."""

    better: np.ndarray
    worse: np.ndarray
    solved: np.ndarray
    evaluations: float
    gradients: float
    seconds: float


class Report:
    """Reads the results that a plan asked for."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store

    def whole_seeds(self, model: str) -> list[int]:
        """The seeds that all contestants have been run with for all n."""
        cases = {
            seed: [self.plan.case(model, n, who, seed) for n in self.plan.sizes_of(model) for who in CONTESTANTS]
            for seed in self.plan.seeds
        }
        return [seed for seed, of_seed in cases.items() if all(map(self.store.done, of_seed))]

    def point(self, model: str, n: int, who: str, seeds: Sequence[int] | None = None) -> Point | None:
        """Of all seeds, or of some, those of which there are results, of the contestant and of the baseline."""
        found: list[tuple[Result, Result]] = []
        for seed in self.plan.seeds if seeds is None else seeds:
            result = self.store.done(self.plan.case(model, n, who, seed))
            baseline = self.store.done(self.plan.case(model, n, BASELINE, seed))
            if result is not None and baseline is not None:
                found.append((result, baseline))
        if not found:
            return None
        examples = n * self.plan.groups(model, n)
        shares = [_shares(result, baseline, examples) for result, baseline in found]
        better, worse, solved = (np.array(each) for each in zip(*shares, strict=True))
        costs = (np.mean([getattr(r, name) for r, _ in found]) for name in ("evaluations", "gradients", "seconds"))
        return Point(better, worse, solved, *map(float, costs))

    def table(self) -> str:
        """The Markdown table of what there is."""
        rows = []
        for model in self.plan.models:
            for n in self.plan.sizes_of(model):
                for who in CONTESTANTS:
                    runs = self.plan.case(model, n, who, self.plan.seeds[0]).n == n  # row methods do so once
                    if runs and (point := self.point(model, n, who)) is not None:
                        rows.append(_row(model, n, who, point, self.plan.groups(model, n)))
        return as_markdown(COLUMNS, rows)

    def notes(self) -> str:
        """What the table does not show: refusals, failures, what has not been run, and by which code all is."""
        results = {case: self.store.get(case) for case in self.plan.cases()}
        lines = [
            f"- {r.outcome}: {case.who} on {case.model}, n = {case.n}, seed {case.seed}: {r.line}"
            for case, r in results.items()
            if r is not None and r.outcome != "done"
        ]
        missing = sum(r is None for r in results.values())
        lines += [f"- {missing} of {len(results)} runs asked for have not been made"] if missing else []
        codes = Counter(f"invsolve {r.commit} (code {r.code})" for r in results.values() if r is not None)
        lines += [f"- {times} runs by {code}" for code, times in codes.items()]
        lines.append(
            f"- {sum(r.seconds for r in results.values() if r is not None) / 60:.0f} minutes of solving in all"
        )
        return "\n".join(lines)


def _shares(result: Result, baseline: Result, examples: int) -> tuple[float, float, float]:
    """Shares better, worse and solved of the first so many examples, which both are of."""
    first = slice(examples)
    found = compare_losses(result.losses[first], baseline.losses[first], baseline.initial_losses[first])
    return found["better"] / examples, found["worse"] / examples, float(np.mean(result.solved[first]))


def _row(model: str, n: int, who: str, p: Point, groups: int) -> Sequence[object]:
    better = "" if who == BASELINE else f"**{p.better.mean():.3f}** ({p.better.min():.3f}–{p.better.max():.3f})"
    worse = "" if who == BASELINE else f"{p.worse.mean():.3f}"
    solved = f"{p.solved.mean():.3f} ({p.solved.min():.3f}–{p.solved.max():.3f})"
    costs = [
        f"{p.evaluations:.0f}",
        f"{p.gradients:.0f}",
        f"{p.seconds:.3g}" if p.seconds < 100 else f"{p.seconds:.0f}",
    ]
    return (model, n, CONTESTANTS[who].label, better, worse, solved, *costs, groups, len(p.better))
