"""Safe writing: aside, synced, renamed, so that a kill at any moment leaves the old state or the new one."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from invsolve.errors import OutputError, first_line


def file_stamp(path: str | Path) -> tuple[int, ...] | None:
    """What changes when a file is written to or replaced; None where it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def is_one_of(path: str | Path, others: Iterable[str | Path]) -> bool:
    """Whether `path` leads to the same place as one of the `others`, which need not exist; loops of links lead nowhere,
    which `Path.resolve` ends with an error of its own before Python 3.13."""
    return os.path.realpath(path) in map(os.path.realpath, others)


def check_writable(path: Path, overwrite: bool) -> None:
    """See before any work that `path` can be written.

    Raises:
        OutputError: it exists and must not be overwritten, is no regular file, or its folder is absent or not writable.
    """
    folder = path.parent
    try:
        exists, is_file, has_folder = os.path.lexists(path), path.is_file(), folder.is_dir()
    except OSError as error:  # such as a name that is too long
        raise OutputError(f"output {path}: {first_line(error)}; choose another --out") from None
    if exists and not is_file:
        raise OutputError(f"output {path} is no regular file; name another")
    if exists and not overwrite:
        raise OutputError(f"output {path} exists; choose another name, or --overwrite it")
    if not has_folder:
        raise OutputError(f"folder {folder} of the output does not exist; create it, or choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"folder {folder} is not writable; choose another place")


@contextlib.contextmanager
def written_aside(path: Path, overwrite: bool, aside: Path | None = None) -> Iterator[Path]:
    """A path to write to; at the end its content is on disk under the name `path`, all of it or none.

    `aside` is on the same file system as `path`; a hidden file beside it by default.

    Raises:
        OutputError: the disk is full or refuses, or `path` has come to exist and must not be overwritten.
    """
    aside = aside or path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield aside
        _sync(aside)
        if overwrite:
            os.replace(aside, path)
        else:
            _rename_new(aside, path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
        raise OutputError(f"cannot write {path}: {first_line(error)}; free or change the disk and run again") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _rename_new(aside: Path, path: Path) -> None:
    """Give `aside` its final name only if nobody else has taken it; a hard link does both in one step."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise OutputError(
            f"output {path} has come to exist meanwhile; choose another name, or --overwrite it"
        ) from None
    except OSError:  # a file system without hard links
        os.replace(aside, path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
