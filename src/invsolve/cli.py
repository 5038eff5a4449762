"""The commands: each reads its flags, takes the road of pipeline.py, and shows or prints the one result object.

Only the standard library and typer are imported at the top, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from invsolve import looking
from invsolve._version import __version__
from invsolve.config import duration_seconds
from invsolve.errors import OptionError, OutputError
from invsolve.flags import (
    CONFIG,
    X0,
    AsJson,
    Assign,
    BatchSize,
    Compile,
    Config,
    Covariance,
    Csv,
    Data,
    Device,
    DType,
    FailAbove,
    Identifiers,
    MaxEvaluations,
    Model,
    ModelAssign,
    Overwrite,
    Prior,
    Quiet,
    Refine,
    Resume,
    Seed,
    Seeds,
    Sigma,
    Targets,
    Threads,
    TimeLimit,
    assigned,
    open_dataset,
    refuse,
    refuse_all_but,
)
from invsolve.shell import UNSATISFIED, resume_command, run_command_line, watched

if TYPE_CHECKING:
    from invsolve.analysis.comparison import Comparison
    from invsolve.data.dataset import Dataset
    from invsolve.run import Run
    from invsolve.settings import Settings

STDOUT = Path("-")

app = typer.Typer(
    name="invsolve",
    help="Solve batches of inverse problems with differentiable forward models.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="List the forward models; `models show NAME` tells one's parameters and options.")
methods_app = typer.Typer(help="List the methods; `methods show NAME` tells one's options.")
app.add_typer(models_app, name="models")
app.add_typer(methods_app, name="methods")


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(f"invsolve {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command()
def solve(
    ctx: typer.Context,
    data: Data,
    model: Model = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="see `invsolve methods`")] = "bfgs",
    refine: Refine = None,
    device: Device = "auto",
    dtype: DType = "float64",
    seed: Seed = 0,
    option: Assign = None,
    model_option: ModelAssign = None,
    config: Config = None,
    max_evaluations: MaxEvaluations = None,
    time_limit: TimeLimit = None,
    batch_size: BatchSize = "auto",
    compile: Compile = "auto",
    threads: Threads = None,
    prior: Prior = False,
    covariance: Covariance = False,
    targets: Targets = "targets",
    identifiers: Identifiers = "identifiers",
    x0: X0 = "x0",
    sigma: Sigma = "sigma",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="default: DATA.METHOD.h5")] = None,
    save_network: Annotated[
        Path | None, typer.Option("--save-network", metavar="NET", help="keep the trained network, for `predict`")
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", metavar="NET", help="train a saved network further, not a new one")
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    fail_above: FailAbove = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Solve every example of DATA.h5 and write the solutions with a loss report."""
    _no_table_of_one_method(ctx)
    settings = replace(
        _settings(refine, device, dtype, seed, max_evaluations, time_limit, batch_size, compile, threads, prior),
        method=method,
        method_options=assigned(ctx, "options", option, "-O"),
        covariance=covariance,
        save_network=save_network,
        init_from=init_from,
    )
    dataset = open_dataset(data, targets, identifiers, x0, sigma)
    options = assigned(ctx, "model_options", model_option, "-M")
    target = out or data.with_name(f"{data.stem}.{settings.method}.h5")
    _solve_and_tell(dataset, model, options, settings, target, overwrite, resume, fail_above, as_json, quiet)


