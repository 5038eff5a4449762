"""optimistix and jaxopt: the solver of one example under `jax.jit(jax.vmap(...))`, at its best batch size.

Under `vmap` all rows of a batch go on until the slowest of them has ended, so that smaller batches may be faster: those
of `BATCHES` are tried, the smallest first, until one takes half as long again as the best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import lineax
import numpy as np
import optimistix
from benchmarks.speed.jax_models import make_model
from benchmarks.speed.works import Array, Arrays, Prepared, Work

BATCHES = (16, 64, 256, 1024, 4096, 16384)
STEPS = 256  # optimistix's default limit; its steps are evaluations, the rejected ones included
Solve = Callable[[Any, Any], Any]  # x (d,) from x0 (d,) and (target, identifiers) of one example


def prepare_lm(work: Work, arrays: Arrays, dtype: str, linear: str, tolerance: float) -> Prepared:
    """optimistix's Levenberg–Marquardt, with its default QR or, for speed, with Cholesky of the normal equations."""
    residual, _ = _make_functions(work, arrays, dtype)
    linear_solver = {"qr": lineax.QR(), "cholesky": lineax.Normal(lineax.Cholesky())}[linear]
    solver = optimistix.LevenbergMarquardt(tolerance, tolerance, linear_solver=linear_solver)

    def solve(x0: Any, known: Any) -> Any:
        return optimistix.least_squares(residual, solver, x0, known, throw=False, max_steps=STEPS).value

    return _batched(solve, arrays, dtype, f"rtol = atol = {tolerance:g}, {linear}")


def prepare_optimistix(work: Work, arrays: Arrays, tolerance: float, batches: Sequence[int] = BATCHES) -> Prepared:
    """optimistix's BFGS, in float64."""
    _, loss = _make_functions(work, arrays, "float64")
    solver = optimistix.BFGS(tolerance, tolerance)

    def solve(x0: Any, known: Any) -> Any:
        return optimistix.minimise(loss, solver, x0, known, throw=False, max_steps=STEPS).value

    return _batched(solve, arrays, "float64", f"rtol = atol = {tolerance:g}", batches)


def prepare_jaxopt(work: Work, arrays: Arrays) -> Prepared:
    """jaxopt's BFGS, in float64, at its defaults."""
    _, loss = _make_functions(work, arrays, "float64")
    solver = jaxopt.BFGS(loss, implicit_diff=False)

    def solve(x0: Any, known: Any) -> Any:
        return solver.run(x0, known).params

    # In one batch: smaller ones take longer still, to find that out as well.
    return _batched(solve, arrays, "float64", f"defaults ({solver.tol:g} on the gradient)", ())


def _make_functions(work: Work, arrays: Arrays, dtype: str) -> tuple[Solve, Solve]:
    """Residual and loss of one example from x and (target, identifiers), seen in float64 to agree with ours."""

    def make(dtype: str) -> tuple[Solve, Solve]:
        model = make_model(work.model, jnp.dtype(dtype), **work.model_options)

        def residual(x: Any, known: Any) -> Any:
            return (model(x, known[1]) - known[0]).ravel()

        return residual, lambda x, known: 0.5 * jnp.sum(residual(x, known) ** 2)

    jax.config.update("jax_enable_x64", True)
    known = arrays["witness_targets"], arrays.get("witness_identifiers")
    loss, gradient = jax.vmap(jax.value_and_grad(make("float64")[1]))(arrays["witness_x"], known)
    arrays.check(loss, gradient, work.agreement)
    # With both precisions at hand, optimistix mixes them up in float32.
    jax.config.update("jax_enable_x64", dtype == "float64")
    return make(dtype)


def _batched(solve: Solve, arrays: Arrays, dtype: str, note: str, sizes: Sequence[int] = BATCHES) -> Prepared:
    """Solve all rows in batches of the size that is fastest."""
    best, least = None, np.inf
    for size in [size for size in sizes if size < len(arrays["x0"])] + [len(arrays["x0"])]:
        batches = Batches(solve, arrays, dtype, size)
        seconds = batches.seconds_per_row()
        if seconds < least:
            best, least = batches, seconds
        elif seconds > 1.5 * least:
            break
    assert best is not None
    return Prepared(best.solve, f"{note}, batches of {best.size}", best.compile_seconds)


class Batches:
    """All rows in batches of one size, the last one filled up with the first rows, and the solver compiled for it."""

    def __init__(self, solve: Solve, arrays: Arrays, dtype: str, size: int) -> None:
        self.n, self.size = len(arrays["x0"]), size
        rows = (np.arange(-(-self.n // size) * size) % self.n).reshape(-1, size)

        def split(name: str) -> list[Any]:
            return [jnp.asarray(arrays[name][r], dtype) for r in rows] if name in arrays else [None] * len(rows)

        known = zip(split("targets"), split("identifiers"), strict=True)
        self.batches = list(zip(split("x0"), known, strict=True))
        start = time.perf_counter()
        self.compiled = jax.jit(jax.vmap(solve)).lower(*self.batches[0]).compile()
        self.compile_seconds = time.perf_counter() - start

    def solve(self) -> Array:
        """x (n, d)."""
        found = [self.compiled(*batch) for batch in self.batches]
        return np.concatenate([np.asarray(x) for x in found])[: self.n].astype(np.float64)

    def seconds_per_row(self) -> float:
        """From some batches, enough for a second or four of them."""
        start = time.perf_counter()
        for done, batch in enumerate(self.batches, 1):
            self.compiled(*batch).block_until_ready()
            seconds = time.perf_counter() - start
            if done >= 4 and seconds > 1:
                break
        return seconds / (done * self.size)
