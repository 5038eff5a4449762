"""Strong-Wolfe line search as a state of each row: bracketing, then zooming by cubic interpolation.

Nocedal and Wright 2006, algorithms 3.5 and 3.6, with the safeguards of Moré and Thuente 1994. φ(t) is the loss at
step t along the direction. Bracketing is the case that the upper end is still at infinity: both phases then are one
set of rules, and one trial is one transition.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from invsolve.engine import RowState, choose

MAX_TRIALS = 40  # a bracket halves every third trial at worst


class Verdict(IntEnum):
    """What a search says of its row's last trial."""

    SEARCH = 0  # go on with the next trial
    ACCEPT = 1  # the trial satisfies the strong Wolfe conditions, or ends on a bound while descending
    KEEP_LOW = 2  # no such point is found; the low end still is a sufficient decrease
    FAIL = 3  # nothing lower was found


@dataclass
class LineSearch(RowState):
    """The state of b searches; `low` is the best end of the bracket, `high` the other one, at infinity until found."""

    start_loss: Tensor  # (b,) φ(0)
    start_slope: Tensor  # (b,) φ'(0) < 0
    step: Tensor  # (b,) the trial
    longest: Tensor  # (b,) end of the line at a bound, or infinity
    low_step: Tensor
    low_loss: Tensor
    low_slope: Tensor
    low_gradient: Tensor  # (b, d)
    high_step: Tensor
    high_loss: Tensor
    high_slope: Tensor
    width: Tensor  # (b,) of the bracket two trials ago
    last_width: Tensor
    trials: Tensor  # (b,) int64


def begin_search(loss: Tensor, slope: Tensor, gradient: Tensor, step: Tensor, longest: Tensor) -> LineSearch:
    """Searches (b,) from φ(0) = `loss`, φ'(0) = `slope`, with `step` as the first trial."""
    infinity = torch.full_like(loss, torch.inf)
    return LineSearch(
        start_loss=loss,
        start_slope=slope,
        step=step,
        longest=longest,
        low_step=torch.zeros_like(loss),
        low_loss=loss,
        low_slope=slope,
        low_gradient=gradient,
        high_step=infinity,
        high_loss=infinity,
        high_slope=torch.zeros_like(loss),
        width=infinity,
        last_width=infinity,
        trials=torch.zeros_like(loss, dtype=torch.int64),
    )


def continue_search(
    search: LineSearch, loss: Tensor, slope: Tensor, gradient: Tensor, c1: float, c2: float, resolution: Tensor
) -> tuple[LineSearch, Tensor]:
    """Judge the trials φ = `loss` (+inf allowed), φ' = `slope`, with their `gradient` (b, d).

    A bracket narrower than `resolution` (b,) cannot be told from a point. Returns the searches with their next trials
    and a Verdict (b,) for each.
    """
    s, t = search, search.step
    too_high = (loss > s.start_loss + c1 * t * s.start_slope) | (loss >= s.low_loss)
    flat = ~too_high & (slope.abs() <= -c2 * s.start_slope)
    at_bound = ~too_high & (t >= s.longest) & (slope < 0)
    # Past the minimum: it lies between this trial and the old low end (for an open bracket: the slope is upward).
    past = ~too_high & (slope * (s.high_step - s.low_step) >= 0)

    def upper_end(trial: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return torch.where(too_high, trial, torch.where(past, low, high))

    high_step = upper_end(t, s.low_step, s.high_step)
    high_loss = upper_end(loss, s.low_loss, s.high_loss)
    high_slope = upper_end(slope, s.low_slope, s.high_slope)
    low_step = torch.where(too_high, s.low_step, t)
    low_loss = torch.where(too_high, s.low_loss, loss)
    low_slope = torch.where(too_high, s.low_slope, slope)
    low_gradient = choose(too_high, s.low_gradient, gradient)

    is_open = torch.isinf(high_step)
    width = (high_step - low_step).abs()
    ahead = _extrapolate(s, t, loss, slope).clamp(max=s.longest)
    inside = _interpolate(low_step, low_loss, low_slope, high_step, high_loss, high_slope, width > 0.66 * s.width)
    trials = s.trials + 1
    over = (trials >= MAX_TRIALS) | (~is_open & (width <= resolution))
    verdict = torch.full_like(trials, int(Verdict.SEARCH))
    verdict = torch.where(over, torch.where(low_step > 0, int(Verdict.KEEP_LOW), int(Verdict.FAIL)), verdict)
    verdict = verdict.masked_fill(flat | at_bound, int(Verdict.ACCEPT))
    return LineSearch(
        start_loss=s.start_loss,
        start_slope=s.start_slope,
        step=torch.where(is_open, ahead, inside),
        longest=s.longest,
        low_step=low_step,
        low_loss=low_loss,
        low_slope=low_slope,
        low_gradient=low_gradient,
        high_step=high_step,
        high_loss=high_loss,
        high_slope=high_slope,
        width=s.last_width,
        last_width=width,
        trials=trials,
    ), verdict


def _cubic_minimum(a: Tensor, fa: Tensor, da: Tensor, b: Tensor, fb: Tensor, db: Tensor) -> Tensor:
    """Minimizer of the cubic through (a, fa, da) and (b, fb, db); NaN where it has none (N&W eq. 3.59)."""
    d1 = da + db - 3 * (fa - fb) / (a - b)
    d2 = torch.sign(b - a) * (d1.square() - da * db).sqrt()
    return b - (b - a) * (db + d2 - d1) / (db - da + 2 * d2)


def _extrapolate(s: LineSearch, t: Tensor, loss: Tensor, slope: Tensor) -> Tensor:
    """The next trial of an open bracket: the cubic's minimizer, between 1.1 and 4 times the last advance beyond t."""
    advance = t - s.low_step
    guess = _cubic_minimum(s.low_step, s.low_loss, s.low_slope, t, loss, slope)
    guess = torch.where(torch.isfinite(guess) & (guess > t), guess, torch.inf)
    return guess.clamp(t + 1.1 * advance, t + 4 * advance)


def _interpolate(
    low: Tensor, low_loss: Tensor, low_slope: Tensor, high: Tensor, high_loss: Tensor, high_slope: Tensor, slow: Tensor
) -> Tensor:
    """The next trial of a closed bracket: the cubic's minimizer, kept off the ends; the middle where that is `slow`."""
    guess = _cubic_minimum(low, low_loss, low_slope, high, high_loss, high_slope)
    left, right = torch.minimum(low, high), torch.maximum(low, high)
    margin = 0.01 * (right - left)
    guess = guess.clamp(left + margin, right - margin)
    return torch.where(torch.isfinite(guess) & ~slow, guess, 0.5 * (low + high))
