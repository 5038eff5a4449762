"""What `deterministic` costs: time with it over time without, in one run.

python -m benchmarks.deterministic
"""

from __future__ import annotations

import time
import warnings
from typing import Any

from benchmarks.table import as_markdown

import invsolve

CASES = (
    ("wave-packet", 4096, "bfgs"), ("wave-packet", 4096, "lm"), ("wave-packet", 65_536, "bfgs"),
    ("billiards", 4096, "bfgs"), ("billiards", 1024, "multistart"), ("billiards", 256, "jpo"),
    ("billiards", 1024, "auto"), ("kuramoto-sivashinsky", 128, "bfgs"),
)  # fmt: skip


def seconds(data: invsolve.Dataset, method: str, **more: Any) -> float:
    """Of the faster of two solves by one thread, not compiled."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        invsolve.solve(data, method=method, threads=1, compile="off", **more)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Time all cases, and print a table."""
    warnings.simplefilter("ignore")
    rows = []
    for model, n, method in CASES:
        data = invsolve.generate(model, n, seed=11)
        usual, same = seconds(data, method), seconds(data, method, deterministic=True)
        rows.append([model, n, method, f"{usual:.2f}", f"{same:.2f}", f"{same / usual:.1f}"])
        print(*rows[-1], flush=True)
    print(as_markdown(["model", "examples", "method", "usual, s", "deterministic, s", "ratio"], rows))


if __name__ == "__main__":
    main()
