"""Tables on standard output, progress and messages on standard error; the only place that knows rich."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape as escape_markup
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from invsolve.analysis.wording import duration, interval, number, p_value
from invsolve.data.rows import print_rows as write_csv
from invsolve.data.solution import FoundBy, Identifiability, Status
from invsolve.errors import PipeClosed, visible

if TYPE_CHECKING:
    from invsolve.control import Progress
    from invsolve.events import Event

MOST_PARAMETERS = 32  # that a table shows one by one


class _Output(Console):
    """Standard output; wide where it is no terminal, so that no table is folded in a file or pipe."""

    def __init__(self) -> None:
        super().__init__(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)

    def on_broken_pipe(self) -> None:
        raise PipeClosed  # main() knows the exit code; rich would end with 1


def escape(text: str) -> str:
    """Text of anybody's, for rich: nothing in it is markup, and nothing in it speaks to the terminal."""
    return escape_markup(visible(text))


def say(message: str) -> None:
    """One line on standard error."""
    print(f"invsolve: {visible(message)}", file=sys.stderr)


def say_event(event: Event) -> None:
    """An event of a run, in one line on standard error."""
    told = (
        f"{key.replace('_', ' ')} {_in_words(value)}" for key, value in event.told.items() if value not in (None, {})
    )
    say(" ".join(f"{event.kind}: {', '.join(told)}".split()))


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_in_words(v)}" for key, v in value.items())
    return number(value) if isinstance(value, float) else str(value)


