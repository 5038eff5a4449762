"""The solutions kept for pictures, as a comparison; the example that tells most; what training alone reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from benchmarks.paper.experiments import BASELINE, CONTESTANTS, JOINT
from benchmarks.paper.report import Report
from benchmarks.paper.runs import dataset, part
from benchmarks.table import as_markdown

import invsolve
from invsolve.analysis.compare import compare_losses
from invsolve.analysis.comparison import Comparison, Contender, Source, compared
from invsolve.analysis.summary import is_solved
from invsolve.data.solution import HISTORY_EVALUATIONS
from invsolve.methods.joint import JointMethod
from invsolve.pipeline import compare_solutions
from invsolve.registry import method_class

TRAINING_COLUMNS = (
    "model",
    "n",
    "evaluations",
    "better than bfgs",
    "worse",
    "solved",
    "after local solves: better",
    "worse",
    "solved",
)
X0 = "x0"  # what is known before anything is solved, as a contender in pictures


def kept(report: Report, model: str) -> tuple[dict[str, invsolve.Solution], Source] | None:
    """Solutions by label, and the problems that they are of; None unless all are there."""
    plan = report.plan
    n, seed = plan.largest(model), plan.seeds[0]
    files = {}
    for who, contestant in CONTESTANTS.items():
        result = report.store.found(plan.case(model, n, who, seed))
        if result is None or not result.with_suffix(".h5").exists():
            return None
        files[contestant.label] = result.with_suffix(".h5")
    data = part(dataset(model, seed), 0, n)
    source = compare_solutions(list(files.values()), data=data, least=1, baseline=files[BASELINE].stem).source
    return {label: invsolve.read_solution(file) for label, file in files.items()}, source


def comparison_of(solutions: dict[str, invsolve.Solution], source: Source) -> Comparison:
    """What the package draws pictures of."""
    joint = {c.label: issubclass(method_class(c.method), JointMethod) for c in CONTESTANTS.values()}
    contenders = {
        label: Contender((s,), joint.get(label, False), joint.get(label, False)) for label, s in solutions.items()
    }
    return compared(contenders, BASELINE, (0,), source)


def beginning(solution: invsolve.Solution) -> invsolve.Solution:
    """The start of a solution, as if it were one."""
    return replace(
        solution, x=solution.x_initial, loss=solution.loss_initial, evaluations=np.ones_like(solution.evaluations)
    )


def telling(solutions: dict[str, invsolve.Solution], source: Source) -> list[int]:
    """The median, by the baseline's loss, of the examples that JPO solves and the baseline does not; else none."""
    assert source.loss_true is not None
    baseline, jpo = solutions[BASELINE], solutions[CONTESTANTS["jpo"].label]
    which: Sequence[int] = np.flatnonzero(
        is_solved(jpo, source.loss_true) & ~is_solved(baseline, source.loss_true)
    ).tolist()
    by_loss = sorted(which, key=lambda i: baseline.loss[i])
    return by_loss[len(by_loss) // 2 :][:1]


def training_table(report: Report) -> str:
    """What the training on the loss reached by itself, before any local solve, of the solutions that were kept."""
    return as_markdown(TRAINING_COLUMNS, [row for model in report.plan.models for row in _training(report, model)])


def _training(report: Report, model: str) -> list[Sequence[object]]:
    if (found := kept(report, model)) is None:
        return []
    solutions, source = found
    assert source.loss_true is not None
    trained, baseline = solutions[CONTESTANTS[JOINT].label], solutions[BASELINE]
    assert trained.history is not None
    chosen: Any = json.loads(str(trained.attributes["chosen"]))
    made = 1 + chosen["training"]["passes"]  # with the scoring of the start
    k = int(np.searchsorted(HISTORY_EVALUATIONS, made, side="right")) - 1
    alone = replace(trained, loss=trained.history[:, k].astype(np.float64))
    cells = []
    for solution in (alone, trained):
        against = compare_losses(solution.loss, baseline.loss, baseline.loss_initial)
        solved = is_solved(solution, source.loss_true).mean()
        cells += [
            f"{share:.3f}" for share in (against["better"] / len(trained), against["worse"] / len(trained), solved)
        ]
    return [(model, len(trained), HISTORY_EVALUATIONS[k], *cells)]
