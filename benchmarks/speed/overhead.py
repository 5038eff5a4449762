"""What solving takes over the bare cost of the rows of F that it evaluates: 1.0 would be a solver that costs nothing.

    python -m benchmarks.speed.overhead [CASE ...] [--repeats K] [--core C] [--out TABLE.md]

For `solve` the bare cost is (rows differentiated) × (cost of a row with gradient) + (rows evaluated only) × (cost of a
row without), both counted by the solution and costed by calls of ½ Σ (F − y*)² and its gradient in plain PyTorch (not
compiled, neither is ours), per row of the batch size at which a row is cheapest, whatever the solve used. So all that
is ours counts as overhead: batches that shrink as rows finish, bookkeeping, the check that rows are apart, the whole of
`invsolve.solve`. It is made at each of a few batch sizes, and the best is told.

For `lm` a round takes the loss, JᵀJ and Jᵀr: the bare cost is of the function that it compiles for them, by itself,
times the rows of F evaluated, but for start and result, which are scored by F alone. What compiling takes is left out.

For `jpo` it is one training step, from the difference of runs with few and with many steps, over a bare call with one
minibatch. The bare calls are made before and after each solve and averaged, so that a drift of the machine cancels.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from benchmarks.speed.judge import make_data
from benchmarks.speed.with_invsolve import known_settings
from benchmarks.speed.works import WORKS, Work
from benchmarks.table import as_markdown
from torch import Tensor

import invsolve
from invsolve.compilation import record_and_compile
from invsolve.least_squares import RobustLoss, fused_normal_equations
from invsolve.problem import Problem
from invsolve.registry import registered

Call = Callable[[], object]
BARE_BATCHES = (16, 64, 128, 256, 512, 1024, 2048, 4096)
COMPILED_BATCHES = (512, 1024, 2048, 4096)
LONG = 10.0  # seconds of a solve that is not repeated
TRIAL = 0.5  # seconds of calls to find the cost at one batch size


@dataclass(frozen=True)
class Case:
    """A work and the sizes of batches to solve it in, or with jpo the numbers of training steps."""

    work: Work
    goal: str
    batches: Sequence[int] = (1024,)
    steps: tuple[int, int] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def _flow(name: str, n: int, method: str) -> Work:
    return Work(name, n, method, {})


CASES = {
    "kuramoto-sivashinsky": Case(_flow("kuramoto-sivashinsky", 2048, "bfgs"), "≤ 1.3", (256, 1024, 2048)),
    # A whole solve takes minutes; the first 20 evaluations of each row tell as much of what an evaluation costs.
    "navier-stokes": Case(_flow("navier-stokes", 64, "bfgs"), "≤ 1.3", (64,), settings={"max_evaluations": 20}),
    "gaussian": Case(WORKS["gaussian"], "≤ 1.7", (512, 1024, 2048), settings={"dtype": "float32"}),
    "jpo-kuramoto-sivashinsky": Case(_flow("kuramoto-sivashinsky", 128, "jpo"), "≤ 1.3", steps=(5, 105)),
    "jpo-navier-stokes": Case(_flow("navier-stokes", 64, "jpo"), "≤ 1.3", steps=(2, 22)),
}
MINIBATCH = 8  # jpo's default
COLUMNS = (
    "case", "n", "method", "batch size", "ours, s", "bare, s", "ours / bare", "goal", "bare ms a row",
    "cheapest in batches of", "rows of F",
)  # fmt: skip


class Bare:
    """F with its loss and gradient and nothing else, per row at several batch sizes."""

    def __init__(self, work: Work, data: invsolve.Dataset, dtype: torch.dtype) -> None:
        self.model = invsolve.load_model(work.model, **work.model_options)
        given = (data.targets, data.x_true, data.identifiers)
        tensors = [None if a is None else torch.as_tensor(np.asarray(a)).to(dtype) for a in given]
        self.targets, self.x, self.identifiers = tensors
        self.compiled: dict[int, Callable[..., Any]] = {}  # by batch size

    def loss(self, b: int) -> Call:
        """F and the loss of b rows."""
        x, known, targets = self._rows(b)

        def call() -> None:
            with torch.no_grad():
                (self.model(x, known) - targets).square().sum()

        return call

    def gradient(self, b: int) -> Call:
        """F, the loss and its gradient of b rows."""
        x, known, targets = self._rows(b)

        def call() -> None:
            z = x.requires_grad_()
            torch.autograd.grad(0.5 * (self.model(z, known) - targets).square().sum(), z)

        return call

    def normal_equations(self, b: int) -> Call:
        """Loss, JᵀJ and Jᵀr of b rows by the function that `lm` compiles, by itself."""
        data = invsolve.Dataset(self.targets.numpy(), x0=self.x.numpy())
        shape = tuple(self.x.shape[1:])
        problem = Problem(self.model, data.rows(0, b), shape, torch.device("cpu"), self.targets.dtype)
        batch, linear = problem.batch(torch.arange(b)), RobustLoss("linear", 1.0)
        z = problem.coordinates.to_solver(problem.x0)
        inputs = [z, *batch.tensors()]

        def whole(z: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
            return fused_normal_equations(problem, batch.rebuilt(known), z, linear)[:3]

        if b not in self.compiled:
            self.compiled[b] = record_and_compile(whole, inputs)
        compiled = self.compiled[b]

        def call() -> None:
            with torch.no_grad():
                compiled(*inputs)

        return call

    def _rows(self, b: int) -> tuple[Tensor, Tensor | None, Tensor]:
        rows = torch.arange(b) % len(self.targets)
        return self.x[rows], None if self.identifiers is None else self.identifiers[rows], self.targets[rows]


def cheapest(make: Callable[[int], Call], sizes: Sequence[int]) -> int:
    """The batch size at which a row is cheapest."""
    return min(sizes, key=lambda b: seconds_of(make(b)) / b)


def seconds_of(call: Call) -> float:
    """The median call, for about `TRIAL` seconds and at least thrice, after one to warm up."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < TRIAL:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


