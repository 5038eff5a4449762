"""What the runs say, in Markdown: a line a problem, n and method, the goals, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.quality.plan import Plan, rival_of, under_budget
from benchmarks.quality.problems import PROBLEMS, RIVAL_EVALUATIONS, Goal
from benchmarks.quality.runs import Case, Result, Store
from benchmarks.table import as_markdown

from invsolve.analysis.compare import compare_losses

COLUMNS = (
    "problem", "n", "method", "solved (min–max)", "evaluations", "gradients", "seconds", "better / worse than bfgs",
    "seeds", "goal",
)  # fmt: skip
BASELINE = "bfgs"


@dataclass(frozen=True)
class Group:
    """Results of the same over the seeds."""

    results: tuple[Result, ...]

    def mean(self, name: str) -> float:
        """Over the seeds."""
        return float(np.mean([getattr(r, name) for r in self.results]))

    @property
    def solved(self) -> tuple[float, float, float]:
        """Mean, least and most."""
        each = [r.solved for r in self.results]
        return float(np.mean(each)), min(each), max(each)


class Report:
    """Reads the results that a plan asked for."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store

    def group(self, problem: str, n: int, method: str, budget: int | None = None) -> Group | None:
        """The seeds of which there are results."""
        cases = [Case(problem, n, method, seed, budget) for seed in self.plan.seeds]
        return _group(under_budget(case, self.store) for case in cases)

    def rivals(self, problem: str, n: int, method: str) -> Group | None:
        """What multistart makes of several times the method's evaluations."""
        cases = [rival_of(Case(problem, n, method, seed), self.store) for seed in self.plan.seeds]
        return _group(self.store.done(case) for case in cases if case is not None)

    def curve(self, problem: str, n: int, method: str) -> list[tuple[float, float, float, float]]:
        """Evaluations and solved fraction (mean, least, most) by budget, of those that all seeds have been run with."""
        groups = [self.group(problem, n, method, budget) for budget in (*self.plan.budgets, None)]
        seeds = max((len(g.results) for g in groups if g is not None), default=0)
        points = {(g.mean("evaluations"), *g.solved) for g in groups if g is not None and len(g.results) == seeds}
        return sorted(points)

    def shares(self, problem: str, n: int, method: str) -> tuple[list[float], list[float]]:
        """Of each seed the share of examples better, and worse, than by bfgs."""
        better, worse = [], []
        for seed in self.plan.seeds:
            case = Case(problem, n, method, seed)
            result, baseline = self.store.done(case), self.store.done(replace(case, method=BASELINE))
            if result is not None and baseline is not None:
                found = compare_losses(result.losses, baseline.losses, baseline.initial_losses)
                better.append(found["better"] / n)
                worse.append(found["worse"] / n)
        return better, worse

    def table(self) -> str:
        """The Markdown table of what there is."""
        rows = []
        for problem in self.plan.problems:
            for n in self.plan.sizes_of(problem):
                for method in self.plan.methods:
                    rows += self._rows(problem, n, method)
        return as_markdown(COLUMNS, rows)

    def _rows(self, problem: str, n: int, method: str) -> list[Sequence[object]]:
        group = self.group(problem, n, method)
        if group is None:
            return []
        goals = [goal for goal in PROBLEMS[problem].goals if (goal.method, goal.n) == (method, n)]
        better, worse = self.shares(problem, n, method)
        shares = "" if method == BASELINE or not better else f"{np.mean(better):.3f} / {np.mean(worse):.3f}"
        told = "; ".join(self._judged(problem, goal) for goal in goals)
        rows = [_row(problem, n, method, group, shares, told)]
        if any(goal.beats_multistart for goal in goals) and (rival := self.rivals(problem, n, method)):
            rows.append(_row(problem, n, f"multistart, {RIVAL_EVALUATIONS} × {method}", rival, "", ""))
        return rows

    def _judged(self, problem: str, goal: Goal) -> str:
        """A goal and whether it is reached, by the method at its defaults or within some budget."""
        asked, unknown = goal.solved, False
        if goal.times_bfgs:
            baseline = self.group(problem, goal.n, BASELINE)
            unknown |= baseline is None
            asked = max(asked, goal.times_bfgs * baseline.solved[0] if baseline else 0.0)
        if goal.beats_multistart:
            rival = self.rivals(problem, goal.n, goal.method)
            unknown |= rival is None
            asked = max(asked, rival.solved[0] if rival else 0.0)
        best = self._best_within(problem, goal)
        if best is None:
            return f"{goal}: **missed**, takes more"
        solved, budget = best
        by = "" if budget is None else f" with max_evaluations={budget} ({solved:.3f})"
        if solved < asked:
            return f"{goal}: **missed**{by}"
        return f"{goal}: {'unknown' if unknown else 'reached'}{by}"

    def _best_within(self, problem: str, goal: Goal) -> tuple[float, int | None] | None:
        """The most that is solved within the goal's evaluations, and by which budget; without one if it can be."""
        found: list[tuple[float, int | None]] = []
        unlimited = self.group(problem, goal.n, goal.method)
        seeds = len(unlimited.results) if unlimited else 0
        for budget in (None, *self.plan.budgets):
            group = self.group(problem, goal.n, goal.method, budget)
            if group is None or len(group.results) < seeds:  # not yet run with every seed
                continue
            if group.mean("evaluations") <= (goal.evaluations or np.inf):
                found.append((group.solved[0], budget))
        return max(found, key=lambda f: f[0], default=None)  # of equals the first

    def notes(self) -> str:
        """What the table does not show: refusals, failures, what has not been run, and by which code all is."""
        asked = list(
            dict.fromkeys([*self.plan.unlimited(), *self.plan.rivals(self.store), *self.plan.limited(self.store)])
        )
        results = {case: self.store.get(case) for case in asked}
        lines = []
        for outcome in ("refused", "failed"):
            said = Counter(
                f"{outcome}: {case.method} on {PROBLEMS[case.problem].title}: {r.line}"
                for case, r in results.items()
                if r is not None and r.outcome == outcome
            )
            lines += [f"- {line} ({times} {'run' if times == 1 else 'runs'})" for line, times in said.items()]
        missing = sum(r is None for r in results.values())
        lines += [f"- {missing} of {len(asked)} runs asked for have not been made"] if missing else []
        codes = Counter(f"invsolve {r.commit} (code {r.code})" for r in results.values() if r is not None)
        lines += [f"- {times} runs by {code}" for code, times in codes.items()]
        return "\n".join(lines)


def _group(results: Iterable[Result | None]) -> Group | None:
    known = tuple(r for r in results if r is not None)
    return Group(known) if known else None


def _row(problem: str, n: int, method: str, group: Group, shares: str, goal: str) -> Sequence[object]:
    mean, least, most = group.solved
    seconds = group.mean("seconds")
    return (
        PROBLEMS[problem].title,
        n,
        method,
        f"**{mean:.3f}** ({least:.3f}–{most:.3f})",
        f"{group.mean('evaluations'):.0f}",
        f"{group.mean('gradients'):.0f}",
        f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}",
        shares,
        len(group.results),
        goal,
    )
