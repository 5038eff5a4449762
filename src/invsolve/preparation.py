"""What a user asks for, all of it checked before the first evaluation, as what solves ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invsolve import reuse
from invsolve.data.dataset import Dataset
from invsolve.data.network_file import SavedNetwork
from invsolve.data.store import read_dataset
from invsolve.errors import OptionError
from invsolve.models.base import ForwardModel
from invsolve.range_solver import RangeSolver
from invsolve.registry import load_refiner, model_of
from invsolve.settings import Settings, check_limits, choose_device, choose_dtype, choose_threads
from invsolve.shapes import solution_shape


@dataclass
class Prepared:
    """A run that may begin."""

    dataset: Dataset
    model: ForwardModel
    x_shape: tuple[int, ...]
    solver: RangeSolver
    saved: SavedNetwork | None  # the network that it begins with
    threads: int
    notes: list[str]  # what the user should know of that network


def prepare(dataset: Dataset | str | Path, model: Any, model_options: dict[str, Any], settings: Settings) -> Prepared:
    """Read and load what is named, and see that it all fits.

    Raises:
        InvsolveError: it does not.
    """
    notes: list[str] = []
    method, saved = reuse.make_method(settings)
    refiner = load_refiner(settings.refine, method, seed=settings.seed)
    device, dtype = choose_device(settings.device), choose_dtype(settings.dtype)
    threads = choose_threads(settings.threads)
    check_limits(settings)
    dataset = dataset if isinstance(dataset, Dataset) else read_dataset(dataset)
    if saved is not None and model is None and dataset.model is None:
        dataset = reuse.with_model_of(saved, dataset)
    loaded = model_of(dataset, model, model_options)
    if saved is not None:
        notes += reuse.check_model(saved, loaded)
    x_shape = solution_shape(loaded, dataset)
    if saved is not None:
        notes += reuse.check_data(saved, dataset, x_shape)
    for one in filter(None, (method, refiner)):
        if refusal := one.refusal(math.prod(x_shape), dtype):
            raise OptionError(refusal)
    workers = threads if device.type == "cpu" else 1
    solver = RangeSolver(dataset, loaded, x_shape, method, refiner, device, dtype, settings, workers)
    solver.conduct.watch.limit = settings.evaluation_timeout
    solver.check_extras()
    if settings.compile == "on" and method.row_method is None:
        raise OptionError(
            f"compile: method '{method.name}' cannot be compiled, only row methods and multistart can; leave it out"
        )
    return Prepared(dataset, loaded, x_shape, solver, saved, threads, notes)
