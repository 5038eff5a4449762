"""One run in a process of its own: `python -m benchmarks.paper.child CASE FILE`, with the case in JSON."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from benchmarks.kept import package_code, package_commit, rounded, write_result
from benchmarks.paper.experiments import CONTESTANTS, EXPERIMENTS
from benchmarks.paper.runs import ALIGNMENT, Case, Result, dataset, part

import invsolve
from invsolve.analysis.summary import is_solved
from invsolve.diagnosis.diagnose import measure_alignment
from invsolve.diagnosis.sample import draw_sample
from invsolve.engine import Control
from invsolve.registry import model_of

_SEEDS_APART = 1000  # between the networks' seeds of two datasets: each group has a network of its own


def main() -> None:
    case, path = Case.from_json(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    result = align(case) if case.who == ALIGNMENT else solve(case, path.with_suffix(".h5"))
    write_result(path, case, result)


def solve(case: Case, solution_file: Path) -> Result:
    """Solve each group of n examples on its own, and score what was found."""
    experiment, contestant = EXPERIMENTS[case.model], CONTESTANTS[case.who]
    data, told, solutions, solved = dataset(case.model, case.seed), [], [], []
    for group in range(case.groups):
        # Uncompiled: whether compiling pays is decided by the clock, and rounding would change with it.
        settings = invsolve.Settings(
            seed=_SEEDS_APART * case.seed + group, max_evaluations=experiment.budget, dtype=experiment.dtype,
            compile="off", threads=1, device="cpu",
        )  # fmt: skip
        found = invsolve.compare(
            part(data, group * case.n, (group + 1) * case.n), methods=[contestant.method], settings=settings,
            options={contestant.method: dict(contestant.options)},
        )  # fmt: skip
        assert found.loss_true is not None
        told.append(found.methods[contestant.method])
        solutions.append(found.solutions[contestant.method])
        solved.append(is_solved(solutions[-1], found.loss_true))
    if case.shown:
        invsolve.write_solution(solution_file, solutions[0], overwrite=True)
    return Result(
        "done",
        package_code(),
        package_commit(),
        loss=rounded(np.concatenate([s.loss for s in solutions])),
        loss_initial=rounded(np.concatenate([s.loss_initial for s in solutions])),
        solved=np.concatenate(solved).tolist(),
        evaluations=float(np.mean([t["evaluations"]["mean"] for t in told])),
        gradients=float(np.mean([t["gradients"]["mean"] for t in told])),
        seconds=sum(t["seconds"] for t in told),
    )


def align(case: Case) -> Result:
    """Measure where joint steps of up to n examples point, as `invsolve diagnose` does for a sample."""
    began = time.monotonic()
    data = part(dataset(case.model, case.seed), 0, case.n)
    sample = draw_sample(data, model_of(data, None, {}), case.n, case.seed, torch.device("cpu"))
    assert sample.z_true is not None
    found = measure_alignment(sample, sample.z_true, case.seed, Control())
    assert found is not None
    return Result("done", package_code(), package_commit(), alignment=asdict(found), seconds=time.monotonic() - began)


if __name__ == "__main__":
    main()
