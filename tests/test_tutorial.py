"""The tutorial works: its files are written and its commands run in order, and they print what it shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.documents import ROOT, Page, numbers, run, words

PAGE = Page.read("docs/tutorial.md")


def without_machine(text: str) -> str:
    """What `check` tells of the machine is left out: its devices, and costs, that are "too much" on a busy one."""
    return "\n".join(line for line in text.splitlines() if "devices" not in line and not re.match(r" *[\d,]+ ", line))


def test_commands_in_order_print_what_is_shown(tmp_path: Path) -> None:
    for needed in ("torchdiffeq", "matplotlib"):
        pytest.importorskip(needed)
    shutil.copy(ROOT / "docs/tutorial/theophylline.csv", tmp_path)
    PAGE.write_files(tmp_path)
    for command, output in PAGE.sessions():
        done = run(command, tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert words(without_machine(done.stdout)) == words(without_machine(output)), command
        if command == "python table.py":
            assert numbers(done.stdout) == pytest.approx(numbers(output), rel=0.02, abs=0.011)
    picture = tmp_path / "theophylline.png"
    assert picture.stat().st_size == pytest.approx((ROOT / "docs/tutorial" / picture.name).stat().st_size, rel=0.2)
