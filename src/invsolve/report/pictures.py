"""Which pictures there are of a comparison, and what they say in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from invsolve.analysis.compare import pair_losses
from invsolve.analysis.comparison import Comparison
from invsolve.analysis.summary import median
from invsolve.data.solution import Status
from invsolve.report.losses import Pairs, least_shown, scatter_figure, waterfall_figure
from invsolve.report.picture import Picture
from invsolve.report.profiles import Profile, profiles_figure
from invsolve.report.statuses import counted, status_figure
from invsolve.report.style import look, number, share

Maker = Callable[[Comparison], Picture | str]
"""A picture, or why there is none."""


def pictures_of(comparison: Comparison) -> list[Picture]:
    """All pictures that there is something for, in the order in which they are to be looked at."""
    made = (make(comparison) for make in MAKERS.values())
    return [picture for picture in made if isinstance(picture, Picture)]


def waterfall(comparison: Comparison) -> Picture | str:
    """Sorted losses of every method."""
    losses, initial, true = _objectives(comparison), _initial(comparison), comparison.loss_true
    label = loss_label(comparison)
    medians = [f"{name} {number(median(_known(values)))}" for name, values in losses.items()]
    failed = {name: int((~np.isfinite(values)).sum()) for name, values in losses.items()}
    caption = (
        f"Each curve is the losses of one method, its best example at the left, its worst at the right; the lower, the "
        f"better{_over_seeds(comparison)}. Medians: {', '.join(medians)}; at x_initial {number(median(initial))}"
        f"{'' if true is None else f', at x_true {number(median(true))}'}."
    )
    if any(failed.values()):
        told = ", ".join(f"{count} of {name}" for name, count in failed.items() if count)
        caption += f" Failed: {told}, missing at the right, where a line above the frame tells how many."
    if any((values < least_shown(initial, *losses.values())).any() for values in losses.values()):
        caption += f" Losses below {number(least_shown(initial, *losses.values()))} are drawn there."
    return Picture(
        "waterfall",
        "Sorted losses",
        caption,
        lambda: waterfall_figure(losses, initial, true, loss_label=label),
    )


def scatter(comparison: Comparison) -> Picture | str:
    """Every other method's losses against the baseline's."""
    if len(comparison.contenders) < 2:
        return "a scatter holds two methods against each other, found one; give solutions by another one too"
    losses, initial, baseline = _objectives(comparison), _initial(comparison), comparison.baseline
    against = losses[baseline]
    looks = {name: look(i) for i, name in enumerate(losses)}
    pairs = [
        Pairs(name, looks[name], *(v.ravel() for v in (*np.broadcast_arrays(values, against), outcome)))
        for name, values in losses.items()
        if name != baseline
        for outcome, _ in [pair_losses(values, against, initial)]
    ]
    told = [
        f"{p.name} is better in {(p.outcome == -1).sum()}, tied in {(p.outcome == 0).sum()} and worse in "
        f"{(p.outcome == 1).sum()}"
        for p in pairs
    ]
    caption = (
        f"Each point is an example{' with a seed' if len(comparison.seeds) > 1 else ''}. Below the diagonal the method "
        f"has the lower loss, above it {baseline} has; on it they are tied within 1 %. Of {pairs[0].loss.size}, "
        f"{'; '.join(told)}."
    )
    if any(not np.isfinite(v).all() for v in losses.values()):
        caption += f" Where a method failed, its point is on the upper edge, or for {baseline} on the right one."
    label = loss_label(comparison)
    return Picture(
        "scatter",
        f"Losses against those of {baseline}",
        caption,
        lambda: scatter_figure(pairs, baseline, looks[baseline], initial, loss_label=label),
    )


def profile(comparison: Comparison) -> Picture | str:
    """Shares of examples solved by evaluations, by multiples of the least, and by time where it is known."""
    document = comparison.profiles
    shown = [
        Profile(np.asarray(document[key][axis]), {k: np.asarray(v) for k, v in document[key]["solved"].items()}, label)
        for key, axis, label in (
            ("data", "evaluations", "evaluations per example"),
            ("performance", "ratio", "evaluations, as a multiple of the least of any method"),
        )
    ]
    by = shown[0].solved
    final = ", ".join(f"{name} {share(float(solved[-1]))}" for name, solved in by.items())
    caption = (
        f"Above, the share of examples solved by so many evaluations; below, by so many times the evaluations of "
        f"the method that was the cheapest for the example. Higher and further left is better. At the end: {final}. "
        f"Solved is {_solved_by(comparison)}."
    )
    return Picture("profile", "Solved against cost", caption, lambda: profiles_figure(shown))


def status(comparison: Comparison) -> Picture | str:
    """Why the work on the examples ended."""
    counts: dict[str, dict[str, int]] = {}
    for name, contender in comparison.contenders.items():
        each = [run.status_counts() for run in contender.runs]
        counts[name] = {s.name.lower(): sum(of_run[s.name.lower()] for of_run in each) for s in Status}
    told = "; ".join(f"{name} {counted(of_one)}" for name, of_one in counts.items())
    caption = f"Why work on each example ended{_over_seeds(comparison)}: {told}."
    return Picture("status", "How the examples ended", caption, lambda: status_figure(counts))


MAKERS: dict[str, Maker] = {
    "waterfall": waterfall,
    "scatter": scatter,
    "profile": profile,
    "status": status,
}
"""By the name of the picture that each makes, in the order in which they are to be looked at."""


def loss_label(comparison: Comparison) -> str:
    """What was minimized."""
    prior = any(run.loss_prior is not None for c in comparison.contenders.values() for run in c.runs)
    return "loss with prior" if prior else "loss"


def _objectives(comparison: Comparison) -> dict[str, np.ndarray]:
    """What was minimized (K, n) of each method; one run that serves for all seeds once, (1, n)."""
    return {
        name: np.stack([run.objective for run in contender.runs]) for name, contender in comparison.contenders.items()
    }


def _initial(comparison: Comparison) -> np.ndarray:
    """Loss (n,) where the baseline began."""
    return comparison.contenders[comparison.baseline].runs[0].loss_initial


def _known(values: np.ndarray) -> np.ndarray:
    """Losses of which NaN is as bad as Inf."""
    return np.where(np.isnan(values), np.inf, values)


def _over_seeds(comparison: Comparison) -> str:
    k = len(comparison.seeds)
    return f" ({k} seeds together)" if k > 1 else ""


def _solved_by(comparison: Comparison) -> str:
    told: Any = comparison.profiles.get("solved_by")
    if told == "x_true":
        return "a loss of at most 1.05 times that at x_true and a thousandth of that at x_initial"
    return "a loss within a thousandth of the way from x_initial to the best of all methods"
