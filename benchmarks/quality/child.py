"""One run in a process of its own: `python -m benchmarks.quality.child CASE FILE`, with the case in JSON."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from benchmarks.kept import DATA_SEED, package_code, package_commit, rounded, write_result
from benchmarks.quality.problems import PROBLEMS
from benchmarks.quality.runs import Case, Result

import invsolve


def main() -> None:
    case, path = Case.from_json(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    write_result(path, case, run(case))


def run(case: Case) -> Result:
    """Make the data, solve them, and score what was found."""
    problem = PROBLEMS[case.problem]
    data = invsolve.generate(problem.model, case.n, seed=DATA_SEED + case.seed, model_options=dict(problem.options))
    # Uncompiled: whether compiling pays is decided by the clock, and rounding would change with it.
    settings = invsolve.Settings(seed=case.seed, max_evaluations=case.budget, compile="off", threads=1, device="cpu")
    try:
        found = invsolve.compare(
            data, methods=[case.method], settings=settings, options={case.method: dict(case.options)}
        )
    except invsolve.InvsolveError as error:
        return Result("refused", package_code(), package_commit(), line=str(error))
    told, solution = found.methods[case.method], found.solutions[case.method]
    return Result(
        "done",
        package_code(),
        package_commit(),
        solved=told["solved"],
        evaluations=told["evaluations"]["mean"],
        most_evaluations=told["evaluations"]["max"],
        gradients=told["gradients"]["mean"],
        seconds=told["seconds"],
        starts=math.nan if solution.starts is None else float(solution.starts.mean()),
        loss=rounded(solution.loss),
        loss_initial=rounded(solution.loss_initial),
    )


if __name__ == "__main__":
    main()
