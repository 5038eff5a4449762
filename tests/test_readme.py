"""README tells the truth: its commands are run, and what they print has the words that it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import invsolve

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def sessions() -> list[tuple[str, str]]:
    """Commands after a `$` and what README shows them to print."""
    found = []
    for block in blocks("console"):
        for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = piece.partition("\n")
            found.append((command, output))
    return found


def words(text: str) -> list[str]:
    """Words alone: numbers and the widths of columns depend on the machine."""
    return [re.sub(r"-?[\d.,]+(e-?\d+)?", "#", word) for word in text.replace(" min ", "# ").split()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as README assumes it: sample data, the model of "Your own model", and `invsolve` on the path."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "sample_data", folder / "sample_data")
    for leftover in (folder / "sample_data").glob("*.*.h5"):
        leftover.unlink()
    (folder / "decay.py").write_text(next(b for b in blocks("python") if b.startswith("# decay.py")))
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"PATH": path}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize(("command", "output"), sessions(), ids=[c for c, _ in sessions()])
def test_commands_print_what_is_shown(folder: Path, command: str, output: str) -> None:
    done = run(command, folder)
    assert done.returncode == 0, done.stderr
    assert words(done.stdout) == words(output)
    for share in re.findall(r"solved ([\d.]+)%", output):
        found = re.search(r"solved ([\d.]+)%", done.stdout)
        assert found is not None
        assert float(found[1]) == pytest.approx(float(share), abs=5)


def test_the_python_example_runs(folder: Path) -> None:
    example = next(b for b in blocks("python") if "invsolve.solve(" in b)
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[2.  0.7]")
    assert "'converged': 1000" in done.stdout


def test_both_commands_are_on_the_first_screen() -> None:
    first = "\n".join(README.splitlines()[:25])
    assert "pip install . && invsolve solve sample_data/wave-packet.h5 --method jpo\n" in first
    assert "pip install '.[test]' && pytest\n" in first


def test_every_command_and_method_is_told() -> None:
    for name in ("solve", "compare", "generate", "models", "methods", "inspect"):
        assert f"invsolve {name}" in README
    for name in ("bfgs", "gd", "jpo"):
        assert f"| `{name}` |" in README


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
