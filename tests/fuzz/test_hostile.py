"""Files may come from anybody: more than a thousand hostile ones, of which each must end in an answer or one line.

They are run through the command line in a child process, so that a crash is a crash of one input and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.fuzz import datasets, others
from tests.fuzz.mutations import damaged

SECRET = 1234.5  # what the canary holds, which no hostile file may bring to light
MOST_GROWN = 400 * 2**20  # bytes of memory that one input may take
DAMAGED = {"dataset": 220, "packed": 120, "solution": 120, "network": 50, "config": 20}

Job = tuple[str, list[str]]


@dataclass(frozen=True)
class Ended:
    """How the command line ended on one input."""

    name: str
    words: list[str]
    code: int
    out: str = ""
    err: str = ""
    trace: str = ""
    seen: tuple[str, ...] = ()
    grown: int = 0
    seconds: float = 0.0  # of the processor

    def faults(self) -> Iterator[str]:
        if self.code not in (0, 2, 3):
            yield f"ended in {self.code}\n{self.trace[-800:]}"
        if self.code == 2 and (not self.err.startswith("invsolve: ") or self.err.count("\n") != 1):
            yield f"told {self.err[:300]!r}"
        if len(self.err) > 2100:
            yield f"told {len(self.err)} characters"
        if self.seen:
            yield f"did {self.seen}"
        if self.grown > MOST_GROWN:
            yield f"took {self.grown >> 20} MB"
        if str(SECRET) in self.out + self.err:
            yield "told what is in another file"
        if bad := {c for c in self.out + self.err if not c.isprintable() and c != "\n"}:
            yield f"sent {sorted(bad)!r} to the terminal"


def run(jobs: list[Job], folder: Path) -> list[Ended]:
    """Run the command line on all inputs; where one takes the process with it, another goes on behind it."""
    listed, results = folder / "jobs.json", folder / "results.jsonl"
    known = [str(folder / name) for name in ("sound.h5", "other.h5")]  # which solutions name, and compare reads
    words = [sys.executable, "-m", "tests.fuzz.child", str(listed), str(results), *known]
    root = Path(__file__).parents[2]
    found: list[Ended] = []
    while len(found) < len(jobs):
        listed.write_text(json.dumps(jobs[len(found) :]))
        results.write_text("")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        ended = subprocess.run(
            words, cwd=root, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        assert lines, ended.stderr[-2000:]
        for begun, told in zip(lines[::2], lines[1::2], strict=False):
            found.append(Ended(begun["name"], begun["words"], **{**told, "seen": tuple(told["seen"])}))
        if len(lines) % 2:
            found.append(Ended(lines[-1]["name"], lines[-1]["words"], ended.returncode, trace=ended.stderr))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound files, a canary, and code that leaves a trace when it is run."""
    here = tmp_path_factory.mktemp("hostile")
    with h5py.File(here / "sound.h5", "w") as file:
        datasets.sound(file)
    with h5py.File(here / "packed.h5", "w", libver="latest") as file:
        datasets.sound(file)
        del file["targets"]
        file.create_dataset(
            "targets", (datasets.N, datasets.SAMPLES), "f8", chunks=(3, 8), compression="gzip", shuffle=True,
            fletcher32=True, data=np.ones((datasets.N, datasets.SAMPLES)), maxshape=(None, datasets.SAMPLES),
        )  # fmt: skip
        for i in range(12):
            file.create_dataset(f"identifiers/a{i}", data=np.ones(datasets.N), compression="lzf")
    for name in ("canary.h5", "other.h5"):
        with h5py.File(here / name, "w") as file:
            file["secret"] = file["targets"] = np.full((datasets.N, datasets.SAMPLES), SECRET)
    (here / "evil.py").write_text(f"open({str(here / 'was-run')!r}, 'w')\nF = None\n")
    others.make_sound(here, here / "sound.h5")
    return here


def solve(path: Path, *more: str) -> list[str]:
    out = path.with_suffix(".out.h5")
    return ["solve", str(path), "--max-evaluations", "4", "--threads", "1", "--quiet", "--out", str(out), *more]


def of_datasets(folder: Path) -> Iterator[Job]:
    for i, name in enumerate(datasets.NAMES):
        path = folder / f"{i:03d}.h5"
        datasets.make(path, name, folder / "canary.h5")
        if i % 2 or i < 40:
            yield name, ["inspect", str(path)]
        yield name, solve(path)


