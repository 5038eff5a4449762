"""The weighted residuals and their Jacobian, all examples in one batched call."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from invsolve.errors import ModelError
from invsolve.memory import ran_out
from invsolve.problem import Batch, Conduct, Problem

AT_ONCE, REPEATED, BACKWARD = "directions at once", "repeated examples", "backward passes"


def jacobian_cost(d: int, m: int, conduct: Conduct | None = None) -> int:
    """Evaluations of F per row that a Jacobian takes, for d unknowns and m targets; at most, unless `conduct` tells."""
    found_out = "" if conduct is None else conduct.jacobian_by
    return d if d <= m and found_out in ("", REPEATED) else 1


def find_out(problem: Problem, limit: Tensor) -> None:
    """Find the way in which the model's Jacobian can be had, by that of a row at x0.

    It is the row that is furthest from the `limit` (n,) of its evaluations. Where that leaves too little for every way,
    only the one that takes a single evaluation is tried.
    """
    if problem.d > problem.targets.shape[1] or problem.conduct.jacobian_by:
        return
    left = limit - problem.evaluations
    row = left.argmax().reshape(1)
    if left[row] >= problem.d:
        weighted_jacobian(problem, row, problem.x0[row])
    elif left[row] >= 1:
        with contextlib.suppress(Exception, SystemExit):  # it stays unknown, and is taken to be dear
            *_, evaluations, gradients = _directions_at_once(problem, problem.batch(row), problem.x0[row])
            problem.count(row, evaluations=evaluations, gradients=gradients)
            problem.conduct.jacobian_by = AT_ONCE


def weighted_jacobian(problem: Problem, rows: Tensor, x: Tensor) -> Tensor:
    """∂r/∂x (b, m, d) of r = (F − y*) / σ at the user's x (b, d), zero where nothing was observed; NaN where F fails.

    Counted.
    """
    m = problem.targets.shape[1]
    failed = (x.new_full((1, m), torch.nan), x.new_full((1, m, problem.d), torch.nan), _one(x[:1]), 0 * _one(x[:1]))
    _, jacobian, evaluations, gradients = problem.attempt(
        lambda batch, v: linearized(problem, batch, v), "Jacobian", problem.batch(rows), x, failed=failed
    )
    problem.count(rows, evaluations=evaluations, gradients=gradients)
    return jacobian


def linearized(problem: Problem, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted residuals (b, m), their Jacobian (b, m, d) at the user's x, and the evaluations and gradients (b,) made.

    In forward mode where there are no more unknowns than targets: F once with all d directions beside it where the
    model can be vectorized over them, else every example d times with a direction each. In reverse mode, F once and a
    backward pass for each of m targets, where there are fewer targets or the model has no forward derivatives. Which it
    is, is found out at the first call and kept in `Conduct.jacobian_by`.
    """
    ways: dict[str, Callable[..., tuple[Tensor, Tensor, int, int]]] = {
        AT_ONCE: _directions_at_once,
        REPEATED: _repeated_examples,
        BACKWARD: _backward_passes,
    }
    if problem.d > problem.targets.shape[1]:
        found = _backward_passes(problem, batch, x)
    elif problem.conduct.jacobian_by:
        found = ways[problem.conduct.jacobian_by](problem, batch, x)
    else:
        for name, way in ways.items():
            try:
                found = way(problem, batch, x)
            except ModelError:
                raise
            except (Exception, SystemExit) as error:  # an operation without such a derivative, or rows that raise
                if name == BACKWARD or ran_out(error):  # of memory, less rows at a time are asked for
                    raise
                continue
            problem.conduct.jacobian_by = name
            break
    residual, jacobian, evaluations, gradients = found
    return residual, jacobian, evaluations * _one(x), gradients * _one(x)


def _one(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.int64, device=x.device)


def _directions_at_once(problem: Problem, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor, int, int]:
    b, d = x.shape
    directions = torch.eye(d, dtype=x.dtype, device=x.device)[:, None, :].expand(d, b, d)

    def along(v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(lambda p: problem.residual(batch, p), (x,), (v,))  # type: ignore[return-value]

    with _no_slow_loops(problem.conduct.jacobian_by == ""):
        residual, derivative = torch.func.vmap(along, out_dims=(None, 2))(directions)  # type: ignore[arg-type]
    return residual, derivative, 1, d


@contextlib.contextmanager
def _no_slow_loops(first: bool) -> Iterator[None]:
    """At the first call, an operation that vmap would loop over, which it only warns of, is an error."""
    if not first:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*performance drop.*")
        yield


def _repeated_examples(problem: Problem, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor, int, int]:
    b, d = x.shape
    repeated = batch.select(torch.arange(b, device=x.device).repeat_interleave(d))
    directions = torch.eye(d, dtype=x.dtype, device=x.device).repeat(b, 1)
    residual, derivative = torch.func.jvp(  # type: ignore[misc]
        lambda v: problem.residual(repeated, v), (x.repeat_interleave(d, dim=0),), (directions,)
    )
    return residual[::d], derivative.reshape(b, d, -1).mT, d, d


def _backward_passes(problem: Problem, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor, int, int]:
    """By plain autograd rather than `torch.func.vjp`, which takes no `autograd.Function` of the older form."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        residual = problem.residual(batch, x)
    m = residual.shape[1]
    gradients = []
    for k in range(m):
        weight = torch.zeros_like(residual)
        weight[:, k] = 1
        gradients.append(torch.autograd.grad(residual, x, weight, retain_graph=k + 1 < m)[0])
    return residual.detach(), torch.stack(gradients, dim=1), 1, m


def columns(problem: Problem, batch: Batch, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Weighted residuals (b, m) and their derivatives (b, m) by each of d unknowns, one after the other.

    For a compiler, which sees that F is the same in all of them; nothing is tried or counted.
    """
    derivatives = []
    residual = x
    for j in range(x.shape[1]):
        direction = torch.zeros_like(x)
        direction[:, j] = 1
        residual, derivative = torch.func.jvp(  # type: ignore[misc]
            lambda v: problem.residual(batch, v), (x,), (direction,)
        )
        derivatives.append(derivative)
    return residual, derivatives
