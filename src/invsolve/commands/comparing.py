"""The command that holds methods against each other.

As in cli.py, only the standard library and typer are imported at the top.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invsolve.commands.flags import (
    CONFIG,
    X0,
    AsJson,
    BatchSize,
    ClusterAddress,
    Compile,
    Config,
    CpusPerWorker,
    Csv,
    Deterministic,
    Device,
    DType,
    EvaluationTimeout,
    GpusPerWorker,
    Identifiers,
    Log,
    MaxEvaluations,
    Model,
    ModelAssign,
    Overwrite,
    Prior,
    Quiet,
    Refine,
    Seed,
    Seeds,
    Sigma,
    Targets,
    Threads,
    TimeLimit,
    Verbose,
    Workers,
    assigned,
    open_dataset,
    refuse,
    refuse_all_but,
    run_settings,
)
from invsolve.commands.reporting import write_page
from invsolve.errors import OptionError, OutputError
from invsolve.shell import watched

if TYPE_CHECKING:
    from invsolve.analysis.comparison import Comparison

STDOUT = Path("-")


def compare(
    ctx: typer.Context,
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA.h5 | A.h5 B.h5 ...", help="a dataset, or solutions of one dataset")
    ],
    methods: Annotated[
        str | None,
        typer.Option("--methods", metavar="A,B,...", help="methods to run, such as bfgs,gd,jpo (the default)"),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="NAME", help="what the others are held against; default: bfgs")
    ] = None,
    model: Model = None,
    refine: Refine = None,
    device: Device = "auto",
    dtype: DType = "float64",
    seed: Seed = 0,
    seeds: Seeds = 1,
    examples: Annotated[
        str | None,
        typer.Option("--examples", metavar="N,N,...|all", help="again over the first N examples, N ascending"),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option("--budgets", metavar="N,N,...", help="again within N evaluations of each example, N ascending"),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("-O", metavar="METHOD.KEY=VALUE", help="option of one method, repeatable")
    ] = None,
    model_option: ModelAssign = None,
    config: Config = None,
    max_evaluations: MaxEvaluations = None,
    time_limit: TimeLimit = None,
    evaluation_timeout: EvaluationTimeout = None,
    batch_size: BatchSize = "auto",
    compile: Compile = "auto",
    threads: Threads = None,
    deterministic: Deterministic = False,
    cluster: ClusterAddress = None,
    workers: Workers = "auto",
    cpus_per_worker: CpusPerWorker = 1,
    gpus_per_worker: GpusPerWorker = 0.0,
    prior: Prior = False,
    targets: Targets = "targets",
    identifiers: Identifiers = "identifiers",
    x0: X0 = "x0",
    sigma: Sigma = "sigma",
    csv: Csv = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="write a page with pictures and all examples")
    ] = None,
    overwrite: Overwrite = False,
    log: Log = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run several methods on the same dataset from the same starts, or hold finished solutions against each other."""
    from invsolve import pipeline

    _check_outputs(ctx, csv, report, data, overwrite, as_json)
    signals: list[int] = []
    if len(data) > 1:
        refuse_all_but(
            ctx,
            {"data", "baseline", "csv", "report", "overwrite", "as_json", "quiet", "config"},
            "for finished solution files",
        )
        comparison = pipeline.compare_solutions(data, baseline=baseline)
    else:
        names = _listed(methods or "bfgs,gd,jpo") or []
        options = _assigned_by_method(ctx, names, option)
        with watched(quiet, log, verbose) as (control, signals):
            comparison = pipeline.compare(
                open_dataset(data[0], targets, identifiers, x0, sigma),
                model,
                names,
                baseline=baseline,
                seeds=seeds,
                examples=_listed(examples),
                budgets=_listed(budgets),
                settings=run_settings(ctx),
                options=options,
                model_options=assigned(ctx, "model_options", model_option, "-M"),
                control=control,
            )
    if report is not None:
        with contextlib.redirect_stdout(sys.stderr):  # what a model prints
            write_page(comparison, report, overwrite=overwrite, quiet=quiet)
    _tell_comparison(comparison, csv, overwrite, as_json)
    if signals:
        raise typer.Exit(128 + signals[0])


def _check_outputs(
    ctx: typer.Context, csv: Path | None, report: Path | None, data: list[Path], overwrite: bool, as_json: bool
) -> None:
    """See before any work that the rows and the page can go where they are asked for."""
    from invsolve.data.files import check_writable, is_one_of

    if (csv is None or csv == STDOUT) and report is None:
        refuse(ctx, {"overwrite"}, "without --csv FILE or --report FILE")
    if csv == STDOUT and as_json:
        raise OptionError("--csv - and --json would both be printed; give --csv a file")
    if csv is not None and csv != STDOUT:
        if is_one_of(csv, data):
            raise OutputError(f"--csv {csv} is an input; choose another name")
        check_writable(csv, overwrite)
    if report is not None:
        from invsolve.report.page import check_report

        if csv is not None and is_one_of(csv, [report]):
            raise OutputError(f"--csv and --report are both {report}; give each a name of its own")
        check_report(report, overwrite, data)


def _tell_comparison(comparison: Comparison, csv: Path | None, overwrite: bool, as_json: bool) -> None:
    from invsolve import console
    from invsolve.data.rows import write_rows

    if csv == STDOUT:
        console.print_rows(comparison.rows())
        if comparison.study is not None and comparison.study.not_run:
            console.say(console.missing_points(comparison.study.not_run))
        return
    if csv is not None:
        write_rows(csv, comparison.rows(), overwrite)
    if as_json:
        console.print_json(comparison.to_json())
    else:
        console.show_comparison(comparison.to_json())


def _assigned_by_method(ctx: typer.Context, methods: list[str], flags: list[str] | None) -> dict[str, dict[str, Any]]:
    from invsolve.options import split_assignments
    from invsolve.registry import method_class

    options: dict[str, dict[str, Any]] = {name: {} for name in methods}
    tables: dict[str, Any] = ctx.meta.get(CONFIG, {}).get("options", {})
    for name, values in tables.items():
        if not isinstance(values, dict):
            raise OptionError(f"option '{name}' of which method? compare takes a table [options.METHOD] for each")
        method_class(name)  # refuses a name that is no method; one that is not run here is passed over
        if name in options:
            options[name].update(values)
    for key, value in split_assignments(flags or [], "-O").items():
        name, _, option = key.partition(".")
        if name not in options or not option:
            raise OptionError(f"-O {key}={value}: compare takes METHOD.KEY=VALUE, METHOD one of {', '.join(methods)}")
        options[name][option] = value
    return options


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
