"""SIGKILL at random moments of runs, and `resume`: is any example lost, any file unreadable, any number another?

    python -m benchmarks.kills                 # 50 kills each of bfgs and jpo
    python -m benchmarks.kills --kills 10 --methods jpo,auto

A run is killed after a random time, resumed and killed again, until it has ended; then the next one begins. After each
kill every file that it left is read; at the end the solution is held against that of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.table import as_markdown

import invsolve
from invsolve import checkpoints, ranges
from invsolve.data.checkpoint_file import read_checkpoint
from invsolve.data.solution import COLUMNS
from invsolve.data.store import read_columns

OPTIONS: dict[str, dict[str, Any]] = {"jpo": {"passes": 60, "width": 16, "channels": 4}, "auto": {"simulations": 30}}
EXAMPLES = {"bfgs": 20_000}
COMPARED = [*(c for c in COLUMNS if c != "example"), "found_by", "starts", "minima"]


def solve(method: str, data: Path, out: Path) -> None:
    options = OPTIONS.get(method, {})
    invsolve.solve(data, method=method, options=options, out=out, resume=True, threads=1, checkpoint_every=0.05)


def in_a_child(method: str, data: Path, out: Path, after: float) -> bool:
    """Solve in a process that is killed after so many seconds; whether it was."""
    child = os.fork()
    if not child:
        try:
            solve(method, data, out)
        except BaseException:
            traceback.print_exc()
        os._exit(not out.exists())
    deadline = time.monotonic() + after
    while time.monotonic() < deadline and (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        time.sleep(0.001)
    if time.monotonic() < deadline:
        if ended[1]:
            raise SystemExit(f"{method} ended with {ended[1]}")
        return False
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def read_all(folder: Path) -> dict[str, int]:
    """How many files of each kind a kill has left in a run's folder, all of them read."""
    found = {"ranges": 0, "checkpoints": 0}
    for path in folder.glob("[!.]*.h5"):
        if path.name != "final.h5":
            read_columns(path)
            found["ranges"] += path.name.startswith("rows-")
    for path in folder.glob("checkpoint.safetensors"):
        read_checkpoint(path)
        found["checkpoints"] += 1
    return found


def measure(method: str, kills: int, draw: random.Random, folder: Path) -> dict[str, Any]:
    """So many kills of one method's runs."""
    data, calm, out = folder / f"{method}.data.h5", folder / f"{method}.h5", folder / f"{method}.killed.h5"
    n = EXAMPLES.get(method, 256)
    model = {"samples": 32}
    invsolve.write_dataset(data, invsolve.generate("wave-packet", n, seed=1, model_options=model))
    began = time.monotonic()
    in_a_child(method, data, calm, 3600.0)
    took, done, runs, most, others = time.monotonic() - began, 0, 0, 0, 0
    expected, unreadable, lost = invsolve.read_solution(calm), 0, 0
    while done < kills:
        before = 0
        while in_a_child(method, data, out, draw.uniform(0, took)):
            done += 1
            try:
                left = read_all(out.with_name(out.name + ".parts"))
                lost += left["ranges"] < before
                before = left["ranges"]
                most = max(most, before, left["checkpoints"])
            except invsolve.InvsolveError as error:
                print(error)
                unreadable += 1
        found = invsolve.read_solution(out)
        columns = (c for c in COMPARED if getattr(expected, c) is not None)
        others += sum(not np.array_equal(getattr(found, c), getattr(expected, c), equal_nan=True) for c in columns)
        lost += (len(found) != n) + int((found.status == invsolve.Status.NOT_RUN).any())
        lost += out.with_name(out.name + ".parts").exists()
        out.unlink()
        runs += 1
    return {
        "method": method, "examples": n, "undisturbed, s": round(took, 1), "kills": done, "runs": runs,
        "pieces kept at a kill, at most": most, "unreadable files": unreadable, "examples lost": lost,
        "columns that differ": others,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--methods", default="bfgs,jpo")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ranges.RANGE, ranges.PATIENCE = 500, 0.0  # many pieces of a short run
    checkpoints._SHARE = 0
    with tempfile.TemporaryDirectory() as folder:
        draw = random.Random(arguments.seed)
        rows = []
        for method in arguments.methods.split(","):
            rows.append(measure(method, arguments.kills, draw, Path(folder)))
            print(rows[-1], flush=True)
    print(as_markdown(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main()
