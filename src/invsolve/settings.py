"""How to solve: what a user may set of a run beside the data and the model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from invsolve.errors import OptionError

MANY = 10**9  # of examples in a batch, or evaluations of one: above, it is a slip of the pen
MOST_THREADS = 1024
MOST_WORKERS = 100_000
CHECKPOINT_EVERY = 300.0  # seconds
LEAST_EVALUATIONS = 3  # the start and the result are scored, and in between something must happen


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that is to solve the ranges of a run, and to train.

    `address` is "ray" for one that is started on this machine, else what Ray understands: "auto", "host:6379",
    "ray://host:10001". `workers` solve a range each at a time, None as many as there is room for. One takes
    `cpus_per_worker` cores and `gpus_per_worker` GPUs, or a part of one.
    """

    address: str
    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0


@dataclass(frozen=True)
class Settings:
    """How to solve: everything of a run but the data and the model.

    `method_options` are those of the method, by name. `max_evaluations` is per example and covers everything; None
    leaves the end to the method. `time_limit` is in seconds, as is `evaluation_timeout`: one evaluation of F that takes
    longer ends the run. `refine` is "none" or a row method, None the method's own
    choice. `prior` adds the penalty of the parameters' priors to what is minimized;
    `covariance` asks for standard errors. `batch_size` rows are evaluated together, None as many as is fastest.
    `compile` is "on", "off", or "auto": where it is seen to pay. `threads` are the cores to use, None as many as torch
    is set to. `deterministic` lets the bits of a result depend on neither of these, nor on what is solved at the same
    time. `checkpoint_every` so many seconds the training of a joint method is kept, so that a killed run goes on with
    it; None never.

    `cluster` shares the work with other machines.

    `save_network` is where a trained network is written, `init_from` one that training begins from, and
    `predict_from` the one that gives the solutions, without a method.
    """

    method: str = "bfgs"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    refine: str | None = None
    device: str = "auto"
    dtype: str = "float64"
    seed: int = 0
    max_evaluations: int | None = None
    time_limit: float | None = None
    evaluation_timeout: float | None = None
    batch_size: int | None = None
    compile: str = "auto"
    prior: bool = False
    covariance: bool = False
    threads: int | None = None
    deterministic: bool = False
    cluster: Cluster | None = None
    checkpoint_every: float | None = CHECKPOINT_EVERY
    save_network: Path | None = None
    init_from: Path | None = None
    predict_from: Path | None = None


def choose_device(name: str) -> torch.device:
    """The device called "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        OptionError: there is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdecimal()) or name.endswith(":"):
        raise OptionError(f"no device is called '{name}'; valid: auto, cpu, cuda, cuda:1")
    if int(index or 0) >= count:
        raise OptionError(f"device '{name}' is not there: torch {torch.__version__} sees {count} CUDA devices; use cpu")
    return torch.device(name)


def choose_dtype(name: str) -> torch.dtype:
    """The precision called "float64" or "float32".

    Raises:
        OptionError: it is called neither.
    """
    if name not in ("float64", "float32"):
        raise OptionError(f"no dtype is called '{name}'; valid: float64, float32")
    return getattr(torch, name)  # type: ignore[no-any-return]


def choose_threads(count: int | None) -> int:
    """How many cores to use: as many as torch is set to, which is all that the process may use unless told otherwise.

    Raises:
        OptionError: there cannot be so many.
    """
    if count is None:
        return torch.get_num_threads()
    if not 1 <= count <= MOST_THREADS:
        raise OptionError(f"threads must be from 1 to {MOST_THREADS}, found {count}")
    return count


@contextlib.contextmanager
def threads_set(count: int) -> Iterator[None]:
    """Let torch compute with so many threads meanwhile."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


@contextlib.contextmanager
def deterministic_algorithms(asked: bool) -> Iterator[None]:
    """If `asked`, let torch meanwhile compute all the same way each time, and refuse what it cannot."""
    before = torch.are_deterministic_algorithms_enabled()
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def check_limits(settings: Settings) -> None:
    """See that all numbers are within reason.

    Raises:
        OptionError: one is not.
    """
    most = settings.max_evaluations
    if most is not None and not LEAST_EVALUATIONS <= most <= MANY:
        raise OptionError(
            f"max_evaluations must be from {LEAST_EVALUATIONS} (scoring start and result takes two) to {MANY}, "
            f"found {most}"
        )
    if settings.batch_size is not None and not 1 <= settings.batch_size <= MANY:
        raise OptionError(f"batch_size must be auto, or from 1 to {MANY}, found {settings.batch_size}")
    if settings.cluster is not None:
        check_cluster(settings.cluster)
    if settings.compile not in ("auto", "on", "off"):
        raise OptionError(f"compile must be auto, on or off, found '{settings.compile}'")
    check_seed(settings.seed)
    if settings.time_limit is not None and not settings.time_limit > 0:
        raise OptionError(f"time_limit must be > 0 seconds, found {settings.time_limit}")
    if settings.checkpoint_every is not None and not settings.checkpoint_every > 0:
        raise OptionError(f"checkpoint_every must be > 0 seconds, or never (None), found {settings.checkpoint_every}")
    if settings.evaluation_timeout is not None and not settings.evaluation_timeout > 0:
        raise OptionError(f"evaluation_timeout must be > 0 seconds, found {settings.evaluation_timeout}")


def read_workers(value: int | str) -> int | None:
    """A number of workers from what a user gives: a number, or "auto", which is None.

    Raises:
        OptionError: it is neither.
    """
    try:
        return None if value == "auto" else int(value)
    except ValueError:
        raise OptionError(f"workers must be auto, or from 1 to {MOST_WORKERS}, found '{value}'") from None


def check_cluster(cluster: Cluster) -> None:
    """See that what is asked of a cluster can be meant.

    Raises:
        OptionError: it cannot.
    """
    if not cluster.address.strip():
        raise OptionError("cluster is empty; give ray, or an address such as ray://host:10001")
    if cluster.workers is not None and not 1 <= cluster.workers <= MOST_WORKERS:
        raise OptionError(f"workers must be auto, or from 1 to {MOST_WORKERS}, found {cluster.workers}")
    if not 1 <= cluster.cpus_per_worker <= MOST_THREADS:
        raise OptionError(f"cpus_per_worker must be from 1 to {MOST_THREADS}, found {cluster.cpus_per_worker}")
    if not (0 <= (gpus := float(cluster.gpus_per_worker)) <= 1 or (gpus > 1 and gpus.is_integer())):
        raise OptionError(f"gpus_per_worker must be a whole number or from 0 to 1, found {cluster.gpus_per_worker}")


def read_batch_size(value: int | str | None) -> int | None:
    """A batch size from what a user gives: a number, or "auto", which is None.

    Raises:
        OptionError: it is neither.
    """
    if value is None or value == "auto":
        return None
    try:
        return int(value)
    except ValueError:
        raise OptionError(f"batch_size must be auto, or from 1 to {MANY}, found '{value}'") from None


def check_seed(seed: int) -> None:
    """See that a seed is one.

    Raises:
        OptionError: it is below 0 or above 2⁶³ − 1.
    """
    if not 0 <= seed < 2**63:
        raise OptionError(f"seed must be from 0 to 2^63 - 1, found {seed}")