def print_text(text: str) -> None:
    """Plain text on standard output."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise PipeClosed from None


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    print_text(json.dumps(document, allow_nan=False))


def show_solution(summary: Mapping[str, Any]) -> None:
    """The loss report of a solved batch."""
    console = _Output()
    model, method = (escape(str(summary[key])) for key in ("model", "method"))
    console.print(f"[bold]{model}[/] by [bold]{method}[/], {summary['n']} examples")
    losses = _table("", "mean", "median", "90 %", "max")
    for label, key in (("loss at x_initial", "loss_initial"), ("loss", "loss")):
        losses.add_row(label, *(number(summary[key][q]) for q in ("mean", "median", "p90", "max")))
    if "loss_prior" in summary:
        losses.add_row("prior's penalty", *(number(summary["loss_prior"][q]) for q in ("mean", "median", "p90", "max")))
    if summary.get("reduced_chi2"):
        losses.add_row("reduced χ²", *(number(summary["reduced_chi2"][q]) for q in ("mean", "median", "p90", "max")))
    console.print(losses)
    if "uncertainty" in summary:
        _show_uncertainty(console, summary["uncertainty"])
    console.print(_status_line(summary["status"]))
    for status in Status:
        if summary["status"][status.name.lower()] and status is not Status.CONVERGED:
            console.print(f"{status.name.lower()}: {status.reason}", style="dim")
    _show_stages(console, summary)
    for stage, choices in summary.get("chosen", {}).items():
        told = ", ".join(f"{key} {number(v) if isinstance(v, float) else v}" for key, v in choices.items())
        console.print(escape(f"{stage}: {told}".replace("_", " ")), style="dim", soft_wrap=True)
    evaluations, gradients = (summary[what]["mean"] for what in ("evaluations", "gradients"))
    work = f"{evaluations:.1f} evaluations and {gradients:.1f} gradients per example"
    console.print(f"{work}, {duration(summary['seconds'])} in all")
    if "solved" in summary:
        console.print(f"solved {summary['solved']:.1%} of the examples (x_true is known)")
    if "network_written" in summary:
        console.print(f"network written to {escape(str(summary['network_written']))}", soft_wrap=True)
    if summary["out"]:
        console.print(f"written to {escape(str(summary['out']))}", soft_wrap=True)
    if "rerun" in summary:
        _show_rerun(console, summary["rerun"])


def _show_rerun(console: Console, found: Mapping[str, Any]) -> None:
    """Where a run that was made again differs from the first."""
    path = escape(found["solution"])
    if found["identical"]:
        console.print(f"[green]the same to the bit[/] as {path}", soft_wrap=True)
    else:
        table = _table("differs from before", "examples", "largest, relative")
        for name, column in found["columns"].items():
            table.add_row(name, str(column["examples"]), "" if column["largest"] is None else number(column["largest"]))
        console.print(table)
    for name, (before, now) in found["made_by"].items():
        console.print(escape(f"{name}: {before} then, {now} now"), soft_wrap=True)


def _show_stages(console: Console, summary: Mapping[str, Any]) -> None:
    """Which stage found the solutions, and how many starts and minima there were, where a method tells."""
    for kind in FoundBy:
        if count := summary.get("found_by", {}).get(kind.name.lower()):
            console.print(f"{count} found by {kind.reason}" if kind is not FoundBy.START else f"{count} at their start")
    if "minima" in summary and summary.get("starts", {}).get("total"):
        console.print(
            f"{summary['starts']['mean']:.1f} starts per example, which led to {summary['minima']['mean']:.1f} minima"
        )


def _show_uncertainty(console: Console, uncertainty: Mapping[str, Any]) -> None:
    """Standard errors, a row a parameter, with what is wrong in words for those that the data do not determine."""
    kinds = [k for k in Identifiability if k is not Identifiability.DETERMINED]
    names = [k.name.lower() for k in kinds]
    parameters = uncertainty["parameters"]
    seen = [name for name in names if any(p[name] for p in parameters.values())]
    table = _table("parameter", "std error", "determined", *(name.replace("_", " ") for name in seen))
    for name, p in list(parameters.items())[:MOST_PARAMETERS]:
        error = "unknown" if p["std_error"] is None and not p["singular"] else number(p["std_error"])
        table.add_row(escape(name), error, str(p["determined"]), *(str(p[k]) for k in seen))
    console.print(table)
    if len(parameters) > MOST_PARAMETERS:
        console.print(f"… and {len(parameters) - MOST_PARAMETERS} more", style="dim")
    for kind, name in zip(kinds, names, strict=True):
        if name in seen:
            console.print(f"{name.replace('_', ' ')}: {kind.reason}", style="dim")
    condition = uncertainty["condition_number"]
    console.print(
        f"condition number of the Jacobian: median {number(condition['median'])}, max {number(condition['max'])}"
    )


def print_rows(rows: Iterable[tuple[Any, ...]]) -> None:
    """Rows as CSV on standard output."""
    try:
        write_csv(sys.stdout, rows)
        sys.stdout.flush()
    except BrokenPipeError:
        raise PipeClosed from None


def show_comparison(comparison: Mapping[str, Any]) -> None:
    """Every method against the baseline, a row a method: what it reached, and then at what cost."""
    console, seeds = _Output(), len(comparison["seeds"])
    many = f", {seeds} seeds" if seeds > 1 else ""
    console.print(f"{comparison['n']} examples{many}, against [bold]{escape(comparison['baseline'])}[/]")
    table = _table("method", "better", "tied", "worse", "log10 ratio", "p")
    for name, m in comparison["methods"].items():
        cells = ["", "", "", "", ""]
        if name != comparison["baseline"]:
            told = m["note"] if m["p_holm"] is None else p_value(m["p_holm"])
            cells = [str(m["better"]), str(m["tied"]), str(m["worse"]), interval(m["log10_ratio"]), told]
        table.add_row(escape(name), *cells)
    console.print(table)
    console.print(_costs(comparison))
    for line in _legend(comparison):
        console.print(line, style="dim")
    if "not_run" in comparison:
        _show_study(console, comparison)


def _show_study(console: Console, comparison: Mapping[str, Any]) -> None:
    """What becomes of the shares and costs of each method, a column a point; so many side by side as there is room."""
    by_examples = "by_examples" in comparison
    points = comparison["by_examples" if by_examples else "by_budget"]
    at, heading = ("n", "first examples, n =") if by_examples else ("max_evaluations", "evaluations at most")
    names, baseline = list(comparison["methods"]), comparison["baseline"]
    blocks: list[tuple[str, list[str], Callable[[Mapping[str, Any]], str]]] = [
        (f"better than {baseline}", [n for n in names if n != baseline], lambda m: f"{_share_better(m):.1%}"),
        ("solved", names, lambda m: f"{m['solved']:.1%}"),
        ("evaluations", names, lambda m: f"{m['evaluations']['mean']:.0f}"),
    ]
    first = 1 + max(len(heading), *(2 + len(name) for name in names), *(len(title) for title, *_ in blocks))
    across = max(1, (console.width - first) // 7)
    for part in (points[i : i + across] for i in range(0, len(points), across)):
        table = _table(heading, *(str(point[at]) for point in part))
        for title, who, cell in blocks:
            if title != "solved" or "solved" in part[0]["methods"][baseline]:
                table.add_row(Text(title, style="dim"))
                for name in who:
                    table.add_row(f"  {escape(name)}", *(cell(point["methods"][name]) for point in part))
        console.print(table)
    if comparison["not_run"]:
        console.print(missing_points(comparison["not_run"]), style="yellow")
    if by_examples:
        console.print("the first n of the file, which is fair where their order means nothing", style="dim")


def missing_points(not_run: Sequence[int]) -> str:
    """A line about points of a study that there was no time for."""
    return f"not run, for the end came before: {', '.join(map(str, not_run))}"


def _share_better(m: Mapping[str, Any]) -> float:
    better: float = m["better"] / (m["better"] + m["tied"] + m["worse"])
    return better


def _costs(comparison: Mapping[str, Any]) -> Table:
    """Losses and costs, a row a method, and the share of examples that is solved by a growing number of evaluations."""
    methods, profile = comparison["methods"], comparison["profiles"]["data"]
    budgets = profile["evaluations"]
    any_solved = any(shares[-1] for shares in profile["solved"].values())
    span = f"solved by {budgets[0]:.0f} to {budgets[-1]:.0f} evals" if any_solved else "none solved"
    share = ["solved"] if any("solved" in m for m in methods.values()) else []
    table = _table("method", "median loss", *share, "evals", "grads", "time", span)
    for name, m in methods.items():
        solved = [f"{m['solved']:.1%}"] if "solved" in m else []
        seconds = None if m["seconds"] is None else m["seconds"] / len(m["seeds"])
        work = f"{m['evaluations']['mean']:.0f}", f"{m['gradients']['mean']:.0f}", duration(seconds)
        table.add_row(
            escape(name), number(m["loss"]["median"]), *solved, *work, _sparkline(profile["solved"][name][1::2])
        )
    return table


def _legend(comparison: Mapping[str, Any]) -> Iterator[str]:
    notes = {m.get("note") for m in comparison["methods"].values()} - {"baseline", "one example", None}
    one_run = len(comparison["seeds"]) > 1
    yield "log10 ratio: median and 95 % interval, below 0 is better; p: Wilcoxon and Holm"
    if "one seed" in notes:
        yield "one seed: its examples share a network; --seeds 5 gives an interval over seeds"
    elif notes:
        yield f"{notes.pop()}: examples of one share a network, so the interval is over seeds"
    yield f"evals, grads: per example, all included; time: of one run{' of each seed' if one_run else ''}"
    if comparison["profiles"]["solved_by"] != "x_true":
        yield "solved: within 0.1 % of the way from the start to the best of all methods"


def _sparkline(shares: Sequence[float]) -> str:
    """A bar for each share; a dot is none at all, and only a full bar is all."""
    return "".join("▁▂▃▄▅▆▇█"[int(7 * share)] if share > 0 else "·" for share in shares)


def show_entries(kind: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Registered models or methods: name, package, summary."""
    table = _table(kind[:-1], "package", "", left=3)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    _Output().print(table)


