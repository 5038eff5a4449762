"""What a Ray cluster on this machine costs and gains, and how many ranges one driver can hand out.

    python -m benchmarks.cluster                  # all of it, half an hour on a quiet machine
    python -m benchmarks.cluster --only ranges    # or speed, training

Every run of `speed` and `ranges` is a process of its own, from file to file; what begins once, Ray and its
workers, is not counted. Runs that are compared take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.table import as_markdown
from torch import Tensor

import invsolve
from invsolve import ranges
from invsolve.allocator import keep_freed_memory
from invsolve.cluster.session import connect, disconnect
from invsolve.control import Control
from invsolve.events import Event
from invsolve.run import Run
from invsolve.settings import Cluster, Settings

WHO = {
    "one process": {"threads": 1},
    "two processes": {"threads": 2},
    "1 worker on a cluster": {"cluster": Cluster("ray", workers=1)},
    "2 workers on a cluster": {"cluster": Cluster("ray", workers=2)},
}


class Springs(invsolve.ForwardModel):
    """Positions of a chain of masses and springs, by so many explicit steps that a range takes its time."""

    name = "chains of springs"
    steps = 200

    def __init__(self, masses: int) -> None:
        super().__init__()
        self.masses = masses

    def forward(self, x: Tensor, identifiers: Any) -> Tensor:
        """Stiffness and damping of chains, (b, 2), as 8 positions of a mass (b, 8)."""
        force = torch.ones(1, self.masses, dtype=x.dtype)
        force[:, self.masses // 2 :] = -1.0
        place = speed = force.expand(len(x), -1) * 0
        seen, step = [], 10 / self.steps
        for i in range(self.steps):
            pull = place.roll(1, 1) + place.roll(-1, 1) - 2 * place
            speed = speed + step * (x[:, :1] * pull - x[:, 1:] * speed + force)
            place = place + step * speed
            if (i + 1) % (self.steps // 8) == 0:
                seen.append(place[:, self.masses // 4])
        return torch.stack(seen, dim=1)


class Nothing(invsolve.ForwardModel):
    """y = x: solved where it begins."""

    name = "nothing"

    def forward(self, x: Tensor, identifiers: Any) -> Tensor:
        """x (b, 1) as it is."""
        return x * 1.0


@dataclass(frozen=True)
class Case:
    """So many examples of a model."""

    model: Any
    n: int
    batch: int  # that are evaluated together
    rows: int | None = None  # of a range, where it is not found out


CASES = {
    "short chains": Case(Springs(32), 4096, 128),  # F takes as long of 8 as of 128
    "long chains": Case(Springs(2048), 256, 16),  # as much of each, nearly
    "tiny ranges": Case(Nothing(), 0, 128, rows=64),
    "wide ranges": Case(Nothing(), 0, 4096, rows=4096),
}


def springs(case: Case) -> invsolve.Dataset:
    """Chains whose answers are known."""
    x = torch.from_numpy(np.random.default_rng(5).uniform(0.5, 3.0, (case.n, 2)))
    targets = torch.cat([case.model(part, None) for part in x.split(case.batch)])
    return invsolve.Dataset(targets=targets.numpy(), x0=np.full(2, 1.5))


def child(path: str, name: str, who: str) -> None:
    """Solve a file in this process, and print as JSON what that took."""
    keep_freed_memory()  # as the command does
    case = CASES[name]
    more, folder, heard = WHO[who], Path(path).parent, list[Event]()
    if case.rows is not None:
        ranges.RANGE, ranges.PATIENCE = case.rows, 0.0

    def solve(data: Path) -> float:
        heard.clear()
        out, control = folder / "out.h5", Control(listeners=[heard.append])
        began = time.perf_counter()
        settings = Settings(method="bfgs", compile="off", batch_size=case.batch, **more)
        # As the command does it: `invsolve.solve` would bring the solution into memory.
        Run(data, case.model, {}, settings).solve(out, overwrite=True, resume=False, control=control)
        return time.perf_counter() - began

    if "cluster" in more:
        connect(more["cluster"], None)
        solve(folder / "few.h5")  # the processes have begun, and loaded what they need
    before = time.process_time()
    took = solve(Path(path))
    cpu = time.process_time() - before
    each = [event.told["took"] for event in heard if event.kind == "range"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    disconnect()
    told = {"seconds": took, "cpu": cpu, "ranges": len(each), "median": statistics.median(each), "peak": peak}
    print(json.dumps(told))


def run(path: Path, name: str, who: str) -> dict[str, float]:
    """The same in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.cluster", "--child", str(path), name, who]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def speed(name: str, scale: float, repeats: int) -> list[list[Any]]:
    """One process, two, and the cluster with one and with two workers, in turn."""
    case = replace(CASES[name], n=round(scale * CASES[name].n))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.h5"
        invsolve.write_dataset(path, springs(case))
        invsolve.write_dataset(path.with_name("few.h5"), springs(replace(case, n=8)))
        measured: dict[str, list[dict[str, float]]] = {who: [] for who in WHO}
        for _ in range(repeats):
            for who, found in measured.items():
                found.append(run(path, name, who))
    rows = []
    for who, found in measured.items():
        took = [one["seconds"] for one in found]
        faster = statistics.median(a["seconds"] / b for a, b in zip(measured["one process"], took, strict=True))
        count, each = (statistics.median(one[key] for one in found) for key in ("ranges", "median"))
        spread = f"{min(took):.1f} to {max(took):.1f}"
        rows.append(
            [name, who, f"{statistics.median(took):.1f}", spread, f"{count:.0f}", f"{each:.1f}", f"{faster:.2f}"]
        )
    return rows


