"""The tutorial works: its files are written and its commands run in order, and they print what it shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.documents import ROOT, Page, numbers, run, words

PAGE = Page.read("docs/tutorial.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("torchdiffeq", "matplotlib"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copy(ROOT / "docs/tutorial/theophylline.csv", folder)
    PAGE.write_files(folder)
    return folder


def without_machine(text: str) -> str:
    """What `check` tells of the machine is left out: its devices, and costs, that are "too much" on a busy one."""
    return "\n".join(line for line in text.splitlines() if "devices" not in line and not re.match(r" *[\d,]+ ", line))


@pytest.mark.parametrize(("command", "output"), PAGE.sessions(), ids=[c for c, _ in PAGE.sessions()])
def test_commands_print_what_is_shown(folder: Path, command: str, output: str) -> None:
    done = run(command, folder)
    assert done.returncode == 0, done.stderr
    assert words(without_machine(done.stdout)) == words(without_machine(output))
    if command == "python table.py":
        assert numbers(done.stdout) == pytest.approx(numbers(output), rel=0.02, abs=0.011)


def test_the_picture_is_made(folder: Path) -> None:
    picture = folder / "theophylline.png"
    assert picture.stat().st_size == pytest.approx((ROOT / "docs/tutorial" / picture.name).stat().st_size, rel=0.2)
