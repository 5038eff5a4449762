"""What a Ray cluster on this machine costs and gains, and how many ranges one driver can hand out.

python -m benchmarks.cluster                  # all of it, some minutes
python -m benchmarks.cluster --only ranges    # or speed, training
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.table import as_markdown
from torch import Tensor

import invsolve
from invsolve import ranges
from invsolve.cluster.session import connect, disconnect
from invsolve.control import Control
from invsolve.events import Event
from invsolve.settings import Cluster

SPRING = {"name": "damped springs", "x0": np.array([0.5, 0.5])}


class Springs(invsolve.ForwardModel):
    """Positions of a damped spring, by so many explicit steps that a range takes its time."""

    steps = 2000

    def forward(self, x: Tensor, identifiers: Any) -> Tensor:
        """Two springs' stiffness and damping, (b, 2), as 8 positions (b, 8)."""
        place, speed, seen = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
        for i in range(self.steps):
            speed = speed - (5 / self.steps) * (x[:, 0] * place + x[:, 1] * speed)
            place = place + (5 / self.steps) * speed
            if (i + 1) % (self.steps // 8) == 0:
                seen.append(place)
        return torch.stack(seen, dim=1)


def springs(n: int) -> invsolve.Dataset:
    """n springs whose answers are known."""
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.uniform(0.5, 3.0, (n, 2)))
    return invsolve.Dataset(targets=Springs()(x, None).numpy(), x0=np.array([1.5, 1.5]))


def seconds(data: invsolve.Dataset, model: Any, **more: Any) -> tuple[float, list[float]]:
    """That one solve takes, written to a file, and those of each range."""
    heard: list[Event] = []
    with tempfile.TemporaryDirectory() as folder:
        out, control = Path(folder) / "out.h5", Control(listeners=[heard.append])
        began = time.perf_counter()
        invsolve.solve(data, model, "bfgs", compile="off", batch_size=1024, out=out, control=control, **more)
        return time.perf_counter() - began, [event.told["took"] for event in heard if event.kind == "range"]


def speed(n: int) -> list[list[Any]]:
    """One process, and the cluster with one and with two workers."""
    data = springs(n)
    alone, took = seconds(data, Springs(), threads=1)
    found = [["one process", f"{alone:.1f}", len(took), f"{np.median(took):.1f}", "1.00"]]
    for workers in (1, 2):
        cluster = Cluster("ray", workers=workers)
        connect(cluster, None)
        seconds(springs(64), Springs(), cluster=cluster)  # the processes have begun, and loaded what they need
        whole, took = seconds(data, Springs(), cluster=cluster)
        found.append(
            [f"{workers} on a cluster", f"{whole:.1f}", len(took), f"{np.median(took):.1f}", f"{alone / whole:.2f}"]
        )
    disconnect()
    return found


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


def many(n: int, rows: int) -> list[Any]:
    """Tiny ranges without work in F: ranges a minute, and what the driver's memory grew by."""
    ranges.RANGE, ranges.PATIENCE = rows, 0.0
    data = invsolve.Dataset(targets=np.zeros((n, 1)), x0=np.zeros(1))
    cluster = Cluster("ray", workers=2)
    seconds(invsolve.Dataset(targets=np.zeros((rows, 1)), x0=np.zeros(1)), nothing, cluster=cluster)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took, _ = seconds(data, nothing, cluster=cluster)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    disconnect()
    count = math.ceil(n / rows)
    return [n, count, f"{took:.1f}", f"{60 * count / took:.0f}", f"{grown:.0f}"]


def nothing(x: Tensor, identifiers: Any) -> Tensor:
    """y = x: solved where it begins."""
    return x * 1.0


def main() -> None:
    """Measure what is asked for, and print tables."""
    parser = argparse.ArgumentParser(description="invsolve on Ray")
    parser.add_argument("--only", choices=["speed", "training", "ranges"])
    parser.add_argument("--examples", type=int, default=16_384, help="of the measurement of speed")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.only in (None, "speed"):
        rows = speed(arguments.examples)
        print(as_markdown(["", "seconds", "ranges", "seconds of the median range", "times as fast"], rows))
    if arguments.only in (None, "training"):
        print(as_markdown(["", "seconds", "median change of the losses"], training(64, 60)))
    if arguments.only in (None, "ranges"):
        rows = [many(n, 64) for n in (32_000, 128_000)]
        print(as_markdown(["examples", "ranges", "seconds", "ranges a minute", "driver grew by, MB"], rows))


if __name__ == "__main__":
    main()