def training(n: int, steps: int) -> list[list[Any]]:
    """JPO on Navier-Stokes, whose cost grows with the rows: one process, and crews of one and of two workers."""
    data = invsolve.generate("navier-stokes", n, seed=5)
    options = {"proposals": "none", "steps": steps, "minibatch": 16}
    found, solutions = [], []
    for workers in (0, 1, 2):
        cluster = Cluster("ray", workers=workers) if workers else None
        heard: list[Event] = []
        control = Control(listeners=[heard.append])
        solution = invsolve.solve(
            data, None, "jpo", options=options, refine="none", cluster=cluster, threads=1, control=control
        )
        took = next(event.told["took"] for event in heard if event.kind == "trained")
        solutions.append(solution)
        away = float(np.median(np.abs(solution.loss / solutions[0].loss - 1)))
        found.append([f"crew of {workers}" if workers else "one process", f"{took:.1f}", f"{away:.1g}"])
        disconnect()
    return found


def many(name: str, n: int) -> list[Any]:
    """Ranges without work in F: how many a minute, and what of the processor and of memory the driver takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.h5"
        invsolve.write_dataset(path, invsolve.Dataset(targets=np.zeros((n, 1)), x0=np.zeros(1)))
        invsolve.write_dataset(path.with_name("few.h5"), invsolve.Dataset(targets=np.zeros((512, 1)), x0=np.zeros(1)))
        found = run(path, name, "2 workers on a cluster")
    count, took = int(found["ranges"]), found["seconds"]
    each = f"{1e3 * found['cpu'] / count:.1f}"
    return [name, n, count, f"{took:.1f}", f"{60 * count / took:.0f}", each, f"{found['peak']:.0f}"]


def main() -> None:
    """Measure what is asked for, and print tables."""
    parser = argparse.ArgumentParser(description="invsolve on Ray")
    parser.add_argument("--only", choices=["speed", "training", "ranges"])
    parser.add_argument("--case", choices=["short chains", "long chains"], help="of the measurement of speed")
    parser.add_argument("--scale", type=float, default=1.0, help="of how many examples: so that ranges take 10 s here")
    parser.add_argument("--repeats", type=int, default=3, help="of the measurement of speed")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.child:
        child(*arguments.child)
        return
    if arguments.only in (None, "speed"):
        columns = ["model", "", "seconds", "least and most", "ranges", "seconds of the median range", "times as fast"]
        cases = [arguments.case] if arguments.case else ["short chains", "long chains"]
        rows = [row for case in cases for row in speed(case, arguments.scale, arguments.repeats)]
        print(as_markdown(columns, rows), flush=True)
    if arguments.only in (None, "training"):
        print(as_markdown(["", "seconds", "median change of the losses"], training(64, 60)), flush=True)
    if arguments.only in (None, "ranges"):
        sizes = {"tiny ranges": (32_000, 128_000, 512_000), "wide ranges": (500_000, 1_000_000, 4_000_000, 16_000_000)}
        rows = [many(name, n) for name, ns in sizes.items() for n in ns]
        columns = ["", "examples", "ranges", "seconds", "ranges a minute", "driver's ms a range", "its peak, MB"]
        print(as_markdown(columns, rows))


if __name__ == "__main__":
    main()
