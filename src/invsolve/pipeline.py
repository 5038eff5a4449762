"""The road of the data, read as prose: solve a dataset, compare methods on it, generate one."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invsolve.analysis.comparison import Comparison, Contender, Source, by_seed, common_seeds, compared
from invsolve.contest import Contest, read_points
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.files import is_one_of
from invsolve.data.json_text import json_object
from invsolve.data.solution import Solution
from invsolve.data.store import read_dataset, read_solution
from invsolve.errors import DataError, InvsolveError, ModelError, OptionError, first_line, nearest
from invsolve.methods.joint import JointMethod
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.registry import load_model, method_class, registered
from invsolve.run import Run
from invsolve.settings import CHECKPOINT_EVERY, MANY, Cluster, Settings, check_seed, read_batch_size

MOST_SEEDS = 1000
SIMULATED = 1024  # rows that are simulated in one call


def solve(
    dataset: Dataset | str | Path,
    model: Any = None,
    method: str = "bfgs",
    *,
    device: str = "auto",
    dtype: str = "float64",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    refine: str | None = None,
    max_evaluations: int | None = None,
    time_limit: float | None = None,
    evaluation_timeout: float | None = None,
    batch_size: int | str | None = None,
    compile: str = "auto",
    prior: bool = False,
    covariance: bool = False,
    threads: int | None = None,
    deterministic: bool = False,
    cluster: Cluster | str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: float | None = CHECKPOINT_EVERY,
    save_network: str | Path | None = None,
    init_from: str | Path | None = None,
    control: Control | None = None,
) -> Solution:
    """Solve every example of a dataset.

    Args:
        dataset: a `Dataset`, or the path of a dataset file.
        model: a registered name, "file.py:NAME", "package.module:NAME", a function F(x, identifiers), a ForwardModel
            or a subclass of it; by default the model that the data name.
        method: a registered method, see `invsolve methods`.
        device: "auto", "cpu", "cuda" or "cuda:1".
        dtype: "float64" or "float32"; the precision that the method works in. Losses are float64 always.
        seed: of everything random.
        options: the method's options.
        model_options: the model's options.
        refine: a row method that polishes every solution ("bfgs", "lm", "none"); by default the method's own choice.
        max_evaluations: per example, everything included.
        time_limit: in seconds; then the best so far is returned.
        evaluation_timeout: in seconds; an evaluation of F that takes longer ends the run with what was finished. Where
            it hangs outside of Python, so that nothing can end it, `out` is written and the process ends with code 3.
        batch_size: examples in one batched call, at most; None or "auto": as many as a short race finds fastest, within
            memory. It does not change the solutions beyond rounding.
        compile: "on" compiles the rounds of a row method by torch.compile, which takes some 10 s or more; "off"; or
            "auto", where the work ahead repays it.
        prior: add the penalty of the parameters' priors, which the solution tells as `loss_prior`: a Gaussian prior by
            ½((x − mean)/std)², a uniform one as bounds.
        covariance: compute the Gauss–Newton covariance, standard errors and identifiability of each solution.
        threads: cores to use; None: as many as torch is set to use. Long runs on the CPU share their rows among so many
            processes.
        deterministic: let the bits of the result depend on neither `batch_size` nor `threads`, nor on how the run was
            split, stopped and resumed, on one machine with the same versions: 64 examples in their order are solved
            together and with no others, by one thread, compiled only if `compile` is "on". Several times slower where F
            is cheap.
        cluster: a Ray cluster that solves the ranges and trains, or its address: "ray" for one that is started here.
        out: a solution file to write as well, range by range.
        overwrite: replace an existing `out`.
        resume: go on with an interrupted run that wrote to `out`.
        checkpoint_every: so many seconds the training of a joint method is kept beside `out`, so that `resume` goes on
            with it after a kill; None: never. Seldomer where that would take more than a twentieth of the time.
        save_network: a file for the network that the method has trained, for `predict`; `overwrite` holds for it too.
        init_from: such a file, whose network is trained further instead of a new one.
        control: to watch the run, or to end it early.

    Raises:
        InvsolveError: something asked for is not possible; its text says what, and what to do.
    """
    settings = Settings(
        method=method, method_options=dict(options or {}), refine=refine, device=device, dtype=dtype, seed=seed,
        max_evaluations=max_evaluations, time_limit=time_limit, evaluation_timeout=evaluation_timeout,
        batch_size=read_batch_size(batch_size), compile=compile, prior=prior, covariance=covariance, threads=threads,
        deterministic=deterministic,
        cluster=Cluster(cluster) if isinstance(cluster, str) else cluster, checkpoint_every=checkpoint_every,
        save_network=None if save_network is None else Path(save_network),
        init_from=None if init_from is None else Path(init_from),
    )  # fmt: skip
    run = Run(dataset, model, dict(model_options or {}), settings)
    return _solved(run, out, overwrite, resume, control)


def predict(
    network: str | Path,
    dataset: Dataset | str | Path,
    model: Any = None,
    *,
    device: str = "auto",
    dtype: str = "float64",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    refine: str | None = None,
    max_evaluations: int | None = None,
    time_limit: float | None = None,
    evaluation_timeout: float | None = None,
    batch_size: int | str | None = None,
    prior: bool = False,
    covariance: bool = False,
    threads: int | None = None,
    deterministic: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    control: Control | None = None,
) -> Solution:
    """Solve every example of a dataset by a network that was trained on others, without training.

    Args:
        network: the file that `solve` wrote as `save_network`.
        model: as for `solve`; by default the one that the data name, else the network's where that is registered.
        refine: a row method that polishes the network's answers ("bfgs" by default), or "none".
        options: how they are refined: `agree` and `restarts`.
        dataset, device, dtype, seed, model_options, max_evaluations, time_limit, evaluation_timeout, batch_size, prior,
            covariance, threads, deterministic, out, overwrite, resume, control: as for `solve`.

    Raises:
        InvsolveError: as for `solve`; the file holds no network, or one for another problem.
    """
    settings = Settings(
        method="predict", method_options=dict(options or {}), refine=refine, device=device, dtype=dtype, seed=seed,
        max_evaluations=max_evaluations, time_limit=time_limit, evaluation_timeout=evaluation_timeout,
        batch_size=read_batch_size(batch_size), prior=prior,
        covariance=covariance, threads=threads, deterministic=deterministic, predict_from=Path(network),
    )  # fmt: skip
    run = Run(dataset, model, dict(model_options or {}), settings)
    return _solved(run, out, overwrite, resume, control)


def _solved(run: Run, out: str | Path | None, overwrite: bool, resume: bool, control: Control | None) -> Solution:
    with contextlib.closing(run.solve(None if out is None else Path(out), overwrite, resume, control)) as solved:
        solution = solved.load()
    for note in run.notes:
        warnings.warn(note, stacklevel=3)
    return solution


def compare(
    dataset: Dataset | str | Path,
    model: Any = None,
    methods: Sequence[str] = ("bfgs", "gd", "jpo"),
    *,
    baseline: str | None = None,
    seeds: int = 1,
    examples: Sequence[int | str] | None = None,
    budgets: Sequence[int | str] | None = None,
    settings: Settings | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    model_options: Mapping[str, Any] | None = None,
    control: Control | None = None,
) -> Comparison:
    """Run several methods on the same dataset from the same starts, and score all by one evaluator.

    Args:
        dataset, model, model_options: as for `solve`.
        methods: registered methods, each once.
        baseline: the one of them that the others are held against; "bfgs" where it is among them, else the first.
        seeds: how many seeds to run each method with, from `settings.seed` on; one that needs none runs once for all.
        examples: sizes, ascending, such as [2, 8, 32, "all"]: the comparison is repeated over the first so many
            examples, for `Comparison.study`. Joint methods run anew with each size; what other methods found of all
            examples is what they find of the first.
        budgets: evaluations per example, ascending: all methods run anew within each, likewise.
        settings: device, dtype, seed, limits and refinement, common to all; `method` and `method_options` are ignored.
        options: each method's own options, by its name.
        control: to watch the runs, or to end them early.

    Raises:
        InvsolveError: as for `solve`; or a method given twice, a baseline that is not among them, no seeds, or
            `examples` or `budgets` that do not ascend or are out of range, or both of them.
    """
    baseline = _choose_baseline(methods, baseline)
    settings = settings or Settings()
    if not 1 <= seeds <= MOST_SEEDS:
        raise OptionError(f"seeds must be from 1 to {MOST_SEEDS}, found {seeds}")
    check_seed(settings.seed + seeds - 1)
    data = dataset if isinstance(dataset, Dataset) else read_dataset(dataset)
    axis, points = read_points(examples, budgets, len(data), settings.max_evaluations)
    own = {name: replace(settings, method=name, method_options=dict((options or {}).get(name, {}))) for name in methods}
    every = tuple(range(settings.seed, settings.seed + seeds))
    contest = Contest(data, model, dict(model_options or {}), own, baseline, every, axis, points)
    return contest.hold(control or Control())


def compare_solutions(
    paths: Sequence[str | Path],
    *,
    baseline: str | None = None,
    least: int = 2,
    data: Dataset | str | Path | None = None,
    model: Any = None,
) -> Comparison:
    """Hold finished solution files of one dataset against each other; the losses in them are the evaluator's.

    A file is called by its method. Several by one method, alike in all but the seed, are its seeds; otherwise each is
    called by its own name. The solved fraction is told where the dataset is at hand.

    Args:
        paths: the files, each once.
        baseline: as for `compare`.
        least: how many files there must be.
        data: the dataset that was solved; by default the file that the solutions name, if it is still there unchanged.
        model: as for `solve`, where the solutions' model is not registered: its code is run only if it is named here.

    Raises:
        DataError: a file is given twice or is no solution, or they are of different datasets, or not all methods have
            the same seeds.
        OptionError: the baseline is not among them.
    """
    twice = next((path for i, path in enumerate(paths) if is_one_of(path, paths[:i])), None)
    if twice is not None:
        raise DataError(f"{twice} is given twice; name each file once")
    read = {Path(path): read_solution(path) for path in paths}
    if len(read) < least:
        raise DataError(f"comparing needs two solution files at least, found {len(read)}")
    (first, one), *others = read.items()
    for path, other in others:
        for key in ("input_sha256", "model", "model_options", "prior"):
            # A prior is a part of what was minimized; files of before there were any have none.
            a, b = (s.attributes.get(key, False if key == "prior" else None) for s in (one, other))
            if a != b or len(one) != len(other):
                raise DataError(f"{path} and {first} are not of the same dataset and model: {key} {b} and {a}")
    contenders = {}
    for name, runs in by_seed(read).items():
        shared, uses_seed = _nature(runs[0])
        contenders[name] = Contender(tuple(runs if uses_seed else runs[:1]), shared, uses_seed)
    baseline = _choose_baseline(list(contenders), baseline)
    return compared(contenders, baseline, common_seeds(contenders), _source_of(one, data, model))


def _nature(solution: Solution) -> tuple[bool, bool]:
    """Whether its examples share what was learned, and whether another seed might give other solutions.

    Of a method that is not registered here, both are assumed: nothing is then claimed that might be false.
    """
    known = registered("methods")
    names = [str(solution.attributes.get(key, "none")) for key in ("method", "refine")]
    if names[0] not in known:
        return True, True
    classes = [method_class(name) for name in names if name in known]
    return issubclass(classes[0], JointMethod), any(c.uses_seed for c in classes)


def _source_of(solution: Solution, data: Dataset | str | Path | None, model: Any) -> Source:
    """The problems that a solution is of, if they are at hand unchanged and the model can be loaded.

    What is given by the caller must be right; what only the file tells may be gone.
    """
    told, given = solution.attributes, data is not None or model is not None
    try:
        found = data if isinstance(data, Dataset) else read_dataset(data or str(told.get("input") or "(no file)"))
        if found.sha256() != told.get("input_sha256"):
            raise DataError(f"{found.source or 'the dataset given'} is not the dataset that was solved")
        options = json_object(str(told.get("model_options") or "{}"))
        if options is None:
            raise DataError("attribute 'model_options' of the solutions is no JSON object")
        # The name in the file is data: unless it is given here, only a registered model is loaded from it.
        run = Run(replace(found, model=str(told.get("model")), model_options={}), model, options, Settings())
        return Source(run.dataset, run.model, run.loss_true())
    except InvsolveError as error:
        if given:
            raise
        return Source(missing=str(error))


def _choose_baseline(methods: Sequence[str], baseline: str | None) -> str:
    twice = next((m for m in methods if list(methods).count(m) > 1), None)
    if twice:
        raise OptionError(f"method '{twice}' is given twice; name each once")
    if not methods:
        raise OptionError("no methods to compare; name some with --methods bfgs,jpo")
    if baseline is None:
        return "bfgs" if "bfgs" in methods else methods[0]
    if baseline not in methods:
        raise OptionError(f"baseline '{baseline}' is not among the methods; {nearest(baseline, methods)}")
    return baseline


def generate(
    model: Any, n: int, *, noise: float | None = None, seed: int = 0, model_options: Mapping[str, Any] | None = None
) -> Dataset:
    """Simulate a dataset of n examples whose solutions are known.

    Args:
        model: as for `load_model`; it must say how identifiers and parameters are drawn.
        n: number of examples.
        noise: standard deviation of the Gaussian noise added to the targets; by default the model's.
        seed: the same seed gives the same dataset.
        model_options: the model's options.

    Raises:
        ModelError: the model cannot be simulated, or gives NaN or Inf.
        OptionError: n < 1, noise < 0, an impossible seed, or an unusable model option.
    """
    loaded = load_model(model, **(model_options or {}))
    check_seed(seed)
    noise = loaded.noise if noise is None else noise
    if not 1 <= n <= MANY:
        raise OptionError(f"n must be from 1 to {MANY}, found {n}")
    if not 0 <= noise < math.inf:
        raise OptionError(f"noise must be ≥ 0 and finite, found {noise}")
    try:
        identifiers, x, targets = _simulate(loaded, n, noise, torch.Generator().manual_seed(seed))
    except InvsolveError:
        raise
    except (Exception, SystemExit) as error:  # of the user's model, or memory
        raise ModelError(f"model '{loaded.name}' cannot simulate {n} examples: {first_line(error)}") from error
    if targets is None:
        raise ModelError(f"model '{loaded.name}' gives NaN or Inf for parameters drawn from its own priors")
    named = loaded.name in registered("models")  # a data file never names anything else
    return Dataset(
        targets=targets,
        identifiers=_to_numpy(identifiers),
        x_true=x.numpy(),
        model=loaded.name if named else None,
        model_options=loaded.options.model_dump(mode="json") if named else {},
    )


def _simulate(
    model: ForwardModel, n: int, noise: float, generator: torch.Generator
) -> tuple[Identifiers, torch.Tensor, np.ndarray | None]:
    """Identifiers, x (n, *x_shape) and what is observed of noisy y (n, *y_shape); None where some y is NaN or Inf.

    Of y no more than the result is in memory, beside a block of rows.
    """
    identifiers = model.draw_identifiers(n, generator)
    x = model.draw_parameters(n, identifiers, generator)
    targets: np.ndarray | None = None
    for start, stop in _blocks(n):
        rows = torch.arange(start, stop)
        parts = torch.split(rows, SIMULATED)
        y = torch.cat([model(x[part], _pick(identifiers, part)).detach() for part in parts])
        # In blocks of a multiple of 16 numbers, torch draws as it would draw all at once.
        y = y + noise * torch.randn(y.shape, dtype=y.dtype, generator=generator)
        if not bool(torch.isfinite(y).all()):
            return identifiers, x, None
        seen = model.conceal(y).numpy()
        if targets is None:
            targets = np.empty((n, *seen.shape[1:]), dtype=seen.dtype)
        targets[start:stop] = seen
    return identifiers, x, targets


def _blocks(n: int) -> list[tuple[int, int]]:
    """Rows in blocks of `SIMULATED`, of which the last is longer: torch draws fewer than 16 numbers in another way."""
    starts = range(0, max(n - SIMULATED, 0) + 1, SIMULATED)
    return list(zip(starts, [*starts[1:], n], strict=True))


def _pick(identifiers: Identifiers, rows: torch.Tensor) -> Identifiers:
    if isinstance(identifiers, dict):
        return {k: v[rows] for k, v in identifiers.items()}
    return None if identifiers is None else identifiers[rows]


def _to_numpy(identifiers: Identifiers) -> Any:
    if isinstance(identifiers, dict):
        return {k: v.numpy() for k, v in identifiers.items()}
    return None if identifiers is None else identifiers.numpy()
