"""Which of NIST's 27 nonlinear regression sets are solved from which start, by SciPy's methods and by ours.

    python -m benchmarks.regression [SET ...] [--out TABLE.md]

A fit counts as reached where it agrees with the certified optimum in the sum of squares and in every parameter, see
tests/strd/problems.py. All have the same F, exact derivatives from autograd and default tolerances; the limits on
iterations and evaluations are raised, so that none fails for its patience. "tight" asks least squares for
ftol = xtol = gtol = 1e-15, and BFGS for gtol = 1e-15. A cell is ✓ and the evaluations of F it took; or, where the
optimum is missed, what was found: sum of squares / certified, digits of the worst parameter, and the evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import torch
from tests.strd.problems import NAMES, Problem, load

import invsolve
from invsolve.registry import registered

PATIENCE = 20_000  # evaluations, or iterations
OURS = ("bfgs", "lbfgs", "lm")  # those that are registered take part


class Fit(NamedTuple):
    """What a method found from one start."""

    x: np.ndarray  # (d,)
    evaluations: int


def _torch_row(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x, dtype=np.float64))[None]


def scipy_bfgs(gtol: float, problem: Problem, start: np.ndarray) -> Fit:
    """`scipy.optimize.minimize(method="BFGS")` on half of the sum of squares."""
    targets, function = torch.from_numpy(problem.targets), problem.function

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = _torch_row(x).requires_grad_()
        loss = 0.5 * (function(z, None)[0] - targets).square().sum()
        return loss.item(), torch.autograd.grad(loss, z)[0][0].numpy()

    with np.errstate(all="ignore"):
        options = {"maxiter": PATIENCE, "gtol": gtol}
        fit = scipy.optimize.minimize(value_and_gradient, start, method="BFGS", jac=True, options=options)
    return Fit(fit.x, fit.nfev)


def scipy_least_squares(method: str, tolerances: dict[str, float], problem: Problem, start: np.ndarray) -> Fit:
    """`scipy.optimize.least_squares`; where it raises, as `trf` does on NaN, the start is what it found."""
    function = problem.function

    def residual(x: np.ndarray) -> np.ndarray:
        return function(_torch_row(x), None)[0].numpy() - problem.targets

    def jacobian(x: np.ndarray) -> np.ndarray:
        return torch.autograd.functional.jacobian(lambda z: function(z, None)[0], _torch_row(x))[:, 0].numpy()

    with np.errstate(all="ignore"):
        try:
            fit = scipy.optimize.least_squares(
                residual, start, jacobian, method=method, max_nfev=PATIENCE, **tolerances
            )
        except (ValueError, np.linalg.LinAlgError):
            return Fit(start, 0)
    return Fit(fit.x, fit.nfev)


def ours(method: str, problem: Problem) -> list[Fit]:
    """`invsolve.solve` from both starts at once."""
    options = {"max_iterations": PATIENCE}
    solution = invsolve.solve(problem.dataset(), problem.function, method, options=options, device="cpu")
    return [Fit(x, int(n)) for x, n in zip(solution.x, solution.evaluations, strict=True)]


def _each_start(solve: Callable[[Problem, np.ndarray], Fit], problem: Problem) -> list[Fit]:
    return [solve(problem, start) for start in problem.starts]


def methods() -> dict[str, Callable[[Problem], list[Fit]]]:
    """The columns of the table: fits from both starts of a set."""
    tight = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15)
    columns: dict[str, Callable[[Problem], list[Fit]]] = {}
    for what, gtol in (("", 1e-5), (", tight", 1e-15)):
        columns[f"SciPy BFGS{what}"] = partial(_each_start, partial(scipy_bfgs, gtol))
    for method in ("lm", "trf"):
        for what, tolerances in (("", {}), (", tight", tight)):
            columns[f"SciPy {method}{what}"] = partial(_each_start, partial(scipy_least_squares, method, tolerances))
    known = registered("methods")
    return columns | {name: partial(ours, name) for name in OURS if name in known}


def cell(problem: Problem, fit: Fit) -> str:
    """How a fit did."""
    if problem.reached(fit.x):
        return f"✓ {fit.evaluations}"
    return f"{problem.rss(fit.x) / problem.certified_rss:.3g} / {max(problem.digits(fit.x), 0):.1f} ({fit.evaluations})"


def _row(cells: list[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Print the table, and keep it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=list(NAMES))
    parser.add_argument("--out", type=Path, help="Markdown file to keep the table in")
    parser.add_argument("--only", nargs="*", help="columns to measure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = {k: v for k, v in methods().items() if not arguments.only or k in arguments.only}
    counts = dict.fromkeys(columns, 0)
    lines = [_row(["set", "level", "start", *columns]), _row(["---"] * (3 + len(columns)))]
    print("\n".join(lines))
    for name in arguments.sets:
        problem = load(name)
        fits = {column: solve(problem) for column, solve in columns.items()}
        for i in range(2):
            lines.append(_row([name, problem.difficulty, i + 1, *(cell(problem, f[i]) for f in fits.values())]))
            print(lines[-1], flush=True)
        for column, found in fits.items():
            counts[column] += sum(problem.reached(fit.x) for fit in found)
    lines.append(_row(["**reached**", "", f"of {2 * len(arguments.sets)}", *(f"**{n}**" for n in counts.values())]))
    print(lines[-1])
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
