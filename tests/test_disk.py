"""Disks that fill up, and inputs that change, while a run is under way: what was finished is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import invsolve
from invsolve import ranges
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.run_folder import RunFolder
from invsolve.models.base import FunctionModel


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE", 5)
    monkeypatch.setattr(ranges, "PATIENCE", 0)


def shots(n: int = 20, seed: int = 1) -> Dataset:
    data = invsolve.generate("billiards", n, seed=seed)
    data.x0, data.x_true = np.array([0.7, 0.0]), None
    return data


def acting(at: int, act: Callable[[], object]) -> FunctionModel:
    """Billiards that does something when it is called for the `at`th time."""
    inner, calls = invsolve.load_model("billiards"), [0]

    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == at:
            act()
        return inner(x, identifiers)

    return FunctionModel(forward, "acting")


def pieces(out: Path) -> int:
    return len(list(out.with_name(out.name + ".parts").glob("rows-*.h5")))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, leave: int) -> None:
    """Leave so many bytes free."""
    with (place / "filler").open("ab") as filler, contextlib.suppress(OSError):
        filler.write(bytes(shutil.disk_usage(place).free - leave))


def test_a_solution_that_will_not_fit_is_refused_before_any_work(small_disk: Path) -> None:
    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        raise AssertionError("nothing is to be computed")

    with pytest.raises(
        invsolve.OutputError, match=r"take about 1.\d+ MB, and twice .* but 1.0\d MB are free in .*disk"
    ):
        invsolve.solve(shots(5000), forward, out=small_disk / "o.h5")
    assert not list(small_disk.iterdir())


def test_the_room_of_what_is_kept_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free was enough in the beginning; when it is resumed, its pieces are there."""
    out, control = tmp_path / "o.h5", Control()
    model = acting(40, lambda: setattr(control, "interrupted", True))
    invsolve.solve(shots(), model, out=out, control=control, threads=1, compile="off")
    assert pieces(out) >= 2
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 2000))
    with pytest.raises(invsolve.OutputError, match="free some"):
        invsolve.solve(shots(), model, out=tmp_path / "p.h5")
    assert not (tmp_path / "p.h5.parts").exists()
    resumed = invsolve.solve(shots(), model, out=out, resume=True, threads=1, compile="off")
    assert (resumed.status != invsolve.Status.NOT_RUN).all()


@pytest.mark.parametrize("when", ["in a range", "when all is put together"])
def test_a_disk_that_fills_up_keeps_what_was_finished(
    when: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, assemble = small_disk / "o.h5", RunFolder.assemble
    data, model = shots(), acting(25 if when == "in a range" else -1, lambda: fill(small_disk, 0))

    def assembling(self: RunFolder, *arguments: Any, **more: Any) -> None:
        if when != "in a range" and not (small_disk / "was full").exists():
            (small_disk / "was full").touch()
            fill(small_disk, 0)
        assemble(self, *arguments, **more)

    monkeypatch.setattr(RunFolder, "assemble", assembling)
    with pytest.raises(invsolve.OutputError, match=r"cannot write .*free or change the disk"):
        invsolve.solve(data, model, out=out, threads=1, compile="off")
    kept = pieces(out)
    assert kept == 4 if when != "in a range" else 1 <= kept < 4
    assert not out.exists()
    assert not list(small_disk.glob("**/*.tmp"))
    assert not list(small_disk.glob("**/final.h5"))
    (small_disk / "filler").unlink()
    (small_disk / "was full").touch()
    resumed = invsolve.solve(data, model, out=out, resume=True, threads=1, compile="off")
    np.testing.assert_array_equal(resumed.loss, invsolve.solve(data, acting(-1, print), threads=1, compile="off").loss)
    assert sorted(os.listdir(small_disk)) == ["o.h5", "was full"]


@pytest.mark.parametrize("how", ["rewritten", "replaced"])
def test_an_input_that_changes_ends_the_run(how: str, tmp_path: Path) -> None:
    source, other, out = tmp_path / "d.h5", tmp_path / "e.h5", tmp_path / "o.h5"
    invsolve.write_dataset(source, shots())
    invsolve.write_dataset(other, shots(seed=2))

    def change() -> None:
        if how == "replaced":
            os.replace(other, source)
        else:
            source.write_bytes(other.read_bytes())

    model = acting(25, change)
    with pytest.raises(invsolve.DataError, match=r"d.h5 was changed or replaced since it was opened") as caught:
        invsolve.solve(source, model, out=out, threads=1, compile="off")
    assert "\n" not in str(caught.value)
    assert pieces(out) >= 1
    assert not out.exists()
    with pytest.raises(invsolve.OutputError, match="its input_sha256 was"):
        invsolve.solve(source, model, out=out, resume=True, compile="off")


def test_an_input_that_was_changed_before_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "d.h5"
    invsolve.write_dataset(source, shots())
    data = invsolve.read_dataset(source)
    invsolve.write_dataset(source, shots(seed=2), overwrite=True)
    with pytest.raises(invsolve.DataError, match="changed or replaced"):
        invsolve.solve(data, "billiards", out=tmp_path / "o.h5")
    assert not (tmp_path / "o.h5.parts").exists()


def test_an_input_that_is_touched_or_removed_is_no_other(tmp_path: Path) -> None:
    source = tmp_path / "d.h5"
    invsolve.write_dataset(source, shots())
    later = time.time_ns() + 10**9
    touched = invsolve.solve(source, acting(20, lambda: os.utime(source, ns=(later, later))), threads=1, compile="off")
    removed = invsolve.solve(source, acting(20, source.unlink), threads=1, compile="off")
    np.testing.assert_array_equal(touched.loss, removed.loss)
    assert not source.exists()
