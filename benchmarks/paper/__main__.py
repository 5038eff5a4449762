"""The figures of Holl and Thuerey 2024 (arXiv 2408.08119), made anew by invsolve: see docs/paper.md.

    python -m benchmarks.paper                                 # all that is not there yet, then table and figures
    python -m benchmarks.paper --only wave-packet --n 2,8,32 --seeds 0
    python -m benchmarks.paper --jobs 0                        # only what there is

Each run is a process of its own with one thread, and is kept as a file in `--results`: after an interruption the same
command goes on. Files are named by all that the run is of and a digest of the package's code, so that other code is
measured anew; `--accept` takes the results of other code where there are none of this.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.arguments import add_running, among, numbers
from benchmarks.paper.experiments import EXPERIMENTS
from benchmarks.paper.plan import Plan
from benchmarks.paper.report import Report
from benchmarks.paper.runs import Result, Store
from benchmarks.paper.shown import training_table
from benchmarks.runner import Runner, end_by_signal


def main() -> int:
    a = _parse()
    plan = Plan(tuple(a.only), tuple(a.seeds), a.n and tuple(a.n))
    for folder in (a.results, a.out):
        folder.mkdir(parents=True, exist_ok=True)
    store = Store(a.results, Result, a.accept)
    end_by_signal()
    interrupted = False
    try:
        if a.jobs:
            runner = Runner("benchmarks.paper.child", store, a.jobs, a.time_limit, retry=a.retry)
            runner.run(plan.cases(), "runs")
    except KeyboardInterrupt:
        interrupted = True
    _report(Report(plan, store), a.out)
    return 130 if interrupted else 0


def _report(report: Report, folder: Path) -> None:
    text = f"{report.table()}\n\n{training_table(report)}\n\n{report.notes()}\n"
    (folder / "paper.md").write_text(text, encoding="utf-8")
    print(text)
    try:
        from benchmarks.paper.figures import draw_all
    except ImportError as error:
        print(f"no figures: {error}; pip install matplotlib", file=sys.stderr)
        return
    for path in draw_all(report, folder):
        print(path, file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", type=among(EXPERIMENTS), default=list(EXPERIMENTS), help=f"of {', '.join(EXPERIMENTS)}")
    add("--n", type=numbers(2), help="numbers of examples, of those that the experiments have")
    add("--seeds", type=numbers(0), default=[0, 1, 2], help="by default 0,1,2")
    add_running(parser)
    add("--results", type=Path, default=Path("build/paper/runs"), help="folder of the runs' files")
    add("--out", type=Path, default=Path("build/paper"), help="folder of paper.md and figures")
    a = parser.parse_args()
    for model in a.only:
        if a.n and not set(a.n) & set(sizes := EXPERIMENTS[model].sizes):
            parser.error(f"argument --n: {model} has n = {', '.join(map(str, sizes))}, and none of those given")
    return a


if __name__ == "__main__":
    sys.exit(main())
