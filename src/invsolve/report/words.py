"""What a comparison says, in sentences and in the cells of tables; names in sentences are escaped already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from invsolve.analysis.comparison import Comparison
from invsolve.analysis.summary import median
from invsolve.analysis.wording import duration, interval, number, p_value
from invsolve.data.solution import HISTORY_EXAMPLES, Identifiability, Solution, Status
from invsolve.report.rows import parameter_labels
from invsolve.report.style import share

MOST_PARAMETERS = 64  # that are told one by one


def name(text: object) -> Markup:
    """A name from anywhere: escaped, and apart, so that its writing direction is its own."""
    return Markup("<bdi>{}</bdi>").format(str(text))


def count(value: float) -> str:
    """A number of evaluations, three digits where it is small."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def sentences(comparison: Comparison) -> list[Markup]:
    """What was found, the most telling first."""
    methods = comparison.methods
    found = [_reached(comparison)]
    others = [m for m in methods if m != comparison.baseline]
    found += [_against(comparison, method) for method in others]
    if not others:
        found.append(_alone(methods[comparison.baseline]))
    return found


def _reached(comparison: Comparison) -> Markup:
    """Who solves how much at what cost; where solutions are not known, who reaches which loss."""
    methods, n = comparison.methods, comparison.n
    known = all("solved" in m for m in methods.values())
    rank = {
        m: (-told["solved"] if known else _or_infinite(told["loss"]["median"]), told["evaluations"]["mean"])
        for m, told in methods.items()
    }
    ranked = sorted(methods, key=rank.__getitem__)
    examples = Markup("{} example{}").format(f"{n:,}", "" if n == 1 else "s")
    over = Markup(" ({} seeds)").format(len(comparison.seeds)) if len(comparison.seeds) > 1 else ""
    parts = []
    for i, method in enumerate(ranked):
        m = methods[method]
        reached = share(m["solved"]) if known else Markup("{}").format(number(m["loss"]["median"]))
        cost = Markup("{}{}").format(count(m["evaluations"]["mean"]), " evaluations each" if i == 0 else "")
        if i == 0:
            verb = " solves {} of {}{} for {}" if known else " reaches a median loss of {} over {}{} for {}"
            parts.append(_strong(method) + Markup(verb).format(reached, examples, over, cost))
        else:
            parts.append(_strong(method) + Markup(" {} for {}").format(reached, cost))
    return Markup("; ").join(parts) + Markup(".")


def _or_infinite(value: float | None) -> float:
    return np.inf if value is None else value


def _strong(method: str) -> Markup:
    return Markup("<strong>{}</strong>").format(name(method))


def _against(comparison: Comparison, method: str) -> Markup:
    m = comparison.methods[method]
    pairs = m["better"] + m["tied"] + m["worse"]
    what = "pairs of example and seed" if len(comparison.seeds) > 1 else "example" if pairs == 1 else "examples"
    told = Markup("Against {}, {} is better on {} of {} {}, tied on {} and worse on {}. ").format(
        name(comparison.baseline), _strong(method), f"{m['better']:,}", f"{pairs:,}", what, f"{m['tied']:,}",
        f"{m['worse']:,}",
    )  # fmt: skip
    return told + Markup("{} {}").format(_ratio(m), _chance(m))


def _ratio(m: Mapping[str, Any]) -> str:
    """The median factor between losses, with its interval."""
    middle, low, high = (_factor(m["log10_ratio"], part) for part in ("median", "low", "high"))
    if {middle, low, high} == {"1"}:
        return "In the median their losses are equal."
    if low is None:
        return f"Its loss is {middle} times the baseline's."
    over = "over seeds and examples" if "seeds" in str(m["interval"]) else "over examples"
    return f"Its loss is {middle} times the baseline's in the median (95 % interval {low} to {high}, {over})."


def _factor(ratio: Mapping[str, Any], part: str) -> str | None:
    """A log10 ratio as a factor; None where it is not known."""
    if part in ratio.get("infinite", {}):
        return "∞" if ratio["infinite"][part] > 0 else "0"
    return None if ratio[part] is None else f"{10 ** ratio[part]:.3g}"


def _chance(m: Mapping[str, Any]) -> str:
    """What the test says, or why there is none."""
    if m["p_holm"] is not None:
        p = p_value(m["p_holm"])
        return f"p {p.replace('<', '< ') if '<' in p else f'= {p}'} (Wilcoxon's signed-rank test, corrected by Holm)."
    if m["note"] == "one example":
        return "From one example there is neither interval nor p-value."
    if m["note"] == "one seed":
        return "One seed: examples share a network, so that they are no replicates and there is no p-value."
    return f"{m['note']}: examples of one seed share a network, so that there is no p-value."


def _alone(m: Mapping[str, Any]) -> Markup:
    """Of one method: how far the loss came down."""
    start, end = number(m["loss_initial"]["median"]), number(m["loss"]["median"])
    return Markup("The median loss came down from {} at x_initial to {}, the largest is {}.").format(
        start, end, number(m["loss"]["max"])
    )


Rows = list[tuple[str, list[str]]]
"""A method's name and the cells of its row."""