def show_entry(description: Mapping[str, Any]) -> None:
    """One model or method: what it does, its parameters and its options."""
    console = _Output()
    console.print(f"[bold]{escape(description['name'])}[/] ({escape(description['package'])})")
    console.print(Text(description["about"]))
    if description.get("parameters"):
        table = _table("parameter", "unit", "bounds", "scale", "initial", "prior", left=6)
        for p in description["parameters"]:
            bounds = f"[{p['lower']:g}, {p['upper']:g}]"
            table.add_row(*map(escape, (p["name"], p["unit"], bounds, p["scale"], f"{p['initial']:g}", p["prior"])))
        console.print(table)
    if description["options"]:
        table = _table("option", "type", "default", "", left=4)
        for name, o in description["options"].items():
            kind = f"{o['type']} {o['limits']}".strip()
            table.add_row(*map(escape, (name, kind, str(o["default"]), o["description"])))
        console.print(table)
    else:
        console.print("no options")


def show_file(description: Mapping[str, Any]) -> None:
    """What is in an HDF5 file, and for a solution its loss report."""
    console = _Output()
    console.print(f"[bold]{escape(str(description['path']))}[/]: {escape(description['kind'])}", soft_wrap=True)
    table = _table("array", "shape", "type", "unit", "filters", left=5)
    for name, a in description["arrays"].items():
        cells = (name, "outside", a["link"], "", "") if "link" in a else (
            name, str(tuple(a["shape"])), a["dtype"], a["unit"], ", ".join(a["filters"])
        )  # fmt: skip
        table.add_row(*map(escape, cells))
    console.print(table)
    attributes = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    attributes.add_column(style="dim", no_wrap=True)
    attributes.add_column(overflow="fold")
    for key, value in description["attributes"].items():
        attributes.add_row(escape(key), escape(_shortened(str(value))))
    console.print(attributes)
    if description.get("command"):
        verb = description.get("verb", "solve it by")
        console.print(f"{verb} [bold]{escape(description['command'])}[/]", soft_wrap=True)
    if "summary" in description:
        show_solution(description["summary"])