@app.command()
def predict(
    ctx: typer.Context,
    network: Annotated[
        Path, typer.Argument(metavar="NET", help="network of `solve --save-network`", show_default=False)
    ],
    data: Data,
    model: Model = None,
    refine: Refine = None,
    device: Device = "auto",
    dtype: DType = "float64",
    seed: Seed = 0,
    option: Assign = None,
    model_option: ModelAssign = None,
    config: Config = None,
    max_evaluations: MaxEvaluations = None,
    time_limit: TimeLimit = None,
    batch_size: BatchSize = "auto",
    threads: Threads = None,
    prior: Prior = False,
    covariance: Covariance = False,
    targets: Targets = "targets",
    identifiers: Identifiers = "identifiers",
    x0: X0 = "x0",
    sigma: Sigma = "sigma",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="default: DATA.predict.h5")] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    fail_above: FailAbove = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Solve every example of DATA.h5 by a network that was trained on others, without training."""
    _no_table_of_one_method(ctx)
    settings = replace(
        _settings(refine, device, dtype, seed, max_evaluations, time_limit, batch_size, "auto", threads, prior),
        method="predict",
        method_options=assigned(ctx, "options", option, "-O"),
        covariance=covariance,
        predict_from=network,
    )
    dataset = open_dataset(data, targets, identifiers, x0, sigma)
    options = assigned(ctx, "model_options", model_option, "-M")
    target = out or data.with_name(f"{data.stem}.{settings.method}.h5")
    _solve_and_tell(dataset, model, options, settings, target, overwrite, resume, fail_above, as_json, quiet)


@app.command()
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
    option: Annotated[
        list[str] | None, typer.Option("-O", metavar="METHOD.KEY=VALUE", help="option of one method, repeatable")
    ] = None,
    model_option: ModelAssign = None,
    config: Config = None,
    max_evaluations: MaxEvaluations = None,
    time_limit: TimeLimit = None,
    batch_size: BatchSize = "auto",
    compile: Compile = "auto",
    threads: Threads = None,
    prior: Prior = False,
    targets: Targets = "targets",
    identifiers: Identifiers = "identifiers",
    x0: X0 = "x0",
    sigma: Sigma = "sigma",
    csv: Csv = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run several methods on the same dataset from the same starts, or hold finished solutions against each other."""
    from invsolve import pipeline

    _check_csv(ctx, csv, data, overwrite, as_json)
    signals: list[int] = []
    if len(data) > 1:
        refuse_all_but(
            ctx, {"data", "baseline", "csv", "overwrite", "as_json", "quiet", "config"}, "for finished solution files"
        )
        comparison = pipeline.compare_solutions(data, baseline=baseline)
    else:
        names = [name.strip() for name in (methods or "bfgs,gd,jpo").split(",") if name.strip()]
        settings = _settings(
            refine, device, dtype, seed, max_evaluations, time_limit, batch_size, compile, threads, prior
        )
        options = _assigned_by_method(ctx, names, option)
        with watched(quiet) as (control, signals):
            comparison = pipeline.compare(
                open_dataset(data[0], targets, identifiers, x0, sigma),
                model,
                names,
                baseline=baseline,
                seeds=seeds,
                settings=settings,
                options=options,
                model_options=assigned(ctx, "model_options", model_option, "-M"),
                control=control,
            )
    _tell_comparison(comparison, csv, overwrite, as_json)
    if signals:
        raise typer.Exit(128 + signals[0])


@app.command()
def generate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="registered name, file.py:F or package.module:F")],
    n: Annotated[int, typer.Option("--n", metavar="N", help="number of examples")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="dataset file to write")],
    noise: Annotated[
        float | None, typer.Option("--noise", metavar="S", help="standard deviation; default: the model's")
    ] = None,
    seed: Seed = 0,
    model_option: ModelAssign = None,
    overwrite: Overwrite = False,
) -> None:
    """Simulate a dataset whose solutions are known."""
    from invsolve import pipeline
    from invsolve.data.files import check_writable
    from invsolve.data.store import write_dataset
    from invsolve.options import split_assignments

    check_writable(out, overwrite)
    options = split_assignments(model_option or [], "-M")
    with contextlib.redirect_stdout(sys.stderr):
        dataset = pipeline.generate(model, n, noise=noise, seed=seed, model_options=options)
    write_dataset(out, dataset, overwrite=overwrite)
    from invsolve import console

    console.print_text(f"{n} examples of {model} written to {out}")


app.command()(looking.inspect)
app.command()(looking.check)
app.command()(looking.diagnose)


@models_app.callback(invoke_without_command=True)
def _models(ctx: typer.Context) -> None:
    _list_entries(ctx, "models")


@models_app.command("show")
def _show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="registered name, file.py:F or package.module:F")],
    model_option: ModelAssign = None,
) -> None:
    """Show a model's parameters and options."""
    from invsolve import console
    from invsolve.inspection import describe_model
    from invsolve.options import split_assignments

    console.show_entry(describe_model(name, split_assignments(model_option or [], "-M")))


@models_app.command("new")
def _new_model(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="where to write the model")],
    overwrite: Overwrite = False,
) -> None:
    """Write a short commented model that runs as it is, to start from."""
    from invsolve import console, inspection

    console.print_text(inspection.write_new_model(file, overwrite))


@methods_app.callback(invoke_without_command=True)
def _methods(ctx: typer.Context) -> None:
    _list_entries(ctx, "methods")


