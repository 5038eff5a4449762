"""The folder of an unfinished run: a file for each finished range, so that a kill loses only what is in flight.

Of a training that is not finished there is a checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invsolve.data.checkpoint_file import read_checkpoint, write_checkpoint
from invsolve.data.files import written_aside
from invsolve.data.json_text import json_object
from invsolve.data.store import read_columns, write_columns, write_solution_blocks
from invsolve.errors import DataError, OutputError, first_line

Columns = dict[str, np.ndarray]


def joined(parts: Sequence[Columns]) -> Columns:
    """The columns of all parts, one after another."""
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


_OURS = re.compile(r"lock|run\.json|final\.h5|fit\.h5|checkpoint\.safetensors|rows-\d{12}-\d{12}\.h5|\..*\.tmp")


class Pieces:
    """A folder for finished pieces of work. One that is put twice, or by several at a time, is there once and whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, columns: Columns) -> None:
        """Keep the columns of one finished piece of work."""
        write_columns(self.path / f"{name}.h5", columns)

    def put_checkpoint(self, state: dict[str, Any]) -> int:
        """Keep the state of a training in place of an earlier one; the bytes that it took.

        Raises:
            OutputError: the disk is full or refuses; the earlier one is still there.
        """
        return write_checkpoint(self._checkpoint, state)

    def get_checkpoint(self) -> dict[str, Any] | None:
        """The state of a training that an earlier run has kept, if any.

        Raises:
            DataError: it is damaged, or of another version.
        """
        return read_checkpoint(self._checkpoint) if self._checkpoint.exists() else None

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"


class RunFolder(Pieces):
    """`OUT.parts`, locked by the one run that writes OUT; removed once OUT is complete.

    Args:
        out: the solution file in the making.
        identity: what makes a run the same run; JSON values.
        resume: go on with the ranges of an unfinished run of the same identity.
        overwrite: discard an unfinished run.

    Raises:
        OutputError: another run writes the same file; an unfinished run is in the way; or it is not the same run.
    """

    def __init__(self, out: Path, identity: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
        super().__init__(_folder_of(out))
        self.out = out
        self.ended_early = False  # whether OUT waits to be completed by a run that resumes
        try:
            self.path.mkdir(exist_ok=True)
            self._lock = (self.path / "lock").open("w")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {first_line(error)}; choose another --out") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise OutputError(f"another run is writing {out} now; wait for it, or choose another --out") from None
        try:
            self._claim(identity, resume, overwrite)
        except BaseException:
            self.close()
            raise

    def _claim(self, identity: dict[str, Any], resume: bool, overwrite: bool) -> None:
        record = self.path / "run.json"
        earlier = self._read_identity(record)
        if earlier is not None and resume:
            refuse_other_run(self.path, earlier, identity)
            return
        if earlier is not None and not overwrite:
            trained = " and a checkpoint of its training" if self._checkpoint.exists() else ""
            raise OutputError(
                f"an unfinished run with {len(list(self.path.glob('rows-*.h5')))} finished ranges{trained} is in "
                f"{self.path}; --resume goes on with it, --overwrite discards it"
            )
        foreign = next((p.name for p in self.path.iterdir() if not _OURS.fullmatch(p.name)), None)
        if foreign is not None:
            raise OutputError(f"{self.path} holds {foreign}, which no run has put there; move it away")
        for leftover in self._pieces():
            leftover.unlink()
        with written_aside(record, overwrite=True) as aside:
            aside.write_text(json.dumps(identity, indent=1))

    def check_room(self, size: int) -> None:
        """See before any work that about `size` bytes of results fit on the disk twice, as pieces and as OUT.

        Raises:
            OutputError: they do not.
        """
        there = sum(piece.stat().st_size for piece in self._pieces())
        free = shutil.disk_usage(self.path).free
        if 2 * size > free + there:
            raise OutputError(
                f"the solutions take about {size / 1e6:.3g} MB, and twice that while they are put together, but "
                f"{free / 1e6:.3g} MB are free in {self.out.parent}; free some, or choose another --out"
            )

    def _pieces(self) -> list[Path]:
        return [p for p in self.path.iterdir() if _OURS.fullmatch(p.name) and p.name not in ("lock", "run.json")]

    def _read_identity(self, record: Path) -> dict[str, Any] | None:
        try:
            return json_object(record.read_text())
        except (OSError, ValueError):
            return None  # killed before its first range: there is nothing to lose

    @staticmethod
    def is_begun(out: Path) -> bool:
        """Whether an unfinished run towards `out` has left its folder."""
        return (_folder_of(out) / "run.json").exists()

    def get(self, name: str) -> Columns | None:
        """The columns kept under this name, or None; a damaged file counts as none."""
        path = self.path / f"{name}.h5"
        if not path.exists():
            return None
        with contextlib.suppress(DataError):
            return read_columns(path)
        return None

    def drop_checkpoint(self) -> None:
        """The training is finished."""
        self._checkpoint.unlink(missing_ok=True)

    def finished(self) -> Iterator[tuple[int, int, Columns]]:
        """The ranges start ≤ i < stop that are kept, in order, with their columns; a damaged one is none."""
        end = 0
        for path in sorted(self.path.glob("rows-*.h5")):
            start, stop = (int(part) for part in path.stem.split("-")[1:])
            if start < end or (columns := self.get(path.stem)) is None:
                path.unlink()
                continue
            yield start, stop, columns
            end = stop

    def assemble(
        self,
        blocks: Iterator[tuple[int, Columns]],
        n: int,
        attributes: dict[str, Any],
        parameters: list[dict[str, str]],
        *,
        overwrite: bool,
    ) -> None:
        """Write OUT from blocks (first example, columns), all of it or nothing."""
        with written_aside(self.out, overwrite, aside=self.path / "final.h5") as aside:
            write_solution_blocks(aside, n, blocks, attributes, parameters)

    def remove(self) -> None:
        """Delete the folder: OUT is complete."""
        for piece in self._pieces():
            piece.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the lock; the folder stays only if it holds finished work, or marks OUT as unfinished."""
        with contextlib.suppress(OSError):
            if not self.ended_early and not self._pieces():
                (self.path / "run.json").unlink(missing_ok=True)
                (self.path / "lock").unlink(missing_ok=True)
                self.path.rmdir()
        self._lock.close()


def _folder_of(out: Path) -> Path:
    return out.with_name(out.name + ".parts")


def range_name(start: int, stop: int) -> str:
    """Name of the piece for examples start ≤ i < stop; sorts by start."""
    return f"rows-{start:012d}-{stop:012d}"


def refuse_other_run(where: Path, earlier: dict[str, Any], identity: dict[str, Any]) -> None:
    """See that a run to be resumed is the same run.

    Raises:
        OutputError: it is not, with the first thing that differs.
    """
    for key, value in identity.items():
        if earlier.get(key) != value:
            raise OutputError(
                f"cannot resume {where}: its {key} was {earlier.get(key)!r}, now {value!r}; "
                f"repeat the command as it was, or --overwrite"
            )
