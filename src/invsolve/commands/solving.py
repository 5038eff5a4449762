"""The commands that solve a dataset: by a method, or by a network that was trained before.

As in cli.py, only the standard library and typer are imported at the top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invsolve.commands.flags import (
    CONFIG,
    X0,
    AsJson,
    Assign,
    BatchSize,
    CheckpointEvery,
    ClusterAddress,
    Compile,
    Config,
    Covariance,
    CpusPerWorker,
    Data,
    Deterministic,
    Device,
    DType,
    EvaluationTimeout,
    FailAbove,
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
    Resume,
    Seed,
    Sigma,
    Targets,
    Threads,
    TimeLimit,
    Verbose,
    Workers,
    assigned,
    checkpoint_seconds,
    open_dataset,
    refuse_all_but,
    run_settings,
)
from invsolve.errors import OptionError, OutputError
from invsolve.shell import UNSATISFIED, resume_command, watched

if TYPE_CHECKING:
    from collections.abc import Callable

    from invsolve.data.dataset import Dataset
    from invsolve.data.solution import Solved
    from invsolve.rerun import Rerun
    from invsolve.run import Run
    from invsolve.settings import Settings


def solve(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA.h5", help="dataset file (HDF5)", show_default=False)
    ] = None,
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
    checkpoint_every: CheckpointEvery = "5m",
    rerun: Annotated[
        Path | None,
        typer.Option("--rerun", metavar="SOLUTION.h5", help="run the same again, and say where it differs"),
    ] = None,
    fail_above: FailAbove = None,
    log: Log = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Solve every example of DATA.h5 and write the solutions with a loss report."""
    telling = Telling(fail_above, as_json, log, verbose, quiet)
    if rerun is not None:
        own = {
            "rerun",
            "data",
            "model",
            "out",
            "overwrite",
            "resume",
            "fail_above",
            "log",
            "as_json",
            "verbose",
            "quiet",
        }
        refuse_all_but(ctx, own, "with --rerun, for the solution file tells it")
        _rerun_and_tell(rerun, data, model, out, overwrite, resume, telling)
        return
    if data is None:
        raise OptionError("the dataset is missing: invsolve solve DATA.h5")
    _no_table_of_one_method(ctx)
    settings = replace(
        run_settings(ctx),
        method=method,
        method_options=assigned(ctx, "options", option, "-O"),
        checkpoint_every=checkpoint_seconds(checkpoint_every),
        save_network=save_network,
        init_from=init_from,
    )
    dataset = open_dataset(data, targets, identifiers, x0, sigma)
    options = assigned(ctx, "model_options", model_option, "-M")
    target = out or data.with_name(f"{data.stem}.{settings.method}.h5")
    _solve_and_tell(dataset, model, options, settings, target, overwrite, resume, telling)


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
    evaluation_timeout: EvaluationTimeout = None,
    batch_size: BatchSize = "auto",
    threads: Threads = None,
    deterministic: Deterministic = False,
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
    log: Log = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Solve every example of DATA.h5 by a network that was trained on others, without training."""
    _no_table_of_one_method(ctx)
    settings = replace(
        run_settings(ctx),
        method="predict",
        method_options=assigned(ctx, "options", option, "-O"),
        predict_from=network,
    )
    dataset = open_dataset(data, targets, identifiers, x0, sigma)
    options = assigned(ctx, "model_options", model_option, "-M")
    target = out or data.with_name(f"{data.stem}.{settings.method}.h5")
    telling = Telling(fail_above, as_json, log, verbose, quiet)
    _solve_and_tell(dataset, model, options, settings, target, overwrite, resume, telling)


@dataclass(frozen=True)
class Telling:
    """How a command tells what it does and found."""

    fail_above: float | None
    as_json: bool
    log: Path | None
    verbose: bool
    quiet: bool


def _solve_and_tell(
    dataset: Dataset,
    model: str | None,
    model_options: dict[str, Any],
    settings: Settings,
    target: Path,
    overwrite: bool,
    resume: bool,
    telling: Telling,
) -> None:
    """One run to its solution file, and its result as table or JSON."""
    from invsolve.run import Run

    def make() -> tuple[Run, None]:
        return Run(dataset, model, model_options, settings), None

    _run_and_tell(make, target, overwrite, resume, telling)


def _rerun_and_tell(
    path: Path,
    data: Path | None,
    model: str | None,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    telling: Telling,
) -> None:
    """A finished run again to a file of its own, and where the two differ."""
    from invsolve.data.files import is_one_of
    from invsolve.rerun import Rerun

    target = out or path.with_name(f"{path.stem}.rerun.h5")
    if is_one_of(target, [path]):
        raise OutputError(f"output {target} is the solution to compare with; choose another --out")

    def make() -> tuple[Run, Rerun]:
        again = Rerun(path, data, model)
        return again.run, again

    _run_and_tell(make, target, overwrite, resume, telling)


def _run_and_tell(
    make: Callable[[], tuple[Run, Rerun | None]],
    target: Path,
    overwrite: bool,
    resume: bool,
    telling: Telling,
) -> None:
    with watched(telling.quiet, telling.log, telling.verbose) as (control, signals):
        run, again = make()

        def tell_in_the_end(solution: Solved | None) -> None:
            assert solution is not None
            with control.aside():
                _tell(run, again, solution, None, target, telling)

        run.when_left = tell_in_the_end
        solution = run.solve(target, overwrite, resume, control)
        solved = run.solved(solution, control)
    summary = _tell(run, again, solution, solved, target, telling, bool(signals))
    if signals:
        raise typer.Exit(128 + signals[0])
    above = _count_above(solution, telling.fail_above)
    _fail_if_unsatisfied(summary, above, telling.fail_above, telling.quiet, run.unobserved(solution), bool(run.hung))


def _tell(
    run: Run,
    again: Rerun | None,
    solution: Solved,
    solved: float | None,
    target: Path,
    telling: Telling,
    stopped: bool = False,
) -> dict[str, Any]:
    """The result of a run as table or JSON, and what is to be known of how it went; the former's content."""
    from invsolve import console
    from invsolve.analysis.summary import summarize

    summary = summarize(solution, solved, str(target))
    if again is not None:
        summary["rerun"] = again.differences(solution.load())
    if telling.as_json:
        console.print_json(summary)
    else:
        console.show_solution(summary)
    if not telling.quiet:
        _tell_what_happened(summary["status"]["not_run"] > 0 or stopped, run)
    return summary


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


def _count_above(solution: Solved, fail_above: float | None) -> int:
    from invsolve.data.solution import parts

    return 0 if fail_above is None else sum(int((~(losses <= fail_above)).sum()) for losses in parts(solution, "loss"))


def _fail_if_unsatisfied(
    summary: dict[str, Any], above: int, fail_above: float | None, quiet: bool, unobserved: int, hung: bool
) -> None:
    from invsolve import console

    nonfinite = summary["status"]["nonfinite"]
    if not quiet:
        if nonfinite:
            reasons = [f"{unobserved} without any observed target"] if unobserved else []
            if nonfinite > unobserved:
                reasons.append(f"{nonfinite - unobserved} where F gives NaN or Inf, or raises, at the start")
            console.say(f"{nonfinite} of {summary['n']} examples are nonfinite: {', '.join(reasons)}")
        if above:
            console.say(f"{above} of {summary['n']} examples have a loss above {fail_above:g}")
    if nonfinite or above or hung:
        raise typer.Exit(UNSATISFIED)
