"""README tells the truth: its commands are run, and what they print has the words that it shows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import invsolve
from invsolve.registry import METHODS
from tests.documents import ROOT, Page, run, words

README = Page.read("README.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as README assumes it: sample data, the model of "Your own model", and `invsolve` on the path."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "sample_data", folder / "sample_data")
    for leftover in (folder / "sample_data").glob("*.*.h5"):
        leftover.unlink()
    README.write_files(folder)
    return folder


def test_commands_in_order_print_what_is_shown(folder: Path) -> None:
    for command, output in README.sessions():
        done = run(command, folder)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert words(done.stdout) == words(output), command
        for share in re.findall(r"solved ([\d.]+)%", output):
            found = re.search(r"solved ([\d.]+)%", done.stdout)
            assert found is not None
            assert float(found[1]) == pytest.approx(float(share), abs=5), command


def test_the_python_example_runs(folder: Path) -> None:
    example = next(b for b in README.blocks("python") if "invsolve.solve(" in b)
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[2.  0.7]")
    assert "'converged': 1000" in done.stdout


def test_both_commands_are_on_the_first_screen() -> None:
    first = "\n".join(README.text.splitlines()[:25])
    assert "pip install . && invsolve solve sample_data/wave-packet.h5 --method jpo\n" in first
    assert "pip install '.[test]' && pytest\n" in first


def test_every_command_and_method_is_told() -> None:
    for name in (
        "solve",
        "compare",
        "report",
        "predict",
        "generate",
        "check",
        "diagnose",
        "plot",
        "models",
        "methods",
        "inspect",
    ):
        assert f"invsolve {name}" in README.text
    for name in METHODS:
        assert f"| `{name}` |" in README.text


@pytest.mark.parametrize("line", re.findall(r"`(invsolve generate .*)`", (ROOT / "sample_data/README.md").read_text()))
def test_sample_data_are_what_generate_makes(line: str, tmp_path: Path) -> None:
    assert run(line, tmp_path).returncode == 0
    (made,) = tmp_path.iterdir()
    kept = ROOT / "sample_data" / made.name
    assert kept.stat().st_size < 300_000
    one, other = invsolve.read_dataset(kept), invsolve.read_dataset(made)
    np.testing.assert_allclose(np.asarray(one.targets), np.asarray(other.targets), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(np.asarray(one.x_true), np.asarray(other.x_true))


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
