"""One contestant at one work, in a process and on a core of its own: `python -m benchmarks.speed.child --help`."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmarks.speed.works import WORKS, Arrays, Prepared

LONG = 10.0  # seconds of a solve that is not repeated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work")
    parser.add_argument("contestant")
    parser.add_argument("arrays", type=Path, help="the npz to read")
    parser.add_argument("out", type=Path, help="the npz to write x, rows and what was measured to")
    parser.add_argument("--core", type=int, help="to stay on")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, help="how many, spread over all; by default all")
    a = parser.parse_args()
    if a.core is not None:
        os.sched_setaffinity(0, {a.core})  # before any library makes threads
    work, arrays = WORKS[a.work], Arrays.read(a.arrays)
    rows = np.linspace(0, work.n - 1, a.rows or work.n).round().astype(np.int64)
    arrays = arrays.select(rows)
    contestant = work.contestants[a.contestant]
    prepare = getattr(import_module(f"benchmarks.speed.{contestant.module}"), contestant.prepare)
    prepared = prepare(work, arrays, **contestant.options)
    x, measured = measure(prepared, a.repeats)
    np.savez(a.out, x=x, rows=rows, measured=json.dumps(measured))


def measure(prepared: Prepared, repeats: int) -> tuple[Any, dict[str, Any]]:
    """x (n, d) and the seconds of each repeat; a long solve is made once."""
    first = _seconds(prepared.solve)[1] if prepared.cold else 0.0
    seconds: list[float] = []
    while len(seconds) < (1 if max(seconds, default=0) >= LONG else repeats):
        x, s = _seconds(prepared.solve)
        seconds.append(s - prepared.compiling())
    compile_seconds = max(first - median(seconds), 0.0) if prepared.cold else prepared.compile_seconds
    return x, {"seconds": seconds, "compile": compile_seconds, "note": prepared.note}


def _seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
