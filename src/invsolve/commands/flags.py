"""The flags of the commands, each with its help once; and the configuration file, which may set them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invsolve.config import duration_seconds, load_config
from invsolve.errors import OptionError

if TYPE_CHECKING:
    from invsolve.data.dataset import Dataset
    from invsolve.settings import Cluster, Settings

CONFIG = "invsolve.config"  # where a command finds the option tables of its --config


def _read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        flags = {p.name: bool(getattr(p, "is_flag", False)) for p in ctx.command.params if p.name}
        values, tables = load_config(path, flags)
        ctx.default_map = {**(ctx.default_map or {}), **values}
        ctx.meta[CONFIG] = tables
    return path


Data = Annotated[Path, typer.Argument(metavar="DATA.h5", help="dataset file (HDF5)", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help="registered name, path/to/file.py:F or package.module:F; default: the data's"
    ),
]
Refine = Annotated[
    str | None, typer.Option("--refine", metavar="METHOD", help="row method that polishes each solution, or none")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:1")]
DType = Annotated[str, typer.Option("--dtype", metavar="NAME", help="float64 or float32; losses are float64 always")]
Seed = Annotated[int, typer.Option("--seed", help="of everything random")]
Assign = Annotated[list[str] | None, typer.Option("-O", metavar="KEY=VALUE", help="method option, repeatable")]
ModelAssign = Annotated[list[str] | None, typer.Option("-M", metavar="KEY=VALUE", help="model option, repeatable")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="RUN.toml", callback=_read_config, is_eager=True, help="flags from a file; flags win"
    ),
]
MaxEvaluations = Annotated[
    int | None, typer.Option("--max-evaluations", metavar="N", help="of F per example, everything included")
]
TimeLimit = Annotated[
    str | None, typer.Option("--time-limit", metavar="TIME", help="such as 90, 45s, 30m or 1h30m; then the best so far")
]
EvaluationTimeout = Annotated[
    str | None,
    typer.Option("--evaluation-timeout", metavar="TIME", help="of one evaluation of F; a longer one ends the run"),
]
BatchSize = Annotated[
    str, typer.Option("--batch-size", metavar="N", help="examples in one batched call; auto: as many as is fastest")
]
Compile = Annotated[
    str,
    typer.Option("--compile", metavar="WHEN", help="F and the method to machine code: on, off, or auto, if it pays"),
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="cores to use; default: as many as the process may")
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic", help="the same bits for any --batch-size and --threads, resumed or not; several times slower"
    ),
]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="solve and train on a Ray cluster: ray starts one here, or auto, ray://host:10001",
    ),
]
Workers = Annotated[
    str, typer.Option("--workers", metavar="N", help="of the cluster, at a time; auto: as there is room for")
]
CpusPerWorker = Annotated[int, typer.Option("--cpus-per-worker", metavar="N", help="cores that each worker takes")]
GpusPerWorker = Annotated[
    float, typer.Option("--gpus-per-worker", metavar="N", help="GPUs that each worker takes, or a part of one")
]
AsJson = Annotated[bool, typer.Option("--json", help="print exactly one JSON document")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress and no messages")]
Log = Annotated[
    Path | None, typer.Option("--log", metavar="RUN.jsonl", help="append a line of JSON for each event of the run")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="show these events")]
Prior = Annotated[
    bool, typer.Option("--prior", help="add the penalty of the parameters' priors; it is told as loss_prior")
]
Covariance = Annotated[bool, typer.Option("--covariance", help="standard errors and identifiability of each solution")]
Seeds = Annotated[
    int, typer.Option("--seeds", metavar="K", help="so many seeds of each method, from --seed on; JPO's spread needs 5")
]
Csv = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="a row for each method, seed and example; - to print them")
]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted run of the same command")]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        "--checkpoint-every", metavar="TIME", help="how often an unfinished training is kept for --resume; or never"
    ),
]
FailAbove = Annotated[
    float | None, typer.Option("--fail-above", metavar="LOSS", help="exit with 3 if any example's loss is above")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an existing output")]
Targets = Annotated[str, typer.Option("--targets", metavar="PATH", help="dataset inside the file")]
Identifiers = Annotated[str, typer.Option("--identifiers", metavar="PATH", help="dataset or group inside the file")]
X0 = Annotated[str, typer.Option("--x0", metavar="PATH", help="dataset inside the file, or numbers such as 1,0.5")]
Sigma = Annotated[str, typer.Option("--sigma", metavar="PATH", help="dataset inside the file")]


def open_dataset(path: Path, targets: str, identifiers: str, x0: str, sigma: str) -> Dataset:
    from invsolve.data.store import read_dataset

    return read_dataset(path, targets=targets, identifiers=identifiers, x0=x0, sigma=sigma)


_AS_GIVEN = (
    "refine",
    "device",
    "dtype",
    "seed",
    "max_evaluations",
    "compile",
    "threads",
    "deterministic",
    "prior",
    "covariance",
)


def run_settings(ctx: typer.Context) -> Settings:
    """What the flags of a run say of it, whichever of them the command has.

    They are read by their names here, once, rather than handed on by every command.

    Raises:
        OptionError: a duration, a batch size or a number of workers is none; workers are given without a cluster.
    """
    from invsolve.settings import Settings, read_batch_size

    given = ctx.params
    return Settings(
        **{name: given[name] for name in _AS_GIVEN if name in given},
        time_limit=_seconds(given["time_limit"]),
        evaluation_timeout=_seconds(given["evaluation_timeout"]),
        batch_size=read_batch_size(given["batch_size"]),
        cluster=_cluster(ctx) if "cluster" in given else None,
    )


def _seconds(duration: str | None) -> float | None:
    return None if duration is None else duration_seconds(duration)


def _cluster(ctx: typer.Context) -> Cluster | None:
    """The cluster that flags ask for, if any."""
    from invsolve.settings import Cluster, read_workers

    given = ctx.params
    if given["cluster"] is None:
        refuse(ctx, {"workers", "cpus_per_worker", "gpus_per_worker"}, "without --cluster")
        return None
    workers = read_workers(given["workers"])
    return Cluster(given["cluster"], workers, given["cpus_per_worker"], given["gpus_per_worker"])


def checkpoint_seconds(text: str) -> float | None:
    """Seconds from one checkpoint to the next, or None for "never"."""
    return None if text == "never" else duration_seconds(text)


def assigned(ctx: typer.Context, table: str, flags: list[str] | None, flag: str) -> dict[str, Any]:
    """Options from the config's table and, winning over them, from the flags."""
    from invsolve.options import split_assignments

    return {**ctx.meta.get(CONFIG, {}).get(table, {}), **split_assignments(flags or [], flag)}


def refuse(ctx: typer.Context, flags: set[str], where: str) -> None:
    """See that none of these parameters is given where it would do nothing."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if name in flags and source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP"):
            raise OptionError(f"{parameter.opts[0]} has no meaning {where}; leave it out")


def refuse_all_but(ctx: typer.Context, flags: set[str], where: str) -> None:
    refuse(ctx, {parameter.name or "" for parameter in ctx.command.params} - flags, where)
