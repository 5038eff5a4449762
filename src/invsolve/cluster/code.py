"""The user's own code, brought to all machines of a cluster by Ray's runtime environment."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
import tempfile
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


_stages: dict[tuple[Path, Path], Path] = {}


def _staged(folder: Path, within: Path) -> Path:
    """A copy of all Python files of a folder, in a place of its own; the data beside them stay where they are."""
    if (folder, within) in _stages:
        return _stages[folder, within]
    stage = Path(tempfile.mkdtemp(prefix="invsolve-code-"))
    files = [path for path in folder.rglob("*.py") if not any(part.startswith(".") for part in path.parts[1:])]
    if (size := sum(path.stat().st_size for path in files)) > _SHIPPED:
        raise OptionError(
            f"{folder} holds {size / 1e6:.0f} MB of Python files, which would all be brought to each machine; move the "
            f"model and what it imports to a folder of their own"
        )
    for path in files:
        target = stage / within / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    _stages[folder, within] = stage
    return stage