def _shortened(text: str, most: int = 600) -> str:
    """A text that is too long for a table without its middle; `--json` has all of it."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def show_check(report: Mapping[str, Any]) -> None:
    """Each check, what was found and what to change; and what F costs."""
    console = _Output()
    console.print(f"[bold]{escape(report['subject'])}[/]", soft_wrap=True)
    styles = {"ok": "green", "warning": "yellow", "fault": "bold red", "skipped": "dim"}
    table = _table("", "check", "", left=3)
    for f in report["findings"]:
        told = escape(f["found"]) + (f"\n[italic]{escape(f['advice'])}[/]" if f["advice"] else "")
        table.add_row(Text(f["verdict"], style=styles[f["verdict"]]), escape(f["check"]), told)
    console.print(table)
    if report["speed"]:
        table = _table("batch size", "F, ms a row", "F and gradient", "memory for it, MB", left=0)
        for s in report["speed"]:
            costs = (s["value_ms"], s["gradient_ms"], s["memory_mb"])
            table.add_row(str(s["batch"]), *("too much" if c is None else f"{c:.3g}" for c in costs))
        console.print(table)
    faults = sum(f["verdict"] == "fault" for f in report["findings"])
    console.print("[green]no fault found[/]" if report["ok"] else f"[bold red]{faults} to mend[/]")


def show_diagnosis(found: Mapping[str, Any], figures: Sequence[str]) -> None:
    """What was measured, what it says of each method, and the one to use."""
    console, looked, m = _Output(), found["examples"], found["minima"]
    console.print(f"[bold]{escape(found['model'])}[/], {looked} of {found['n']} examples looked at")
    table = _table("", "", left=1)
    for label, value in _measured(found["flatness"], m):
        table.add_row(label, value)
    console.print(table)
    if found["alignment"] is not None:
        _show_alignment(console, found["alignment"])
    styles = {"enough": "green", "helps": "green", "may help": "yellow", "not enough": "red"}
    table = _table("method", "", "", left=3)
    for v in found["verdicts"]:
        table.add_row(
            escape(v["method"]), Text(v["verdict"], style=styles.get(v["verdict"], "dim")), escape(v["reason"])
        )
    console.print(table)
    console.print(f"use [bold]{escape(found['recommendation'])}[/]: {escape(found['summary'])}")
    work = f"{found['evaluations']} evaluations and {found['gradients']} gradients, {duration(found['seconds'])} in all"
    short = f"; for the time, minima are of {m['examples']} examples, {m['starts']} starts each"
    console.print(work + (short if found["cut_short"] else ""), style="dim")
    if found["nonfinite"]:
        console.print(
            f"{found['nonfinite']} more examples left out: F or its gradient fails at x0, or nothing is observed"
        )
    for path in figures:
        console.print(f"written to {escape(path)}", soft_wrap=True)


def _measured(flat: Mapping[str, Any], m: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a diagnosis measured of gradients and minima: what it is, and its value; without what is not known."""
    starts = f"{m['starts']} starts of {m['method']}"
    shares = [
        ("zero gradient at x0", flat["at_x0"]),
        ("zero gradient at points drawn where x may be", flat["at_drawn"]),
        ("F fails at such points", flat["failing_drawn"] or None),
        ("the loss rises on the straight way from x0 to the solution", m["barrier"]),
        (f"{starts} end in more than one minimum", m["several"]),
        ("x0 ends in a worse one than the best start", m["x0_worse"]),
        ("two or more starts find the best one", m["found_again"]),
        ("solved from x0 (x_true is known)", m["solved_x0"]),
        ("solved by the best start", m["solved_best"]),
        ("starts cut off by evaluations or time", m["unfinished"] or None),
    ]
    rows = [(label, f"{share:.1%}") for label, share in shares if share is not None]
    return rows if m["mean"] is None else [*rows, ("minima that they end in, mean", f"{m['mean']:.2f}")]


