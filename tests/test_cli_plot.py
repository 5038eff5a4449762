"""The command `invsolve plot`: a picture of any kind, or one line that says why there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

import invsolve
from invsolve.cli import app
from tests.conftest import Command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five named examples, solved by two methods; once without the history, as older files are."""
    folder = tmp_path_factory.mktemp("plot")
    data = invsolve.generate("wave-packet", 5)
    data.names = [f"shot {i}" for i in "abcde"]
    invsolve.write_dataset(folder / "a.h5", data)
    for method in ("bfgs", "lm"):
        solution = invsolve.solve(folder / "a.h5", method=method, out=folder / f"{method}.h5", max_evaluations=9)
    invsolve.write_solution(folder / "old.h5", dataclasses.replace(solution, history=None))
    return folder


def test_a_picture_is_drawn_and_told(command: Command, folder: Path, tmp_path: Path) -> None:
    files = [str(folder / "bfgs.h5"), str(folder / "lm.h5")]
    out = tmp_path / "g.png"
    words = ("plot", *files, "--kind", "gallery", "--example", "shot d", "--example", "1", "--out", out)
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("shot d, shot b. Targets")
    assert done.stdout.endswith(f"written to {out}\n")
    assert out.read_bytes().startswith(b"\x89PNG")
    again = command(*words)
    assert again.returncode == 2
    assert again.stderr == f"invsolve: output {out} exists; choose another name, or --overwrite it\n"


@pytest.mark.parametrize("kind", ["waterfall", "curves", "landscape"])
@pytest.mark.parametrize(("out", "begins"), [("p.svg", b"<?xml"), ("p.PDF", b"%PDF-")])
def test_the_name_tells_the_kind_of_file(folder: Path, tmp_path: Path, kind: str, out: str, begins: bytes) -> None:
    done = CliRunner().invoke(app, ["plot", str(folder / "bfgs.h5"), "--kind", kind, "--out", str(tmp_path / out)])
    assert done.exit_code == 0
    assert (tmp_path / out).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["bfgs.h5", "--kind", "scatter", "--out", "a.svg"], "holds two methods against each other, found one"),
        (["bfgs.h5", "--kind", "curve", "--out", "a.svg"], "unknown kind 'curve' of picture; did you mean 'curves'?"),
        (["old.h5", "--kind", "curves", "--out", "a.svg"], "no curves to draw: the solutions hold no histories"),
        (["bfgs.h5", "--kind", "status", "--out", "a.jpg"], "must end in .svg, .pdf or .png, found '.jpg'"),
        (["bfgs.h5", "--kind", "status", "--out", "bfgs.h5"], "must end in .svg"),
        (["bfgs.h5", "--kind", "status", "--out", "no/a.svg"], "folder no of the output does not exist"),
        (
            ["bfgs.h5", "--kind", "gallery", "--out", "a.svg", "--example", "shot f"],
            "no example 'shot f'; did you mean 'shot",
        ),
        (
            ["bfgs.h5", "--kind", "status", "--out", "a.svg", "--example", "1"],
            "--example has no meaning for --kind status",
        ),
        (["bfgs.h5", "--kind", "status", "--out", "a.svg", "--dpi", "1"], "--dpi must be from 10 to 2400, found 1"),
        (["bfgs.h5", "--kind", "gallery", "--out", "a.svg", "--data", "no.h5"], "no.h5 does not exist"),
        (
            ["bfgs.h5", "--kind", "status", "--out", "there.svg"],
            "there.svg exists; choose another name, or --overwrite it",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], told: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "there.svg").touch()
    error = CliRunner().invoke(app, ["plot", *flags]).exception
    assert isinstance(error, invsolve.InvsolveError)
    assert told in str(error)
    assert "\n" not in str(error)
    assert not (folder / "a.svg").exists()
