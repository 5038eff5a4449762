"""Another package's model and method: installed for real, listed, checked, and used like any other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.documents import Page

SOURCE = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a shell that has the package `invsolve-springs`, installed by pip."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, folder / "source")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    done = subprocess.run(
        [sys.executable, *words, folder / "site", folder / "source"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(folder / "site")}


def test_the_docs_show_its_entry_points() -> None:
    (shown,) = Page.read("docs/plugins.md").blocks("toml")
    assert shown in (SOURCE / "pyproject.toml").read_text()


def test_both_are_listed_with_their_package(command: Command, plugged: dict[str, str]) -> None:
    for kind, name in (("models", "spring"), ("methods", "barzilai-borwein")):
        (line,) = (row for row in command(kind, env=plugged).stdout.splitlines() if row.startswith(name))
        assert line.split()[1] == "invsolve-springs"
        assert "(invsolve-springs)" in command(kind, "show", name, env=plugged).stdout


@pytest.mark.parametrize("words", [("--model", "spring"), ("--method", "barzilai-borwein")])
def test_both_pass_the_contract_tests(command: Command, plugged: dict[str, str], words: tuple[str, str]) -> None:
    done = command("check", *words, "--json", env=plugged)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert found["ok"]
    assert {f["verdict"] for f in found["findings"]} <= {"ok", "skipped"}, found


def test_data_that_name_its_model_are_solved_by_its_method(
    command: Command, plugged: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "d.h5"
    assert command("generate", "spring", "--n", 30, "--out", data, env=plugged).returncode == 0
    done = command("solve", data, "--method", "barzilai-borwein", "--json", env=plugged)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["solved"] == 1.0
    without = command("solve", data, "--overwrite")
    assert without.returncode == 2
    assert "is 'spring', not registered" in without.stderr
