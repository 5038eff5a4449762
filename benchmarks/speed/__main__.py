"""invsolve side by side with its peers: the same arrays, the same x0, one core each, in a process of its own.

    python -m benchmarks.speed                                  # whatever of the table is not there yet
    python -m benchmarks.speed --only wave-packet --peers invsolve,optimistix --again
    python -m benchmarks.speed --only kuramoto-sivashinsky --peers scipy --full     # all rows, not a part of them

Each measurement is kept as a file in `--results`, so that a table can be made piece by piece; the table of what is
there ends every call. When a work is changed, begin a new folder. Losses are recomputed by one function in float64.
Peers need `pip install '.[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmarks.speed.judge import loss_and_gradient, write_arrays
from benchmarks.speed.works import WORKS, Array, Arrays, Work
from benchmarks.table import as_markdown

ENVIRONMENT = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    # As the command line has it: freed memory is kept for the next arrays, here for everyone.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
COLUMNS = (
    "work", "by", "how", "rows measured", "seconds", "repeats", "rows/s", "compile, s", "mean loss",
    "invsolve's, same rows", "NaN", "invsolve is faster", "goal",
)  # fmt: skip


def main() -> None:
    a = _parse()
    a.results.mkdir(parents=True, exist_ok=True)
    for name in a.only:
        contestants = WORKS[name].contestants
        for contestant in a.peers or contestants:
            if contestant in contestants and (a.again or not _file(a.results, name, contestant).exists()):
                _measure(a, name, contestant)
    table = as_markdown(COLUMNS, [row for name in WORKS for row in _rows(a.results, name)])
    print(table)
    if a.out:
        a.out.write_text(table + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everyone = sorted({c for work in WORKS.values() for c in work.contestants})
    parser.add_argument("--only", type=_names(WORKS), default=list(WORKS), help=f"of {', '.join(WORKS)}")
    parser.add_argument("--peers", type=_names(everyone), help=f"of {', '.join(everyone)}")
    parser.add_argument("--repeats", type=int, default=5, help="of solves below 10 s; the median is told")
    parser.add_argument("--again", action="store_true", help="measure also what is there already")
    parser.add_argument("--full", action="store_true", help="all rows, also where a part of them would do")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="that all stay on")
    parser.add_argument("--results", type=Path, default=Path("build/speed"), help="folder of what was measured")
    parser.add_argument("--out", type=Path, help="Markdown file to keep the table in")
    return parser.parse_args()


def _names(known: Any) -> Any:
    def split(text: str) -> list[str]:
        names = text.split(",")
        unknown = [n for n in names if n not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return names

    return split


def _file(results: Path, work: str, contestant: str) -> Path:
    return results / f"{work}.{contestant}.npz"


def _arrays(results: Path, name: str) -> Path:
    path = results / f"{name}.npz"
    if not path.exists():
        write_arrays(WORKS[name], path)
    return path


def _measure(a: argparse.Namespace, name: str, contestant: str) -> None:
    """Run one contestant; if it fails, the others go on."""
    print(f"{name}: {contestant} ...", file=sys.stderr, flush=True)
    rows = None if a.full else WORKS[name].contestants[contestant].subset
    out = _file(a.results, name, contestant)
    unfinished = out.with_suffix(".part.npz")
    command = [sys.executable, "-m", "benchmarks.speed.child", name, contestant, str(_arrays(a.results, name))]
    command += [str(unfinished), "--core", str(a.core), "--repeats", str(a.repeats)]
    command += [] if rows is None else ["--rows", str(rows)]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, check=False)
    if done.returncode == 0:
        unfinished.replace(out)
    else:
        print(f"{name}: {contestant} failed with exit code {done.returncode}", file=sys.stderr)


def _rows(results: Path, name: str) -> list[Sequence[Any]]:
    """The table's rows of one work, as far as it was measured."""
    work = WORKS[name]
    found = {}
    for contestant in work.contestants:
        path = _file(results, name, contestant)
        if path.exists():
            found[contestant] = _Measured(work, Arrays.read(_arrays(results, name)), path)
    return [_row(name, contestant, found) for contestant in found]


class _Measured:
    """What a contestant brought, judged."""

    def __init__(self, work: Work, arrays: Arrays, path: Path) -> None:
        kept = Arrays.read(path)
        self.rows = kept["rows"].astype(int)
        told = json.loads(str(kept["measured"]))
        self.seconds: list[float] = told["seconds"]
        self.compile_seconds: float = told["compile"]
        self.note: str = told["note"]
        self.loss = np.full(work.n, np.nan)
        self.loss[self.rows] = loss_and_gradient(work, arrays.select(self.rows), kept["x"])[0]

    @property
    def per_row(self) -> float:
        return median(self.seconds) / len(self.rows)


def _row(name: str, contestant: str, found: dict[str, _Measured]) -> Sequence[Any]:
    entry, m = WORKS[name].contestants[contestant], found[contestant]
    ours = None if entry.module == "with_invsolve" else found.get(entry.against)
    finite = np.isfinite(m.loss)
    return (
        name,
        contestant,
        m.note,
        len(m.rows),
        f"{median(m.seconds):.3g}",
        len(m.seconds),
        f"{1 / m.per_row:,.0f}" if m.per_row < 0.1 else f"{1 / m.per_row:.3g}",
        f"{m.compile_seconds:.1f}" if m.compile_seconds > 0.05 else "",
        f"{m.loss[finite].mean():.9g}",
        "" if ours is None else _mean(ours.loss, finite),
        int((~finite)[m.rows].sum()) or "",
        "" if ours is None else f"**{m.per_row / ours.per_row:.3g} ×**",
        entry.goal,
    )


def _mean(loss: Array, rows: Array) -> str:
    """Mean over the rows on which the peer is finite; ours is always, or the table says NaN."""
    return f"{loss[rows].mean():.9g}"


if __name__ == "__main__":
    main()
