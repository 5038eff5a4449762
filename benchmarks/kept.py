"""Results that are kept: a file for each case and state of the package's code, so that a benchmark resumes."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

import invsolve

DATA_SEED = 1000  # is added to a run's seed to make its data, so that no method draws the numbers that made them


class Case(Protocol):
    """What is run: frozen, and so a key of dicts."""

    @property
    def key(self) -> str:
        """Everything that tells it from other cases: a file's name."""
        ...

    def to_json(self) -> str:
        """For the command line of a process."""
        ...


@dataclass(frozen=True)
class Result:
    """What came of a case; benchmarks add their numbers, which have defaults."""

    outcome: Literal["done", "refused", "failed"]
    code: str  # digest of the package
    commit: str = ""
    line: str = ""  # why not
    loss: list[float | None] = field(default_factory=list, repr=False)  # (n,), None where it is not finite
    loss_initial: list[float | None] = field(default_factory=list, repr=False)

    @property
    def losses(self) -> np.ndarray:
        """(n,) loss, +∞ where it is not finite."""
        return _with_infinite(self.loss)

    @property
    def initial_losses(self) -> np.ndarray:
        """(n,) loss at x_initial."""
        return _with_infinite(self.loss_initial)

    def told(self) -> str:
        """The numbers in a few words, for who watches."""
        return self.outcome if not self.line else f"{self.outcome}: {self.line}"


def rounded(loss: np.ndarray) -> list[float | None]:
    """Losses for a file. Eight digits: enough to tell better from worse, and half of the file's size."""
    return [float(f"{v:.8g}") if math.isfinite(v) else None for v in loss.tolist()]


def _with_infinite(loss: Sequence[float | None]) -> np.ndarray:
    return np.array([math.inf if v is None else v for v in loss])


C = TypeVar("C", bound=Case)
R = TypeVar("R", bound=Result)


class Store(Generic[C, R]):
    """A folder with a file for each case and state of the package's code.

    Results of the codes `accepted` count where there is none of the present one. `read` makes a result of its fields.
    """

    def __init__(self, folder: Path, read: Callable[..., R], accepted: Sequence[str] = ()) -> None:
        self.folder, self.read = folder, read
        self.codes = (package_code(), *accepted)
        self._known: dict[C, R] = {}

    def path(self, case: C, code: str | None = None) -> Path:
        """Where the result of the present code is kept, or that of another."""
        return self.folder / f"{case.key}.{code or self.codes[0]}.json"

    def found(self, case: C) -> Path | None:
        """Where the result is that counts."""
        return next((p for p in (self.path(case, code) for code in self.codes) if p.exists()), None)

    def get(self, case: C) -> R | None:
        """The result, if there is one."""
        if case not in self._known:
            path = self.found(case)
            if path is None:
                return None
            self._known[case] = self.read(**json.loads(path.read_text(encoding="utf-8"))["result"])
        return self._known[case]

    def done(self, case: C) -> R | None:
        """The result, if there is one with numbers."""
        result = self.get(case)
        return result if result is not None and result.outcome == "done" else None

    def forget(self, case: C) -> None:
        """What came of it may be another thing now."""
        self._known.pop(case, None)


def write_result(path: Path, case: Case, result: Result) -> None:
    """Leave either no file or a whole one."""
    # JSON has no NaN.
    known = {k: v for k, v in vars(result).items() if not (isinstance(v, float) and math.isnan(v))}
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"case": json.loads(case.to_json()), "result": known}) + "\n", encoding="utf-8")
    part.replace(path)


def as_fields(text: str) -> dict[str, Any]:
    """Fields of a case from its JSON; lists of pairs, which options are, become tuples of tuples again."""
    fields = json.loads(text)
    return {k: tuple((a, b) for a, b in v) if isinstance(v, list) else v for k, v in fields.items()}


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
