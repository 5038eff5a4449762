"""Pictures of single examples of a comparison: a gallery of fits, and the loss around the solutions of one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invsolve.analysis.comparison import Comparison
from invsolve.analysis.shown import Around, Fit, around, fits
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Solution
from invsolve.errors import ModelError, first_line
from invsolve.models.base import ForwardModel
from invsolve.models.scene import Scene
from invsolve.report.gallery import Example, drawn_figure, gallery_figure
from invsolve.report.landscapes import START, Landscape, Marks, end_of, lines_figure, planes_figure
from invsolve.report.picture import Picture
from invsolve.report.style import GREY, INK, PALE, PAPER, WIDTH, Look, look, number, plain

METHODS = 3  # that a gallery shows


def gallery(comparison: Comparison, chosen: Sequence[int] = ()) -> Picture | str:
    """Targets, fits and residuals of the best, the median and the worst example of the baseline, or of those chosen."""
    if not (found := _at_hand(comparison)):
        return _gone(comparison)
    dataset, model = found
    solutions = _some_methods(comparison)
    picked = [(example_name(comparison, i), i) for i in chosen] or _typical(comparison)
    if not picked:
        return f"of no example is the loss of {comparison.baseline} finite; name some with --example"
    looks = _looks(comparison)

    def draw() -> Figure:
        shown = [fits(dataset, model, solutions, i) for _, i in picked]
        examples = [
            Example(title, fit.target, fit.y, {name: float(s.objective[fit.number]) for name, s in solutions.items()})
            for (title, _), fit in zip(picked, shown, strict=True)
        ]
        if not model.draws:
            return gallery_figure(examples, looks)
        return drawn_figure(examples, lambda axes, i, name: _draw(model, axes, shown[i], name, looks[name]))

    if model.draws:
        how = " ".join((inspect.getdoc(type(model).draw) or "").split("\n\n")[0].split())
    else:
        how = "Targets with the fits of the methods, F at their solutions, and the residuals, fit − target."
    which = ", ".join(title for title, _ in picked) + ("" if chosen else f", by the loss of {comparison.baseline}")
    return Picture("gallery", "Examples", f"{which[:1] if chosen else which[:1].upper()}{which[1:]}. {how}", draw)


def _draw(model: ForwardModel, axes: Axes, fit: Fit, name: str, how: Look) -> None:
    known = fit.identifiers
    arrays = (
        {k: v.numpy() for k, v in known.items()}
        if isinstance(known, dict)
        else None
        if known is None
        else known.numpy()
    )
    scene = Scene(fit.x[name], fit.y[name], fit.target, arrays, how.color, INK, GREY, PALE, PAPER)
    try:
        model.draw(axes, scene)
    except Exception as error:
        raise ModelError(f"draw of model '{model.name}' raises {first_line(error)}") from error


def landscape(comparison: Comparison, chosen: Sequence[int] = ()) -> Picture | str:
    """The loss around the solutions of the examples chosen, or of the one on which the methods differ most."""
    if not (found := _at_hand(comparison)):
        return _gone(comparison)
    dataset, model = found
    solutions = comparison.solutions
    unknowns = int(np.prod(next(iter(solutions.values())).x.shape[1:]))
    numbers = list(chosen) or _telling(comparison)
    if unknowns > 2:
        numbers = [i for i in numbers if any((s.x[i] != s.x_initial[i]).any() for s in solutions.values())]
    if not numbers:
        return "no method left its start, so that there is no plane through start and ends; name another --example"
    looks = _looks(comparison)

    def draw() -> Figure:
        shown = [(i, around(dataset, model, solutions, i)) for i in numbers]
        panels = [_landscape(a, example_name(comparison, i), looks) for i, a in shown if a is not None]
        figure = lines_figure if len(panels[0].axes) == 1 else planes_figure
        return figure(panels, size=(WIDTH, 2.8 if len(panels[0].axes) == 1 else 3.9), across=1)

    told = "; ".join(
        f"{example_name(comparison, i)}: {', '.join(f'{k} {number(s.objective[i])}' for k, s in solutions.items())}"
        for i in numbers
    )
    where = {1: "over the range of the unknown", 2: "over the two unknowns"}.get(
        unknowns, "over a plane through the start and the solutions that are marked, in the solvers' coordinates"
    )
    why = "It is the one on which they differ most. " if len(solutions) > 1 and not chosen else ""
    caption = (
        f"The loss of an example {where}, with where the methods began (ring) and where they ended. {why}"
        f"Losses at the ends: {told}."
    )
    return Picture("landscape", "The loss around the solutions", caption, draw)


def _landscape(a: Around, title: str, looks: dict[str, Look]) -> Landscape:
    starts = np.unique(np.stack(list(a.starts.values())), axis=0)
    ends = [
        Marks(f"end of {plain(name)}", at[None], end_of(looks[name], len(a.ends) - 1 - i))
        for i, (name, at) in enumerate(a.ends.items())
    ]
    axes = a.slice.axes
    if a.along:
        axes = (f"way from the start (0) to the end of {plain(a.along[0], 16)} (1)", axes[1])
    if len(a.along) == 2:
        axes = (axes[0], f"at right angles, towards the end of {plain(a.along[1], 16)}")
    return Landscape(
        title,
        axes,
        a.slice.coordinates,
        a.slice.loss,
        (Marks("start", starts, START | {"markersize": 5, "zorder": 8}), *ends),
    )


def example_name(comparison: Comparison, i: int) -> str:
    """What an example is called: its name, or its number."""
    name = comparison.contenders[comparison.baseline].runs[0].example[i]
    return f"example {name}" if isinstance(name, int | np.integer) else plain(name)


def _at_hand(comparison: Comparison) -> tuple[Dataset, ForwardModel] | None:
    source = comparison.source
    return None if source.dataset is None or source.model is None else (source.dataset, source.model)


def _gone(comparison: Comparison) -> str:
    return (
        f"the dataset is needed to evaluate F: {comparison.source.missing or 'it is not at hand'}; name it with --data"
    )


def _looks(comparison: Comparison) -> dict[str, Look]:
    return {name: look(i) for i, name in enumerate(comparison.contenders)}


def _some_methods(comparison: Comparison) -> dict[str, Solution]:
    """The baseline and the methods that most often do better, in their order."""
    others = [name for name in comparison.contenders if name != comparison.baseline]
    others.sort(key=lambda name: comparison.methods[name]["worse"] - comparison.methods[name]["better"])
    kept = {comparison.baseline, *others[: METHODS - 1]}
    return {name: solution for name, solution in comparison.solutions.items() if name in kept}


def _typical(comparison: Comparison) -> list[tuple[str, int]]:
    """The best, the median and the worst example of the baseline among those that did not fail, each once."""
    losses = comparison.solutions[comparison.baseline].objective
    order = np.argsort(losses, kind="stable")[: int(np.isfinite(losses).sum())]
    if not len(order):
        return []
    places = {"best": 0, "median": (len(order) - 1) // 2, "worst": len(order) - 1}
    titles: dict[int, str] = {}
    for word, place in places.items():
        if word == "median" and len(order) < 3:
            continue
        titles.setdefault(int(order[place]), word)
    return [(f"{word}: {example_name(comparison, i)}", i) for i, word in titles.items()]


def _telling(comparison: Comparison) -> list[int]:
    """The example on which the losses of the methods differ by the largest factor; of one method the median example."""
    losses = np.stack([s.objective for s in comparison.solutions.values()])
    known = np.isfinite(losses).all(0)
    if not known.any():
        return [0]
    if len(losses) == 1:
        order = np.argsort(np.where(known, losses[0], np.inf), kind="stable")
        return [int(order[(int(known.sum()) - 1) // 2])]
    initial = comparison.solutions[comparison.baseline].loss_initial
    floor = 1e-9 * np.where(np.isfinite(initial), initial, 0.0) + 1e-300  # below, the contract's rule sees a tie
    with np.errstate(invalid="ignore"):
        apart = np.where(known, np.log(losses.max(0) + floor) - np.log(losses.min(0) + floor), -np.inf)
    return [int(np.argmax(apart))]
