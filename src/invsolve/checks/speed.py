"""What F costs: milliseconds per row and memory at a few batch sizes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from invsolve.checks.report import Speed
from invsolve.problem import Batch, Problem
from invsolve.tuning import kept_bytes

BATCHES = (1, 64, 1024)
_ENOUGH = 0.2  # seconds of measuring after which no repetition is added
_LONGEST = 20.0  # seconds that one call may be expected to take
_MOST = 4 * 2**30  # bytes that it may be expected to take


def measure_speed(problem: Problem, batches: tuple[int, ...] = BATCHES) -> list[Speed]:
    """Best times of F, and of F with its gradient, and the memory the gradient needs; too large a size is left out."""
    found: list[Speed] = []
    for batch in batches:
        last = found[-1] if found else None
        if last is not None and (last.gradient_ms is None or _beyond(last, batch, problem)):
            found.append(Speed(batch, None, None, None))
            continue
        rows = torch.arange(batch, device=problem.device) % problem.n
        found.append(_measure(problem, rows))
    return found


def _beyond(smaller: Speed, batch: int, problem: Problem) -> bool:
    """Whether a batch would take too long or too much memory, by what a smaller one took."""
    assert smaller.gradient_ms is not None
    assert smaller.memory_mb is not None
    held = 4 * (problem.d + problem.targets.shape[1]) * problem.targets.itemsize  # x, y, data and gradients
    memory = smaller.memory_mb * 1e6 / smaller.batch + held
    return smaller.gradient_ms * batch > 1000 * _LONGEST or memory * batch > _MOST


def _measure(problem: Problem, rows: Tensor) -> Speed:
    x, data = problem.x0[rows], problem.batch(rows)

    def value() -> None:
        with torch.no_grad():
            problem.residual(data, x)

    def gradient() -> None:
        z = x.detach().requires_grad_()
        torch.autograd.grad(0.5 * problem.residual(data, z).square().sum(), z)

    value_ms, gradient_ms = (1000 * _best(f, problem.device) / len(rows) for f in (value, gradient))
    return Speed(len(rows), value_ms, gradient_ms, _memory(problem, data, x) / 1e6)


def _best(call: Callable[[], None], device: torch.device) -> float:
    """Seconds of the fastest of up to 20 calls, after one to warm up."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or (len(times) < 21 and time.perf_counter() - began < _ENOUGH):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _memory(problem: Problem, batch: Batch, x: Tensor) -> int:
    """Bytes of the tensors kept for the backward pass, on CUDA all that was allocated at the same time."""
    if problem.device.type == "cuda":
        z = x.detach().requires_grad_()
        torch.cuda.reset_peak_memory_stats(problem.device)
        before = torch.cuda.memory_allocated(problem.device)
        torch.autograd.grad(problem.residual(batch, z).square().sum(), z)
        return torch.cuda.max_memory_allocated(problem.device) - before
    return kept_bytes(problem, batch, x)
