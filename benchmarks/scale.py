"""Time per row and peak memory from 10⁴ to 10⁶ rows, with one core and with two.

    python -m benchmarks.scale [bfgs:N | jpo:N | generate:N ...] [--seeds K] [--first SEED] [--out TABLE.md]

Wave packets of 64 samples. Every case runs in a process of its own, from file to file. CPU time is that of all
processes of the run, which a busy machine changes less than the time on the clock; its ratio is that of one core over
the parent and half of the workers, what two cores reach if nothing else wants them. The peak is of the resident set, of
the process itself and, with two cores, of its largest worker, much of which both share. jpo trains, on one core, for
one pass through windows (10⁶ rows are eight, 10⁴ one) with minibatches of 256, and is not refined.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import run_table

import invsolve

SAMPLES = 64
CASES = ("bfgs:10000", "bfgs:100000", "bfgs:1000000", "jpo:10000", "jpo:1000000", "generate:1000000")
MINIBATCH = 256


def simulate(path: str, n: int, seed: int) -> None:
    """What the command `generate` does."""
    invsolve.write_dataset(path, invsolve.generate("wave-packet", n, seed=seed, model_options={"samples": SAMPLES}))


def solve(path: str, method: str, threads: int) -> None:
    """One solve to a file beside the data."""
    joint = method == "jpo"
    n = len(invsolve.read_dataset(path))
    options = {"steps": n // MINIBATCH, "minibatch": MINIBATCH} if joint else {}
    out = f"{path}.{method}.{threads}"
    invsolve.solve(path, method=method, options=options, refine="none", threads=threads, out=out, overwrite=True)


def child(task: str, *arguments: str) -> None:
    """Do one task in this process and print what it took, as JSON."""
    _ = invsolve.solve  # imports torch, which is not what is measured
    began, cpu = time.perf_counter(), _cpu_seconds()
    if task == "simulate":
        simulate(arguments[0], int(arguments[1]), int(arguments[2]))
    else:
        solve(arguments[0], arguments[1], int(arguments[2]))
    own, workers = (
        resource.getrusage(who).ru_maxrss / 1000 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    mine, theirs = (after - before for after, before in zip(_cpu_seconds(), cpu, strict=True))
    took = {"seconds": time.perf_counter() - began, "cpu": mine, "workers_cpu": theirs, "peak": own, "worker": workers}
    print(json.dumps(took))


def _cpu_seconds() -> tuple[float, ...]:
    """Of this process, and of its children that ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return tuple(u.ru_utime + u.ru_stime for u in used)


def run(*task: object) -> dict[str, float]:
    """Do a task in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.scale", "child", *map(str, task)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def measure(case: str, seed: int) -> tuple[object, ...]:
    """One row of the table."""
    method, _, size = case.partition(":")
    n = int(size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.h5"
        made = run("simulate", path, n, seed)
        one = made if method == "generate" else run("solve", path, method, 1)
        two = run("solve", path, method, 2) if method == "bfgs" else None
    cells = [f"{one['seconds']:.2f}", f"{1e6 * one['seconds'] / n:.1f}", f"{1e6 * one['cpu'] / n:.1f}"]
    cells += [f"**{one['peak']:.0f}**"]
    if two is not None:
        path_cpu = two["cpu"] + two["workers_cpu"] / 2 if two["workers_cpu"] > 0.1 else two["cpu"]
        cells += [f"{two['seconds']:.2f}", f"{one['seconds'] / two['seconds']:.2f} ×", f"{one['cpu'] / path_cpu:.2f} ×"]
        cells += [f"{two['peak']:.0f} + {two['worker']:.0f}"]
    return (method, n, seed, *cells, *[""] * (8 - len(cells)))


COLUMNS = (
    "task", "n", "seed", "one core, s", "µs a row", "CPU µs a row", "peak, MB", "two cores, s", "ratio",
    "CPU ratio", "peak, MB",
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        run_table(__doc__.splitlines()[0], COLUMNS, CASES, measure, first=0)
