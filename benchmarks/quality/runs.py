"""One run: what is solved and how, what came of it, and the file that keeps it."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from benchmarks.quality.problems import PROBLEMS

import invsolve

DATA_SEED = 1000  # is added to a run's seed to make its data, so that no method draws the numbers that made them


@dataclass(frozen=True)
class Case:
    """One method on one dataset."""

    problem: str  # a key of PROBLEMS
    n: int
    method: str
    seed: int
    budget: int | None = None  # max_evaluations; None leaves the end to the method
    options: tuple[tuple[str, Any], ...] = ()  # of the method

    @property
    def key(self) -> str:
        """Everything that tells it from other cases, also after a problem's options have changed."""
        method = ",".join([self.method, *(f"{k}={v}" for k, v in self.options)])
        budget = "unlimited" if self.budget is None else f"max{self.budget}"
        return f"{PROBLEMS[self.problem].title}.n{self.n}.{method}.{budget}.seed{self.seed}"

    def to_json(self) -> str:
        """For the command line of a process."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        """The reverse of `to_json`."""
        fields = json.loads(text)
        return cls(**fields | {"options": tuple((k, v) for k, v in fields["options"])})

    @property
    def unlimited(self) -> Case:
        """The same without a budget."""
        return replace(self, budget=None)


@dataclass(frozen=True)
class Result:
    """What came of a case; numbers only where it was done."""

    outcome: Literal["done", "refused", "failed"]
    code: str  # digest of the package
    commit: str = ""
    line: str = ""  # why not
    solved: float = math.nan
    evaluations: float = math.nan  # per example, mean
    most_evaluations: int = 0  # of any example
    gradients: float = math.nan
    seconds: float = math.nan
    starts: float = math.nan  # per example, of methods with several
    loss: list[float | None] = field(default_factory=list, repr=False)  # (n,), None where it is not finite
    loss_initial: list[float | None] = field(default_factory=list, repr=False)

    @property
    def losses(self) -> np.ndarray:
        """(n,) loss, +∞ where it is not finite."""
        return np.array([math.inf if v is None else v for v in self.loss])

    @property
    def initial_losses(self) -> np.ndarray:
        """(n,) loss at x_initial."""
        return np.array([math.inf if v is None else v for v in self.loss_initial])


class Store:
    """A folder with a file for each case and state of the package's code.

    Results of the codes `accepted` count where there is none of the present one.
    """

    def __init__(self, folder: Path, accepted: Sequence[str] = ()) -> None:
        self.folder = folder
        self.codes = (package_code(), *accepted)
        self._read: dict[Case, Result] = {}

    def path(self, case: Case, code: str | None = None) -> Path:
        """Where the result of the present code is kept, or that of another."""
        return self.folder / f"{case.key}.{code or self.codes[0]}.json"

    def get(self, case: Case) -> Result | None:
        """The result, if there is one."""
        if case not in self._read:
            path = next((p for p in (self.path(case, code) for code in self.codes) if p.exists()), None)
            if path is None:
                return None
            self._read[case] = Result(**json.loads(path.read_text(encoding="utf-8"))["result"])
        return self._read[case]

    def done(self, case: Case) -> Result | None:
        """The result, if there is one with numbers."""
        result = self.get(case)
        return result if result is not None and result.outcome == "done" else None

    def forget(self, case: Case) -> None:
        """What came of it may be another thing now."""
        self._read.pop(case, None)


def write_result(path: Path, case: Case, result: Result) -> None:
    """Leave either no file or a whole one."""
    # JSON has no NaN.
    known = {k: v for k, v in vars(result).items() if not (isinstance(v, float) and math.isnan(v))}
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"case": vars(case), "result": known}) + "\n", encoding="utf-8")
    part.replace(path)


@functools.cache
def package_code() -> str:
    """What the package is, wherever it is installed and whatever is committed: a digest of its sources.

    A commit's name would change by a rebase, and not by an edit.
    """
    root = Path(invsolve.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


@functools.cache
def package_commit() -> str:
    """The package's version, and the commit where it is in a git work tree ("+": edited since)."""
    root = Path(invsolve.__file__).parent
    told = subprocess.run(
        ["git", "-C", str(root), "log", "-1", "--format=%h", "--", "."], capture_output=True, text=True, check=False
    )
    if told.returncode or not told.stdout.strip():
        return invsolve.__version__
    edited = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain", "--", "."], capture_output=True, text=True, check=False
    )
    return f"{invsolve.__version__} at {told.stdout.strip()}{'+' if edited.stdout.strip() else ''}"