def outcomes_table(comparison: Comparison) -> tuple[list[str], Rows]:
    """Heads of columns, and a row for each method but the baseline, which they are held against."""
    rows = []
    for method, m in comparison.methods.items():
        if method != comparison.baseline:
            told = m["note"] if m["p_holm"] is None else p_value(m["p_holm"])
            counts = [f"{m[k]:,}" for k in ("better", "tied", "worse")]
            rows.append((method, [*counts, interval(m["log10_ratio"]), told]))
    return ["better", "tied", "worse", "log10 ratio", "p"], rows


def costs_table(comparison: Comparison) -> tuple[list[str], Rows]:
    """Heads of columns, and a row a method: what it reached, at what cost, and how its examples ended."""
    methods = comparison.methods
    solved = any("solved" in m for m in methods.values())
    statuses = [s.name.lower() for s in Status if any(m["status"][s.name.lower()] for m in methods.values())]
    heads = [*(["solved"] if solved else []), "median loss", "90 %", "max", "evaluations", "gradients", "time"]
    rows = []
    for method, m in methods.items():
        cells = [share(m["solved"]) if "solved" in m else ""] if solved else []
        cells += [number(m["loss"][q]) for q in ("median", "p90", "max")]
        seconds = None if m["seconds"] is None else m["seconds"] / len(m["seeds"])
        cells += [count(m["evaluations"]["mean"]), count(m["gradients"]["mean"]), duration(seconds)]
        rows.append((method, cells + [f"{m['status'][s]:,}" for s in statuses]))
    return heads + [s.replace("_", " ") for s in statuses], rows


def legend(comparison: Comparison) -> Iterator[str]:
    """What the columns of that table mean."""
    methods = comparison.methods.values()
    if any("solved" in m for m in methods):
        yield "solved: the loss is at most 1.05 times that of x_true plus 0.1 % of that of x_initial"
    if len(comparison.methods) > 1:
        yield "better, worse: by more than 1 % of the loss; a loss that is not finite counts as infinite"
        yield "log10 ratio: median of log10(loss / baseline's loss) with its 95 % interval, below 0 is better"
        yield "p: Wilcoxon's signed-rank test, corrected by Holm"
    each = ", of one seed" if len(comparison.seeds) > 1 else ""
    yield f"evaluations and gradients of F: per example, all included; time: of one run{each}"
    for status in Status:
        if status is not Status.CONVERGED and any(m["status"][status.name.lower()] for m in methods):
            yield f"{status.name.lower().replace('_', ' ')}: {status.reason}"


def missing(comparison: Comparison) -> list[str]:
    """What this page cannot show, and why."""
    notes = []
    if comparison.source.missing:
        notes.append(
            f"The dataset is not at hand ({comparison.source.missing}): no examples with their fits, no landscapes, "
            "and solved is not told. With --data FILE, and --model where it is not registered, they are."
        )
    elif comparison.source.dataset is not None and comparison.loss_true is None:
        notes.append("The dataset has no x_true: which examples are solved is not known.")
    if without := [method for method in comparison.methods if method not in comparison.curves]:
        notes.append(
            f"No histories of {', '.join(without)}: how their losses fell is not told, and an example costs all that "
            f"was spent on it, not only until it was solved. Runs of up to {HISTORY_EXAMPLES:,} examples keep them."
        )
    if comparison.n == 1:
        notes.append("One example: neither intervals nor p-values.")
    return notes


def parameters_table(comparison: Comparison) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Heads of columns, and for each parameter and method: label, method and cells; none where there are too many."""
    runs = {method: contender.runs[0] for method, contender in comparison.contenders.items()}
    first = next(iter(runs.values()))
    labels = parameter_labels(first)
    if len(labels) > MOST_PARAMETERS:
        return [], []
    true, errors = _true(comparison, len(labels)), any(r.std_error is not None for r in runs.values())
    heads = ["10 %", "median", "90 %"]
    heads += ["median |x − x_true|"] if true is not None else []
    heads += ["median std error", "determined"] if errors else []
    rows: list[tuple[str, str, list[str]]] = []
    for j, label in enumerate(labels):
        for method, run in runs.items():
            x = run.x.reshape(len(run), -1)[:, j].astype(np.float64)
            known = x[np.isfinite(x)]
            cells = [number(float(v)) for v in np.quantile(known, [0.1, 0.5, 0.9])] if len(known) else [""] * 3
            if true is not None:
                away = median(np.abs(x - true[:, j]))
                cells.append("" if np.isnan(away) else number(away))
            if errors:
                cells += _uncertainty(run, j)
            rows.append((label, method, cells))
    return heads, rows


def _true(comparison: Comparison, size: int) -> np.ndarray | None:
    dataset = comparison.source.dataset
    if dataset is None or dataset.x_true is None:
        return None
    return np.asarray(dataset.x_true, dtype=np.float64).reshape(-1, size)


def _uncertainty(run: Solution, j: int) -> list[str]:
    if run.std_error is None or run.identifiability is None:
        return ["", ""]
    middle = median(run.std_error.reshape(len(run), -1)[:, j].astype(np.float64))
    flags = run.identifiability.reshape(len(run), -1)[:, j]
    determined = int((flags == Identifiability.DETERMINED).sum())
    return [
        "" if np.isnan(middle) else number(middle) if np.isfinite(middle) else "∞",
        f"{determined:,} of {len(run):,}",
    ]