def of_what_is_no_file(folder: Path) -> Iterator[Job]:
    sound = folder / "sound.h5"
    for name in datasets.SPECIAL:
        path = folder / f"{name.replace(' ', '-')}.h5"
        datasets.make_special(path, name)
        for words in (["inspect"], ["compare", str(path)], ["check"], ["diagnose"], ["predict", str(path)]):
            yield name, [*words, str(path)]
        if name != "empty":
            yield name, solve(sound, "--config", str(path))


def of_solutions(folder: Path) -> Iterator[Job]:
    sound = folder / "sound.solution.h5"
    for i, name in enumerate(others.SOLUTIONS):
        path = folder / f"s{i:03d}.h5"
        others.make_solution(path, name, sound, folder / "canary.h5")
        yield name, ["inspect", str(path), "--json"]
        if not name.startswith("column") or i % 5 == 0:
            yield name, ["compare", str(path), str(sound)]


def of_configurations(folder: Path) -> Iterator[Job]:
    for i, (name, content) in enumerate(others.CONFIGS.items()):
        path = folder / f"c{i:03d}.toml"
        path.write_bytes(content)
        yield name, solve(folder / "sound.h5", "--config", str(path), "--overwrite")


def of_networks(folder: Path) -> Iterator[Job]:
    for i, name in enumerate(others.NETWORKS):
        path = folder / f"n{i:03d}.safetensors"
        others.make_network(path, name, folder / "sound.safetensors")
        yield name, ["inspect", str(path), "--json"]
        out = str(path.with_suffix(".out.h5"))
        yield name, ["predict", str(path), str(folder / "sound.h5"), "--out", out, "--threads", "1"]


def of_damage(folder: Path) -> Iterator[Job]:
    files = {
        "dataset": "sound.h5",
        "packed": "packed.h5",
        "solution": "sound.solution.h5",
        "network": "sound.safetensors",
    }
    sound = {kind: (folder / file).read_bytes() for kind, file in files.items()}
    sound["config"] = others.SOUND_CONFIG
    for kind, count in DAMAGED.items():
        for number in range(count):
            path = folder / f"{kind}{number}{ {'network': '.safetensors', 'config': '.toml'}.get(kind, '.h5') }"
            path.write_bytes(damaged(sound[kind], list(sound.values()), number))
            words = ["inspect", str(path), "--json"]
            if kind == "config":
                words = solve(folder / "sound.h5", "--config", str(path), "--overwrite")
            elif kind in ("dataset", "packed") and number % 8 == 1:
                words = solve(path)
            yield f"{kind} {number}", words


KINDS = (of_datasets, of_what_is_no_file, of_solutions, of_configurations, of_networks, of_damage)


@pytest.fixture(scope="module")
def ended(folder: Path) -> dict[str, list[Ended]]:
    """How the command line ended on all inputs, by their kind."""
    jobs = {make.__name__: list(make(folder)) for make in KINDS}
    found = iter(run([job for kind in jobs.values() for job in kind], folder))
    return {kind: [next(found) for _ in of_kind] for kind, of_kind in jobs.items()}


@pytest.mark.parametrize("kind", [make.__name__ for make in KINDS])
def test_hostile_files_end_in_an_answer_or_one_line(ended: dict[str, list[Ended]], kind: str) -> None:
    faults = [f"{e.name} ({' '.join(e.words)}): {fault}" for e in ended[kind] for fault in e.faults()]
    assert not faults, "\n".join(faults)
    assert sum(e.code == 2 for e in ended[kind]) > len(ended[kind]) / 5  # they are hostile, most of them


def test_there_are_more_than_a_thousand_hostile_files(ended: dict[str, list[Ended]]) -> None:
    assert len({e.name for of_kind in ended.values() for e in of_kind}) > 1000


def test_what_is_no_file_is_refused(ended: dict[str, list[Ended]]) -> None:
    assert all(e.code == 2 for e in ended["of_what_is_no_file"])


def test_no_code_that_files_name_is_run(folder: Path, ended: dict[str, list[Ended]]) -> None:
    assert not (folder / "was-run").exists()


def test_the_watch_sees_what_it_should() -> None:
    """A watch that sees nothing would let all tests above pass."""
    code = (
        "import os, tests.fuzz.child as c\nw = c.Watch()\nw.allowed = {'/nowhere'}\n"
        "open('/etc/passwd').close()\nos.system('true')\nprint(len(w.seen))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert ran.stdout.strip() == "2"