def _show_alignment(console: Console, a: Mapping[str, Any]) -> None:
    """Cosine to the solutions by the number of examples that make a joint step, and of the plain gradient."""
    kind = "x_true" if a["reference"] == "x_true" else "the best found"
    console.print(
        f"cosine of the first step with the way to {kind}, {a['examples']} examples, {a['networks']} networks"
    )
    table = _table("joint step of k examples, k =", *map(str, a["sizes"]), "own gradient")
    table.add_row("mean", *(f"{value:.2f}" for value in a["joint"]), f"{a['plain']:.2f}")
    table.add_row("± networks", *(f"{value:.2f}" for value in a["spread"]), "")
    console.print(table)


class ProgressDisplay:
    """A live line on standard error: examples done, loss quantiles, evaluations per second, time left."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._live = Live(Text(), console=console, refresh_per_second=8, transient=True)
        self._stage, self._began, self._first = "", 0.0, (0, 0.0)

    def __enter__(self) -> ProgressDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(*exc)  # type: ignore[arg-type]

    def update(self, p: Progress) -> None:
        """Show this state of the run."""
        now = time.monotonic()
        if p.stage != self._stage or p.evaluations < self._first[0]:
            self._stage, self._began, self._first = p.stage, now, (p.evaluations, p.fraction)
        elapsed = now - self._began
        gained = p.fraction - self._first[1]
        left = duration(elapsed * (1 - p.fraction) / gained) if gained > 0 and elapsed > 0.5 else "…"
        rate = (p.evaluations - self._first[0]) / elapsed if elapsed > 0 else 0.0
        grid = Table.grid(padding=(0, 1))
        bar = [ProgressBar(total=1.0, completed=p.fraction, width=16)] if self._live.console.width >= 100 else []
        cells: tuple[RenderableType, ...] = (
            Text(p.stage, style="bold"),
            *bar,
            f"{p.done}/{p.total}" if p.done else f"{p.fraction:.0%} of {p.total}",
            f"loss {_loss_quantiles(p)}",
            f"{rate:,.0f} evaluations/s",
            f"left {left}",
        )
        for _ in cells:
            grid.add_column(no_wrap=True)
        grid.add_row(*cells)
        self._live.update(grid)


def _loss_quantiles(p: Progress) -> str:
    losses = (
        sorted(p.losses.tolist()) if len(p.losses) <= 10_000 else sorted(p.losses[:: len(p.losses) // 10_000].tolist())
    )
    if not losses:
        return "…"
    at = [losses[min(len(losses) - 1, math.floor(q * len(losses)))] for q in (0.1, 0.5, 0.9)]
    return " · ".join(f"{value:.3g}" for value in at)


def _status_line(status: Mapping[str, int]) -> Text:
    styles = {"converged": "green", "nonfinite": "red", "not_run": "red"}
    parts = [Text(f"{count} {name}", style=styles.get(name, "yellow")) for name, count in status.items() if count]
    return Text(", ").join(parts)


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for i, column in enumerate(columns):
        # Words may be folded; a number must not be.
        table.add_column(column, justify="left" if i < left else "right", overflow="fold", no_wrap=i >= left)
    return table
