"""What each method solves of each problem, and for how many evaluations: a table, and the figures of it.

    python -m benchmarks.quality                                          # all that is not there yet, then the report
    python -m benchmarks.quality --only wave-packet,billiards --methods bfgs,jpo --n 16,256 --seeds 0 --budgets none
    python -m benchmarks.quality --jobs 0                                 # only the report of what is there

Each method goes to its own end, then to each budget of evaluations that it would feel. Each run is a process of its own
with one thread, and is kept as a file in `--results`: after an interruption the same command goes on.
A file is named by problem, options, n, method, seed and a digest of the package's code, so that other code is measured
anew; `--accept` takes the results of other code where there are none of this. Methods are those of invsolve's registry.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.arguments import add_running, among, numbers
from benchmarks.quality.plan import BUDGETS, Plan, stages
from benchmarks.quality.problems import PROBLEMS
from benchmarks.quality.report import BASELINE, Report
from benchmarks.quality.runs import Result, Store
from benchmarks.runner import Runner, end_by_signal

from invsolve.registry import registered


def main() -> int:
    a = _parse()
    plan = Plan(tuple(a.only), tuple(a.methods), tuple(a.seeds), tuple(a.budgets), a.n and tuple(a.n))
    for folder in (a.results, a.out):
        folder.mkdir(parents=True, exist_ok=True)
    store = Store(a.results, Result, a.accept)
    end_by_signal()
    interrupted = False
    try:
        if a.jobs:
            runner = Runner("benchmarks.quality.child", store, a.jobs, a.time_limit, retry=a.retry)
            for name, cases in stages(plan, store):
                runner.run(cases, name)
    except KeyboardInterrupt:
        interrupted = True
    _report(Report(plan, store), a.out)
    return 130 if interrupted else 0


def _report(report: Report, folder: Path) -> None:
    text = f"{report.table()}\n\n{report.notes()}\n"
    (folder / "quality.md").write_text(text, encoding="utf-8")
    print(text)
    try:
        from benchmarks.quality.figures import draw_all
    except ImportError as error:
        print(f"no figures: {error}; pip install matplotlib", file=sys.stderr)
        return
    for path in draw_all(report, folder):
        print(path, file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    methods = sorted(registered("methods"), key=lambda name: (name != BASELINE, name))
    add = parser.add_argument
    add("--only", type=among(PROBLEMS), default=list(PROBLEMS), help=f"of {', '.join(PROBLEMS)}")
    add("--methods", type=among(methods), default=methods, help=f"of {', '.join(methods)}")
    add("--n", type=numbers(1), help="numbers of examples; by default those of each problem")
    add("--seeds", type=numbers(0), default=[0, 1, 2], help="by default 0,1,2")
    add("--budgets", type=_budgets, default=BUDGETS, help="max_evaluations, or none; by default those of the curves")
    add_running(parser)
    add("--results", type=Path, default=Path("build/quality/runs"), help="folder of the runs' files")
    add("--out", type=Path, default=Path("build/quality"), help="folder of quality.md and figures")
    return parser.parse_args()


def _budgets(text: str) -> list[int]:
    return [] if text == "none" else numbers(3)(text)


if __name__ == "__main__":
    sys.exit(main())