@methods_app.command("show")
def _show_method(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Show a method's options."""
    from invsolve import console
    from invsolve.inspection import describe_method

    console.show_entry(describe_method(name))


def _list_entries(ctx: typer.Context, kind: str) -> None:
    if ctx.invoked_subcommand is None:
        from invsolve import console
        from invsolve.inspection import list_entries

        console.show_entries(kind, list_entries(kind))


def _solve_and_tell(
    dataset: Dataset,
    model: str | None,
    model_options: dict[str, Any],
    settings: Settings,
    target: Path,
    overwrite: bool,
    resume: bool,
    fail_above: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """One run to its solution file, and its result as table or JSON."""
    from invsolve import console
    from invsolve.analysis.summary import summarize
    from invsolve.run import Run

    with watched(quiet) as (control, signals):
        run = Run(dataset, model, model_options, settings)
        solution = run.solve(target, overwrite, resume, control)
        summary = summarize(solution, run.loss_true(), str(target))
    if as_json:
        console.print_json(summary)
    else:
        console.show_solution(summary)
    if not quiet:
        _tell_what_happened(summary["status"]["not_run"] > 0 or bool(signals), run)
    if signals:
        raise typer.Exit(128 + signals[0])
    _fail_if_unsatisfied(summary, solution.loss, fail_above, quiet, run.unobserved(solution))


def _check_csv(ctx: typer.Context, csv: Path | None, data: list[Path], overwrite: bool, as_json: bool) -> None:
    """See before any work that the rows can go where they are asked for."""
    from invsolve.data.files import check_writable

    if csv is None or csv == STDOUT:
        refuse(ctx, {"overwrite"}, "without --csv FILE")
    if csv == STDOUT and as_json:
        raise OptionError("--csv - and --json would both be printed; give --csv a file")
    if csv is not None and csv != STDOUT:
        if csv.resolve() in [path.resolve() for path in data]:
            raise OutputError(f"--csv {csv} is an input; choose another name")
        check_writable(csv, overwrite)


def _tell_comparison(comparison: Comparison, csv: Path | None, overwrite: bool, as_json: bool) -> None:
    from invsolve import console
    from invsolve.data.rows import write_rows

    if csv == STDOUT:
        console.print_rows(comparison.rows())
        return
    if csv is not None:
        write_rows(csv, comparison.rows(), overwrite)
    if as_json:
        console.print_json(comparison.to_json())
    else:
        console.show_comparison(comparison.to_json())


def _settings(
    refine: str | None,
    device: str,
    dtype: str,
    seed: int,
    max_evaluations: int | None,
    time_limit: str | None,
    batch_size: str,
    compile: str,
    threads: int | None,
    prior: bool,
) -> Settings:
    from invsolve.settings import Settings, read_batch_size

    return Settings(
        refine=refine,
        device=device,
        dtype=dtype,
        seed=seed,
        max_evaluations=max_evaluations,
        time_limit=None if time_limit is None else duration_seconds(time_limit),
        batch_size=read_batch_size(batch_size),
        compile=compile,
        threads=threads,
        prior=prior,
    )


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


def _no_table_of_one_method(ctx: typer.Context) -> None:
    for key, value in ctx.meta.get(CONFIG, {}).get("options", {}).items():
        if isinstance(value, dict):
            raise OptionError(f"[options.{key}] in the config is for compare; solve takes one table [options]")


def _tell_what_happened(ended_early: bool, run: Run) -> None:
    from invsolve import console

    for note in (*run.notes, *run.solver.tuning.notes):
        console.say(note)
    first_error = run.conduct.first_error
    if first_error is not None:
        console.say(f"the model raised for some examples, first for example {first_error[0]}: {first_error[1]}")
    if ended_early:
        console.say(f"ended early; '{resume_command()}' goes on")


def _fail_if_unsatisfied(
    summary: dict[str, Any], losses: Any, fail_above: float | None, quiet: bool, unobserved: int
) -> None:
    from invsolve import console

    nonfinite = summary["status"]["nonfinite"]
    above = 0 if fail_above is None else int((~(losses <= fail_above)).sum())
    if not quiet:
        if nonfinite:
            reasons = [f"{unobserved} without any observed target"] if unobserved else []
            if nonfinite > unobserved:
                reasons.append(f"{nonfinite - unobserved} where F gives NaN or Inf, or raises, at the start")
            console.say(f"{nonfinite} of {summary['n']} examples are nonfinite: {', '.join(reasons)}")
        if above:
            console.say(f"{above} of {summary['n']} examples have a loss above {fail_above:g}")
    if nonfinite or above:
        raise typer.Exit(UNSATISFIED)


def main() -> NoReturn:
    """The program `invsolve`."""
    run_command_line(app)
