"""The fraction of examples solved by bfgs and by jpo at its defaults, and what it takes, over several seeds.

    python -m benchmarks.solved [MODEL ...] [--seeds K] [--first SEED] [--threads T] [--out TABLE.md]

Seed s makes the data with seed s and trains with seed s. Seeds below 300 were used in choosing jpo's defaults.
"""

from __future__ import annotations

from benchmarks.table import run_table

import invsolve

SIZES = {"wave-packet": 256, "billiards": 256, "kuramoto-sivashinsky": 128, "navier-stokes": 64}
GOALS = {"wave-packet": "≥ 0.90 in 120 s", "billiards": "≥ 0.99 in 60 s", "kuramoto-sivashinsky": "≥ 0.80 in 300 s"}


def measure(name: str, seed: int) -> tuple[object, ...]:
    """One row of the table."""
    data = invsolve.generate(name, SIZES[name], seed=seed)
    settings = invsolve.Settings(seed=seed)
    methods = invsolve.compare(data, methods=["bfgs", "jpo"], settings=settings).methods
    b, j = methods["bfgs"], methods["jpo"]
    work = [f"{m['seconds']:.1f}" for m in (b, j)] + [f"{m['evaluations']['mean']:.0f}" for m in (b, j)]
    wins = f"{j['better']} / {j['tied']} / {j['worse']}"
    goal = GOALS.get(name, "none")
    return (name, SIZES[name], seed, f"{b['solved']:.3f}", f"**{j['solved']:.3f}**", goal, *work, wins)


COLUMNS = (
    "model", "n", "seed", "solved by bfgs", "solved by jpo", "goal for jpo", "bfgs, s", "jpo, s", "bfgs evals",
    "jpo evals", "jpo better / tied / worse",
)  # fmt: skip

if __name__ == "__main__":
    run_table(__doc__.splitlines()[0], COLUMNS, list(SIZES), measure, first=300)
