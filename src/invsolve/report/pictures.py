"""Which pictures there are of a comparison, and what they say in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from invsolve.analysis.compare import pair_losses
from invsolve.analysis.comparison import Comparison
from invsolve.analysis.summary import median
from invsolve.analysis.training import courses
from invsolve.data.solution import HISTORY_EXAMPLES, Solution, Status
from invsolve.report.closeups import gallery, landscape
from invsolve.report.curves import Curve, Stage, curves_figure, training_figure
from invsolve.report.estimates import FEW, MOST, Estimates, against_truth, components_figure, error_figure, spread
from invsolve.report.growth import pictures_of_study
from invsolve.report.losses import Pairs, least_shown, scatter_figure, waterfall_figure
from invsolve.report.picture import Picture
from invsolve.report.profiles import Profile, profiles_figure
from invsolve.report.statuses import counted, status_figure
from invsolve.report.style import look, number, share

Maker = Callable[[Comparison, Sequence[int]], Picture | str]
"""A picture, of the examples of these numbers where it is of single ones; or why there is none."""


def pictures_of(comparison: Comparison) -> list[Picture]:
    """All pictures that there is something for, in the order in which they are to be looked at."""
    made: list[Picture | str] = []
    for name, make in MAKERS.items():
        made.append(make(comparison, ()))
        if name == "profile" and comparison.study is not None:  # what a single file cannot tell
            made += pictures_of_study(comparison.study)
    return [picture for picture in made if isinstance(picture, Picture)]


def waterfall(comparison: Comparison, _: Sequence[int] = ()) -> Picture | str:
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


def scatter(comparison: Comparison, _: Sequence[int] = ()) -> Picture | str:
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


def profile(comparison: Comparison, _: Sequence[int] = ()) -> Picture | str:
    """Shares of examples solved by evaluations, by multiples of the least, and by time where it is known."""
    document = comparison.profiles
    kinds = [
        ("data", "evaluations", "evaluations per example"),
        ("performance", "ratio", "evaluations, as a multiple of the least of any method"),
        ("data_by_seconds", "seconds", "seconds per example"),
    ]
    shown = [
        Profile(np.asarray(document[key][axis]), {k: np.asarray(v) for k, v in document[key]["solved"].items()}, label)
        for key, axis, label in kinds
        if key in document
    ]
    by = shown[0].solved
    final = ", ".join(f"{name} {share(float(solved[-1]))}" for name, solved in by.items())
    caption = (
        f"The share of examples solved by so many evaluations; then, by so many times the evaluations of the method "
        f"that was the cheapest for it{'; last, by time' if 'data_by_seconds' in document else ''}. Higher and further "
        f"left is better. At the end: {final}. Solved is {_solved_by(comparison)}. An example costs what was spent "
        f"on it {document['cost']}."
    )
    return Picture("profile", "Solved against cost", caption, lambda: profiles_figure(shown))


def curves(comparison: Comparison, _: Sequence[int] = ()) -> Picture | str:
    """How the losses fell with the evaluations spent, of the methods with histories."""
    shown = {name: Curve(**curve) for name, curve in comparison.curves.items()}
    if not shown:
        return (
            f"the solutions hold no histories, which are kept of runs of up to {HISTORY_EXAMPLES} examples; solve "
            "again, or fewer of them"
        )
    looks = {name: look(i) for i, name in enumerate(comparison.contenders)}
    last = ", ".join(f"{name} {number(float(c.median[-1]))} by {c.evaluations[-1]}" for name, c in shown.items())
    without = ", ".join(name for name in comparison.contenders if name not in shown)
    caption = (
        "The least loss known by so many evaluations of an example, as a part of its loss at the start: the median, "
        f"and a band from 10 % to 90 % of the examples. Lower and further left is better. Medians at the end: {last}."
    )
    if without:
        caption += f" Of {without} there is no history."
    return Picture("curves", "Loss against evaluations", caption, lambda: curves_figure(shown, looks))


def training(comparison: Comparison, _: Sequence[int] = ()) -> Picture | str:
    """How the trainings of the joint methods went."""
    found = {name: [courses(run) for run in c.runs] for name, c in comparison.contenders.items()}
    stages = []
    for stage, label in (("proposals", "error on pairs"), ("training", "loss / loss at x0")):
        of_stage = {name: [run[stage] for run in runs if stage in run] for name, runs in found.items()}
        told = {name: [(c.evaluations, c.measured) for c in runs] for name, runs in of_stage.items() if runs}
        if told:
            stages.append(Stage(f"{stage}:\n{label}", told))
    if not stages:
        return "no method among them was trained, or their files were written before trainings were kept"
    looks = {name: look(i) for i, name in enumerate(comparison.contenders)}
    caption = (
        "How the networks learned, against the evaluations spent on each example. Stage proposals: the error of the "
        "answers to simulated pairs before they were trained on; stage training: what the examples had left of their "
        f"loss at x0 when the network's answers were met{'; a line a seed' if len(comparison.seeds) > 1 else ''}."
    )
    return Picture("training", "Training", caption, lambda: training_figure(stages, looks))


def status(comparison: Comparison, _: Sequence[int] = ()) -> Picture | str:
    """Why the work on the examples ended."""
    counts: dict[str, dict[str, int]] = {}
    for name, contender in comparison.contenders.items():
        each = [run.status_counts() for run in contender.runs]
        counts[name] = {s.name.lower(): sum(of_run[s.name.lower()] for of_run in each) for s in Status}
    told = "; ".join(f"{name} {counted(of_one)}" for name, of_one in counts.items())
    caption = f"Why work on each example ended{_over_seeds(comparison)}: {told}."
    return Picture("status", "How the examples ended", caption, lambda: status_figure(counts))


def estimates(comparison: Comparison, _: Sequence[int] = ()) -> Picture | str:
    """What was found of the parameters, against the truth where it is known."""
    found = {name: _estimates(contender.runs) for name, contender in comparison.contenders.items()}
    first, d = comparison.solutions[comparison.baseline], found[comparison.baseline].x.shape[1]
    names = _parameter_names(first, d)
    truth = _truth(comparison)
    bars = any(e.std_error is not None for e in found.values())
    with_bars = " Bars are standard errors." if bars else ""
    if truth is None and d > MOST:
        caption = (
            f"Each of the {d} components of x: the median over the examples, and a band from 10 % to 90 % of them."
        )
        return Picture("estimates", "Estimates", caption, lambda: components_figure(found))
    if truth is None:
        few = max(len(e.x) for e in found.values()) <= FEW
        how = (
            f"one point for each example.{with_bars}"
            if few
            else "as histograms whose outermost bars hold what is beyond."
        )
        caption = f"What the methods found of {', '.join(names)}, {how}"
        return Picture("estimates", "Estimates", caption, lambda: spread(found, names))
    true = {name: np.tile(truth, (len(e.x) // len(truth), 1)) for name, e in found.items()}
    errors = {name: _relative(e.x - true[name], true[name]) for name, e in found.items()}
    medians = ", ".join(f"{name} {number(median(_known(error)))}" for name, error in errors.items())
    told = f"Median of ‖x − x_true‖ / ‖x_true‖: {medians}."
    if d > MOST:
        caption = (
            f"The share of examples whose x is at most so far from x_true. Higher and further left is better. {told}"
        )
        return Picture("estimates", "Errors of the estimates", caption, lambda: error_figure(errors))
    caption = (
        "Each point is the estimate of one example against the truth, on the broad line if it is right; what lies far "
        f"off is on the edge of the frame.{with_bars} {told}"
    )
    return Picture("estimates", "Estimates against the truth", caption, lambda: against_truth(found, true, names))


def _estimates(runs: Sequence[Solution]) -> Estimates:
    x = np.concatenate([np.asarray(run.x, dtype=np.float64).reshape(len(run), -1) for run in runs])
    errors = [run.std_error for run in runs if run.std_error is not None]
    if len(errors) < len(runs):
        return Estimates(x)
    return Estimates(x, np.concatenate([e.reshape(len(e), -1) for e in errors]).astype(np.float64))


def _parameter_names(solution: Solution, d: int) -> list[str]:
    """Names with units, as the file tells them."""
    told = [f"{p['name']} ({p['unit']})" if p["unit"] else p["name"] for p in solution.parameters]
    return told if len(told) == d else [f"x[{j}]" for j in range(d)] if d > 1 else ["x"]


def _truth(comparison: Comparison) -> np.ndarray | None:
    """x_true (n, d), flat."""
    dataset = comparison.source.dataset
    if dataset is None or dataset.x_true is None:
        return None
    return np.asarray(dataset.x_true, dtype=np.float64).reshape(comparison.n, -1)


def _relative(error: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Lengths (p,) of (p, d), in parts of the truth's; where that is 0, as they are."""
    length = np.linalg.norm(truth, axis=1)
    relative: np.ndarray = np.linalg.norm(error, axis=1) / np.where(length > 0, length, 1.0)
    return relative


MAKERS: dict[str, Maker] = {
    "waterfall": waterfall,
    "scatter": scatter,
    "profile": profile,
    "curves": curves,
    "training": training,
    "status": status,
    "estimates": estimates,
    "gallery": gallery,
    "landscape": landscape,
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
        return "a loss of at most 1.05 times that at x_true plus a thousandth of that at x_initial"
    return "a loss within a thousandth of the way from x_initial to the best of all methods"
