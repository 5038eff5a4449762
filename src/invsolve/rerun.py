"""The same run again, from what its solution file tells of it, and where the two differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError, field_validator

from invsolve.data.dataset import Dataset
from invsolve.data.solution import Solution
from invsolve.data.store import read_dataset, read_solution
from invsolve.errors import DataError, first_line
from invsolve.run import Run
from invsolve.settings import Settings


class Told(BaseModel):
    """What a solution file tells of its run, as its attributes; they may be anything."""

    input: str
    input_sha256: str
    input_paths: dict[str, str] = {}  # files of before it was kept have none
    model: str
    model_sha256: str
    model_options: dict[str, Any]
    method: str
    method_options: dict[str, Any]
    refine: str
    seed: int
    dtype: str
    device: str
    max_evaluations: int | None
    time_limit: float | None = None
    batch_size: int
    compiled: bool
    threads: int
    prior: bool
    covariance: bool
    deterministic: bool = False  # files of before there was that do not tell
    network: Path | None = None
    network_sha256: str = "none"

    @field_validator("input_paths", "model_options", "method_options", mode="before")
    @classmethod
    def _from_json(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("max_evaluations", "time_limit", mode="before")
    @classmethod
    def _from_none(cls, value: object) -> object:
        return None if isinstance(value, str) and value == "none" else value

    @classmethod
    def of(cls, path: Path, solution: Solution) -> Told:
        """What a file tells.

        Raises:
            DataError: too little to run it again.
        """
        try:
            return cls.model_validate({k: v for k, v in solution.attributes.items() if k in cls.model_fields})
        except (ValidationError, RecursionError) as error:
            raise DataError(f"{path} does not tell how it was made: {first_line(error)}; solve the data anew") from None

    def settings(self) -> Settings:
        """The settings of its run."""
        asked = self.method == "predict"
        return Settings(
            method=self.method,
            method_options=self.method_options,
            refine=self.refine,
            device=self.device,
            dtype=self.dtype,
            seed=self.seed,
            max_evaluations=self.max_evaluations,
            time_limit=self.time_limit,
            batch_size=self.batch_size,
            compile="on" if self.compiled else "off",
            prior=self.prior,
            covariance=self.covariance,
            threads=self.threads,
            deterministic=self.deterministic,
            init_from=None if asked else self.network,
            predict_from=self.network if asked else None,
        )


@dataclass
class Rerun:
    """A finished run that is to be made again.

    Args:
        path: its solution file.
        data: the dataset, where it is not in its place any more; it must be the same to the bit.
        model: the model, where it is no registered one: its code is run only if it is named here.

    Raises:
        DataError: the file is no solution or tells too little, or data, model or network are not those of then.
        InvsolveError: as for `solve`.
    """

    path: Path
    data: str | Path | None = None
    model: Any = None

    def __post_init__(self) -> None:
        self.before = read_solution(self.path)
        self.told = Told.of(self.path, self.before)
        told = self.told
        if ":" in told.model and self.model is None:
            raise DataError(
                f"{self.path} was solved with model '{told.model}', whose code runs only where you name it: add "
                f"--model {told.model}"
            )
        dataset = self._dataset()
        self.run = Run(dataset, self.model or told.model, told.model_options, told.settings())
        now = self.run.identity
        for key, what in (("model_sha256", "the model's code"), ("network_sha256", "the network")):
            if now[key] != getattr(told, key):
                raise DataError(f"{what} has changed since {self.path} was made; what it gives now is another solution")

    def _dataset(self) -> Dataset:
        told = self.told
        if self.data is None and not told.input:
            raise DataError(f"{self.path} is of data that came from no file; name a dataset file with the same data")
        try:
            dataset = read_dataset(self.data or told.input, **_known_paths(told.input_paths))
        except DataError as error:
            if self.data is not None:
                raise
            raise DataError(f"{error}; name the dataset where it is now: invsolve solve DATA.h5 --rerun …") from None
        if dataset.sha256() != told.input_sha256:
            raise DataError(f"{dataset.source} is not the dataset that {self.path} was made of: it was changed")
        return dataset

    def differences(self, after: Solution) -> dict[str, Any]:
        """What is other than before: columns, with how many examples and by how much, and what it was made by."""
        columns: dict[str, dict[str, Any]] = {}
        now = after.columns()
        for name, values in self.before.columns().items():
            other = now.get(name)
            if other is None or other.shape != values.shape:
                columns[name] = {"examples": len(values), "largest": None}
            elif (count := _unequal(values, other)) > 0:
                columns[name] = {"examples": count, "largest": _largest(values, other)}
        return {
            "solution": str(self.path),
            "identical": not columns,
            "columns": columns,
            "made_by": _changed(_flat(self.before.attributes), _flat(after.attributes)),
        }


def _known_paths(paths: Mapping[str, str]) -> dict[str, str]:
    return {part: paths[part] for part in ("targets", "identifiers", "x0", "sigma") if part in paths}


def _unequal(a: np.ndarray, b: np.ndarray) -> int:
    """Examples in which two columns (n, ...) differ in any bit; NaN is equal to NaN."""
    differ = a != b
    if a.dtype.kind == "f":
        differ &= ~(np.isnan(a) & np.isnan(b))
    return int(differ.reshape(len(a), -1).any(1).sum())


def _largest(a: np.ndarray, b: np.ndarray) -> float | None:
    """The largest difference of numbers, relative to the larger; None of names and codes, or where none is finite."""
    if a.dtype.kind != "f":
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
    known = relative[np.isfinite(relative)]
    return float(known.max()) if len(known) else None


_MADE_BY = ("device", "threads", "batch_size", "compiled", "versions")


def _flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What may change the bits of a result, by name."""
    found = {key: attributes.get(key) for key in _MADE_BY}
    versions = found.pop("versions")
    try:
        versions = json.loads(versions) if isinstance(versions, str) else versions
    except ValueError:
        versions = None
    return found | (versions if isinstance(versions, dict) else {})


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {key: [before.get(key), after[key]] for key in after if before.get(key) != after[key]}
