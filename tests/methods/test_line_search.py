"""The line search as a state machine, driven by hand on functions of one variable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from invsolve.methods.line_search import LineSearch, Verdict, begin_search, continue_search

C1, C2 = 1e-4, 0.1
Function = Callable[[Tensor], Tensor]


def search(
    phi: Function, step: float, longest: float = torch.inf, c2: float = C2
) -> tuple[Verdict, float, list[float]]:
    """Run one search to its end; the verdict, the last trial, and all trials."""

    def value_and_slope(t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.clone().requires_grad_()
        value = phi(t)
        (slope,) = torch.autograd.grad(value.sum(), t)
        return value.detach(), slope

    start, slope = value_and_slope(torch.zeros(1, dtype=torch.float64))
    lengths = (torch.tensor([float(v)], dtype=torch.float64) for v in (step, longest))
    state: LineSearch = begin_search(start, slope, slope[:, None], *lengths)
    trials = []
    for _ in range(60):
        t = state.step
        trials.append(float(t))
        value, slope = value_and_slope(t)
        value = torch.where(torch.isfinite(value), value, torch.inf)
        slope = torch.where(torch.isfinite(value), slope, 0.0)
        state, verdict = continue_search(state, value, slope, slope[:, None], C1, c2, torch.full_like(t, 1e-14))
        if verdict.item() != Verdict.SEARCH:
            return Verdict(int(verdict)), float(t), trials
    raise AssertionError("the search does not end")


def parabola(t: Tensor) -> Tensor:
    return (t - 3) ** 2


def more_thuente_1(t: Tensor) -> Tensor:
    """Moré and Thuente 1994, eq. 5.1 with β = 2: −t/(t² + β)."""
    return -t / (t**2 + 2)


def more_thuente_2(t: Tensor) -> Tensor:
    """Moré and Thuente 1994, eq. 5.2 with β = 0.004: (t + β)⁵ − 2(t + β)⁴."""
    return (t + 0.004) ** 5 - 2 * (t + 0.004) ** 4


@pytest.mark.parametrize("phi", [parabola, more_thuente_1, more_thuente_2])
@pytest.mark.parametrize("step", [1e-3, 1e-1, 10.0, 1e3])
def test_strong_wolfe_holds_at_what_is_accepted(phi: Function, step: float) -> None:
    verdict, t, trials = search(phi, step)
    assert verdict is Verdict.ACCEPT
    ends = torch.tensor([0.0, t], dtype=torch.float64, requires_grad=True)
    values = phi(ends)
    (slopes,) = torch.autograd.grad(values.sum(), ends)
    assert values[1] <= values[0] + C1 * t * slopes[0]
    assert abs(slopes[1]) <= C2 * abs(slopes[0])
    assert len(trials) <= 13  # from a start that is wrong by a factor of 1000, either way


def test_a_step_to_a_bound_is_accepted_while_it_descends() -> None:
    verdict, t, trials = search(parabola, step=0.5, longest=1.5)
    assert (verdict, t) == (Verdict.ACCEPT, 1.5)
    assert max(trials) == 1.5


def test_an_infinite_loss_is_stepped_back_from() -> None:
    verdict, t, _ = search(lambda t: torch.where(t < 1, (t - 0.5) ** 2, torch.inf), step=8.0)
    assert verdict is Verdict.ACCEPT
    assert t == pytest.approx(0.5, abs=0.1)


def test_a_jump_leaves_the_best_sufficient_decrease() -> None:
    """Downhill to a cliff: no point satisfies the curvature condition, the edge is taken."""
    verdict, _, trials = search(lambda t: torch.where(t < 1, -t, t + 5), step=0.25)
    assert verdict is Verdict.KEEP_LOW
    assert max(t for t in trials if t < 1) == pytest.approx(1, abs=1e-3)


def test_nothing_lower_is_a_failure() -> None:
    """A slope that promises a descent which the values do not keep."""

    def lying(t: Tensor) -> Tensor:
        return t.abs() + 1 - 2 * t + 2 * t.detach()

    verdict, _, _ = search(lying, step=1.0)
    assert verdict is Verdict.FAIL
