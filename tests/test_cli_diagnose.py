"""`invsolve diagnose` as a shell sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import invsolve
from tests.conftest import Command

KEYS = {
    "schema", "model", "n", "examples", "nonfinite", "unknowns", "alignment", "flatness", "minima", "recommendation",
    "summary", "verdicts", "evaluations", "gradients", "seconds", "cut_short", "figures",
}  # fmt: skip


def test_it_prints_numbers_verdicts_and_what_to_use(command: Command, wave_packets: Path) -> None:
    done = command("diagnose", wave_packets, "--examples", "6")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    shown = " ".join(done.stdout.split())
    for words in (
        "wave-packet, 6 of 12 examples",
        "zero gradient at x0 0.0%",
        "8 starts of bfgs",
        "own gradient",
        "use ",
    ):
        assert words in shown


def test_json_is_exactly_one_document(command: Command, wave_packets: Path) -> None:
    done = command("diagnose", wave_packets, "--json", "--quiet", "--seed", "3")
    document = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert set(document) == KEYS
    assert document["schema"] == "invsolve-diagnose/1"
    assert document["recommendation"] in ("bfgs", "multistart", "jpo", "auto")
    a = document["alignment"]
    assert a["sizes"] == [1, 2, 4, 8, 12]
    assert len(a["joint"]) == len(a["spread"]) == 5
    assert all(-1 <= value <= 1 for value in (*a["joint"], a["plain"]))
    assert [v["method"] for v in document["verdicts"]] == ["bfgs", "multistart", "jpo", "auto"]
    assert 0 <= document["flatness"]["at_x0"] <= 1
    assert document["figures"] == []


def test_figures_are_written_and_never_over_others(command: Command, wave_packets: Path, tmp_path: Path) -> None:
    words = ("diagnose", wave_packets, "--examples", "3", "--figures", tmp_path / "pictures")
    done = command(*words)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["alignment.png", "alignment.svg", "lines.png", "lines.svg"]
    assert all(name in done.stdout for name in names)
    again = command(*words)
    assert again.returncode == 2
    assert "exists; choose another name, or --overwrite it" in again.stderr
    assert command(*words, "--overwrite").returncode == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["missing.h5"], "missing.h5"),
        (["DATA", "--examples", "0"], "examples must be from 1"),
        (["DATA", "--examples", "many"], "found 'many'"),
        (["DATA", "--model", "wavepacket"], "did you mean 'wave-packet'?"),
        (["DATA", "-M", "sample=3"], "did you mean 'samples'?"),
        (["DATA", "--time-limit", "soon"], "'soon' is no duration"),
        (["DATA", "--figures", "no/such/place"], "no/such/place"),
        (["DATA", "--targets", "counts"], "has no 'counts'"),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, wave_packets: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    done = command("diagnose", *(str(wave_packets) if w == "DATA" else w for w in words), cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_functions_and_foreign_names_are_taken_as_by_the_other_commands(command: Command, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def F(x, identifiers):\n    return x**2\n")
    invsolve.write_dataset(tmp_path / "d.h5", invsolve.Dataset(targets=np.array([[4.0, 9.0]]), x0=np.ones((1, 2))))
    done = command("diagnose", tmp_path / "d.h5", "--model", f"{tmp_path}/m.py:F", "--x0", "1,0.5", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["n"] == document["examples"] == 1
    assert document["alignment"]["reference"] == "best found"
