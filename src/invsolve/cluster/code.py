"""The user's own code, brought to all machines of a cluster by Ray's runtime environment."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from invsolve.errors import OptionError

_SHIPPED = 2**24  # bytes of the user's own code, at most


def code_of(model: Any) -> Path | None:
    """A folder of the user's own code, for a model that is named "file.py:F" or "package.module:F".

    Raises:
        OptionError: it is too large to be brought to other machines.
    """
    if not isinstance(model, str) or ":" not in model:
        return None
    where = model.rpartition(":")[0]
    if where.endswith(".py"):
        return _staged(Path(where).resolve().parent, Path())
    package = where.partition(".")[0]
    spec = importlib.util.find_spec(package)
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")]
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin).resolve()
    if any(origin.is_relative_to(place) for place in installed):
        return None
    if origin.name == "__init__.py":
        return _staged(origin.parent, Path(package))
    return _staged(origin.parent, Path())


_stages: dict[str, Path] = {}
"""The copies that were made, by what is in them: code that is edited between two runs of one process is another."""


def _staged(folder: Path, within: Path) -> Path:
    """A copy of all Python files of a folder, in a place of its own; the data beside them stay where they are."""
    files, size = [], 0
    for path in _python_files(folder):
        files.append((within / path.relative_to(folder), content := path.read_bytes()))
        size += len(content)
        if size > _SHIPPED:
            raise OptionError(
                f"{folder} holds more than {_SHIPPED / 2**20:.0f} MB of Python files, which would all be brought "
                f"to each machine; move the model and what it imports to a folder of their own"
            )
    key = hashlib.sha256(repr((folder, sorted(files))).encode()).hexdigest()
    if key not in _stages:
        stage = Path(tempfile.mkdtemp(prefix="invsolve-code-"))
        atexit.register(shutil.rmtree, stage, ignore_errors=True)
        for path, content in files:
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            (stage / path).write_bytes(content)
        _stages[key] = stage
    return _stages[key]


def _python_files(folder: Path) -> Iterator[Path]:
    """Those of a folder and of the folders in it that are not hidden, nor a virtual environment."""
    for place, folders, names in os.walk(folder):
        inner = [name for name in folders if not Path(place, name, "pyvenv.cfg").exists()]
        folders[:] = sorted(name for name in inner if not name.startswith(".") and name != "__pycache__")
        yield from (Path(place, name) for name in sorted(names) if name.endswith(".py") and Path(place, name).is_file())


def return_to_code() -> None:
    """Be in a worker's folder of the code again, if it was replaced by another with the same.

    So does each of Ray's nodes that joins a machine on which there is one already.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            os.chdir(os.environ.get("PWD", os.curdir))