class Costs:
    """What a row costs by itself, at the batch sizes that are best for it."""

    def __init__(self, bare: Bare, method: str, n: int) -> None:
        sizes = COMPILED_BATCHES if method == "lm" else [b for b in BARE_BATCHES if b <= max(n, 64)]
        self.with_gradient = bare.normal_equations if method == "lm" else bare.gradient
        self.method, self.value, self.n = method, bare.loss, n
        self.best, self.best_value = cheapest(self.with_gradient, sizes), cheapest(self.value, BARE_BATCHES)

    def now(self) -> tuple[float, float]:
        """Seconds of a row with gradient, and of one without."""
        gradient, value = seconds_of(self.with_gradient(self.best)), seconds_of(self.value(self.best_value))
        return gradient / self.best, value / self.best_value

    def of(self, solution: invsolve.Solution, gradient: float, value: float) -> float:
        """Seconds of all rows that a solution counts."""
        evaluations, gradients = int(solution.evaluations.sum()), int(solution.gradients.sum())
        if self.method == "lm":  # start and result are scored apart from the rounds, one evaluation each
            gradients = evaluations - 2 * self.n
        return gradients * gradient + (evaluations - gradients) * value


@dataclass(frozen=True, order=True)
class Measured:
    """One solve beside its bare cost; the order is that of the ratio."""

    ratio: float
    seconds: float
    bare: float
    batch: int
    bare_row: float
    rows: int


def solve_case(name: str, repeats: int) -> tuple[object, ...]:
    """A row of the table for a whole solve at its best batch size."""
    case = CASES[name]
    work, data = case.work, make_data(case.work)
    method = work.method if work.method in registered("methods") else "bfgs"
    costs = Costs(Bare(work, data, getattr(torch, case.settings.get("dtype", "float64"))), method, work.n)
    compiled = "on" if method == "lm" else "off"
    settings = known_settings(method=method, threads=1, compile=compiled, **case.settings)
    if method == "lm":
        invsolve.solve(data, **settings)  # compiles
    medians = []
    for batch in case.batches:
        found: list[Measured] = []
        while len(found) < (1 if found and found[0].seconds > LONG else repeats):
            found.append(_beside_bare(data, settings | {"batch_size": batch}, costs))
        medians.append(_middle(found))
    m = min(medians)
    return (
        name, work.n, method, m.batch, f"{m.seconds:.3g}", f"{m.bare:.3g}", f"**{m.ratio:.2f}**", case.goal,
        f"{1000 * m.bare_row:.3g}", costs.best, m.rows,
    )  # fmt: skip


def _beside_bare(data: invsolve.Dataset, settings: dict[str, Any], costs: Costs) -> Measured:
    before = costs.now()
    start = time.perf_counter()
    solution = invsolve.solve(data, **settings)
    seconds = time.perf_counter() - start - solution.attributes["compile_seconds"]
    gradient, value = np.mean([before, costs.now()], axis=0)
    bare = costs.of(solution, gradient, value)
    return Measured(seconds / bare, seconds, bare, settings["batch_size"], gradient, int(solution.evaluations.sum()))


def _middle(measured: list[Any]) -> Any:
    """The one with the median ratio."""
    return sorted(measured)[(len(measured) - 1) // 2]


def step_case(name: str, repeats: int) -> tuple[object, ...]:
    """A row of the table for a training step of jpo."""
    case = CASES[name]
    assert case.steps is not None
    data, (few, many) = make_data(case.work), case.steps
    call = Bare(case.work, data, torch.float64).gradient(MINIBATCH)
    found = []
    for _ in range(repeats):
        before = seconds_of(call)
        step = (_training_seconds(data, many) - _training_seconds(data, few)) / (many - few)
        bare = 0.5 * (before + seconds_of(call))
        found.append((step / bare, step, bare))
    ratio, step, bare = _middle(found)
    return (
        name, case.work.n, "jpo", MINIBATCH, f"{step:.3g} a step", f"{bare:.3g}", f"**{ratio:.2f}**", case.goal,
        f"{1000 * bare / MINIBATCH:.3g}", MINIBATCH, many * MINIBATCH,
    )  # fmt: skip


def _training_seconds(data: invsolve.Dataset, steps: int) -> float:
    options = {"steps": steps, "passes": 10**6, "minibatch": MINIBATCH}
    settings = known_settings(method="jpo", options=options, refine="none", threads=1, compile="off")
    start = time.perf_counter()
    invsolve.solve(data, **settings)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="Markdown file to keep the table in")
    a = parser.parse_args()
    os.sched_setaffinity(0, {a.core})
    torch.set_num_threads(1)
    rows = []
    for name in a.cases:
        rows.append((step_case if CASES[name].steps else solve_case)(name, a.repeats))
        print(as_markdown(COLUMNS, rows[-1:]).splitlines()[-1], flush=True)
    table = as_markdown(COLUMNS, rows)
    print(table)
    if a.out:
        a.out.write_text(table + "\n")


if __name__ == "__main__":
    main()
