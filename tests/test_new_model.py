"""`models new` writes a model that runs as it is."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Command


def test_the_model_to_start_from_passes_check_and_is_solved(command: Command, tmp_path: Path) -> None:
    made = command("models", "new", "mine.py", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    following = made.stdout.partition("now: ")[2].split()
    assert following == ["invsolve", "check", "--model", "mine.py:Model"]
    checked = command(*following[1:], "--json", cwd=tmp_path)
    assert {f["verdict"] for f in json.loads(checked.stdout)["findings"]} == {"ok"}
    # The commands that its first lines show are the ones that work.
    text = (tmp_path / "mine.py").read_text()
    assert "type: ignore" not in text
    lines = [line.split() for line in text.splitlines() if line.startswith("    invsolve ")]
    assert [line[1] for line in lines] == ["check", "generate", "solve"]
    for line in lines[1:]:
        done = command(*line[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "solved 100.0%" in done.stdout
    assert "frequency" in done.stdout


def test_nothing_is_overwritten_or_misnamed(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("mine")
    for words, line in (
        (("mine.py",), "output mine.py exists"),
        (("mine",), "mine must be named as a Python file; call it mine.py"),
        (("absent/mine.py",), "folder absent of the output does not exist"),
    ):
        done = command("models", "new", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert line in done.stderr
    assert (tmp_path / "mine.py").read_text() == "mine"
    assert command("models", "new", "mine.py", "--overwrite", cwd=tmp_path).returncode == 0
    assert "class Model" in (tmp_path / "mine.py").read_text()
