"""A training that is stopped or killed goes on from its checkpoint, and ends as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import invsolve
from invsolve import checkpoints, ranges
from invsolve import examples as examples_module
from invsolve.checkpoints import Checkpoints, GlobalRandom
from invsolve.commands.flags import checkpoint_seconds
from invsolve.control import Control
from invsolve.data import checkpoint_file, files
from invsolve.data import dataset as dataset_module
from invsolve.data.run_folder import RunFolder
from invsolve.data.solution import COLUMNS
from invsolve.data.store import read_dataset
from invsolve.events import Event
from invsolve.methods import simulations

COMPARED = [*(c for c in COLUMNS if c != "example"), "history", "found_by", "starts", "minima"]
RACE = simulations._RACE
SMALL: dict[str, dict[str, Any]] = {
    "jpo": {"simulations": 3, "steps": 40, "minibatch": 4, "restarts": 0, "width": 8, "depth": 1, "channels": 2},
    "auto": {"simulations": 3, "restarts": 0, "width": 8, "depth": 1, "channels": 2},
    "supervised": {"simulations": 3, "width": 8, "depth": 1, "channels": 2},
    "neural-adjoint": {"simulations": 3, "width": 8, "depth": 1, "starts": 3, "iterations": 5, "asked": 2},
}


class Killed(BaseException):
    """What a kill is to the code that it hits: nothing after it happens."""


class Heard(Control):
    """A control that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(listeners=[self.hear])
        self.events: list[Event] = []

    def hear(self, event: Event) -> None:
        self.events.append(event)

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event.told for event in self.events if event.kind == kind]


class Boundaries:
    """The boundaries between steps that trainings come to, in order; at one of them a run is stopped or killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stages: list[str] = []  # under way at each
        self.at, self.kill = 0, False
        asked = Checkpoints.stops

        def stops(checkpoints: Checkpoints, control: Control, *, over: bool = False) -> bool:
            if not control.interrupted:
                self.stages.append([*checkpoints._parts, "none"][len(checkpoints._parts) - 1])
                if len(self.stages) == self.at:
                    if self.kill:
                        raise Killed
                    control.interrupted = True
            return asked(checkpoints, control, over=over)

        monkeypatch.setattr(Checkpoints, "stops", stops)

    def next(self, at: int = 0, *, kill: bool = False) -> Heard:
        """For the next run: its boundary number `at`, from 1, is where it ends; 0 is nowhere."""
        self.stages, self.at, self.kill = [], at, kill
        return Heard()

    def some(self, random: Random, each: int) -> list[int]:
        """Of the run before: the numbers of so many boundaries of each stage, the very last one included."""
        places = {stage: [i + 1 for i, s in enumerate(self.stages) if s == stage] for stage in self.stages}
        drawn = {at for ats in places.values() for at in random.sample(ats, min(each, len(ats)))}
        return sorted(drawn | {len(self.stages)})


@pytest.fixture
def boundaries(monkeypatch: pytest.MonkeyPatch) -> Boundaries:
    return Boundaries(monkeypatch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulations, "_RACE", 3)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven windows of the wave packets, each of several blocks."""
    most = 12 * 33 * 8
    monkeypatch.setattr(examples_module, "WINDOW", most)
    monkeypatch.setattr(ranges, "MEMORY", most)
    monkeypatch.setattr(dataset_module, "BLOCK", most // 4)


def packets(folder: Path, n: int = 24) -> Path:
    path = folder / "wp.h5"
    data = invsolve.generate("wave-packet", n, seed=3, model_options={"samples": 32, "duration": 10})
    invsolve.write_dataset(path, data)
    return path


def solved(data: Path, method: str, out: Path | None = None, control: Control | None = None, **more: Any) -> Any:
    return invsolve.solve(
        read_dataset(data), method=method, options=SMALL[method], out=out, control=control, threads=1, **more
    )


def assert_same(found: invsolve.Solution, expected: invsolve.Solution) -> None:
    for column in COMPARED:
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column), err_msg=column)
    for told in ("chosen", "training_curve"):
        assert json.loads(found.attributes[told]) == expected.attributes[told]


STAGES = {
    "jpo": {"proposals", "training"},
    "auto": {"local_solves", "proposals"},
    "supervised": {"proposals", "asking"},
    "neural-adjoint": {"proposals", "descents", "asking"},
}


@pytest.mark.parametrize("windows", ["one", "several"])
@pytest.mark.parametrize("method", SMALL)
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    method: str, windows: str, tmp_path: Path, boundaries: Boundaries, request: pytest.FixtureRequest
) -> None:
    """Stopped at random steps of each stage of one training, again and again; to the bit, with one thread."""
    if windows == "several":
        request.getfixturevalue("small_windows")
    data, out = packets(tmp_path), tmp_path / "o.h5"
    undisturbed = solved(data, method, control=boundaries.next())
    assert set(boundaries.stages) == STAGES[method]
    before, resumed = 1, 0
    for at in boundaries.some(Random(f"{method} {windows}"), each=2 if windows == "one" else 1):
        control = boundaries.next(at - before + 1)  # it comes to the one that it was stopped at again
        broken = solved(data, method, out, control, resume=True)
        assert len(control.told("checkpoint")) == 1
        assert len(control.told("resumed")) == resumed
        assert (broken.evaluations <= undisturbed.evaluations).all()
        before, resumed = at, 1
    found = solved(data, method, out, boundaries.next(), resume=True)
    assert len(boundaries.stages) == 1  # the training was finished but for its end
    assert_same(found, undisturbed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5", "wp.h5"]


@pytest.mark.parametrize("method", ["jpo", "auto"])
def test_a_killed_training_goes_on_from_its_last_checkpoint(
    method: str, tmp_path: Path, boundaries: Boundaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = packets(tmp_path, 8), tmp_path / "o.h5"
    undisturbed = solved(data, method, control=boundaries.next())
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    draw, total = Random(method), len(boundaries.stages)
    for at in (draw.randint(total // 3, total // 2), draw.randint(1, total // 3)):
        with pytest.raises(Killed):
            solved(data, method, out, boundaries.next(at, kill=True), resume=True, checkpoint_every=0.01)
        assert not out.exists()
    control = boundaries.next()
    found = solved(data, method, out, control, resume=True)
    assert len(control.told("resumed")) == 1
    assert len(boundaries.stages) < total
    assert_same(found, undisturbed)


def stopped_midway(folder: Path, boundaries: Boundaries, method: str = "jpo") -> tuple[Path, Path, Path]:
    """Data, output and checkpoint of a run that was stopped in its training."""
    data, out = packets(folder, 8), folder / "o.h5"
    solved(data, method, out, boundaries.next(60))
    return data, out, folder / "o.h5.parts" / "checkpoint.safetensors"


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text", "older"])
def test_a_damaged_checkpoint_counts_as_none(damage: str, tmp_path: Path, boundaries: Boundaries) -> None:
    data, out, kept = stopped_midway(tmp_path, boundaries)
    content = kept.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) - 1000] ^= 4
    kept.write_bytes(
        {
            "truncated": content[:-100],
            "empty": b"",
            "flipped": bytes(flipped),
            "text": b"no checkpoint",
            "older": content.replace(b'invsolve-checkpoint/1', b'invsolve-checkpoint/0'),
        }[damage]
    )  # fmt: skip
    with pytest.warns(UserWarning, match="checkpoint .* is damaged.*; the training begins anew"):
        found = solved(data, "jpo", out, control := boundaries.next(), resume=True)
    assert not control.told("resumed")
    assert_same(found, solved(data, "jpo"))
    assert not kept.parent.exists()


def test_a_checkpoint_of_another_version_counts_as_none(
    tmp_path: Path, boundaries: Boundaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_file, "__version__", "0.0.9")
    data, out, _ = stopped_midway(tmp_path, boundaries)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=r"is of invsolve 0\.0\.9, not of .*; the training begins anew"):
        solved(data, "jpo", out, resume=True)


def test_what_would_be_another_training_is_not_resumed(tmp_path: Path, boundaries: Boundaries) -> None:
    data, out, kept = stopped_midway(tmp_path, boundaries)
    content = kept.read_bytes()
    with pytest.raises(invsolve.OutputError, match="cannot resume .*its seed was 0, now 1"):
        solved(data, "jpo", out, resume=True, seed=1)
    with pytest.raises(invsolve.OutputError, match="cannot resume .*its method_options was"):
        invsolve.solve(data, method="jpo", options=SMALL["jpo"] | {"width": 9}, out=out, resume=True)
    out.unlink()
    with pytest.raises(invsolve.OutputError, match="0 finished ranges and a checkpoint of its training is in"):
        solved(data, "jpo", out)
    assert kept.read_bytes() == content
    found = solved(data, "jpo", out, control := boundaries.next(), overwrite=True)  # discards it
    assert not control.told("resumed")
    assert_same(found, solved(data, "jpo"))


def test_a_full_disk_costs_checkpoints_not_the_run(
    tmp_path: Path, boundaries: Boundaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, tries = files._sync, []

    def full(path: Path) -> None:
        if "checkpoint" in path.name:
            tries.append(path)
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "_sync", full)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    data, out, control = packets(tmp_path, 8), tmp_path / "o.h5", boundaries.next()
    with pytest.warns(UserWarning, match="training could not be kept meanwhile: .*No space left") as told:
        found = solved(data, "jpo", out, control, checkpoint_every=1e-9)
    assert len(told) == len(control.told("checkpoint")) == 1
    assert "No space left" in control.told("checkpoint")[0]["failed"]
    assert len(tries) > 10  # for there may be space again
    assert_same(found, solved(data, "jpo"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5", "wp.h5"]


def test_a_training_has_one_writer(tmp_path: Path, boundaries: Boundaries) -> None:
    data, out, kept = stopped_midway(tmp_path, boundaries)
    content = kept.read_bytes()
    first = RunFolder(out, json.loads((kept.parent / "run.json").read_text()), resume=True, overwrite=False)
    with pytest.raises(invsolve.OutputError, match="another run is writing"):
        solved(data, "jpo", out, resume=True)
    first.close()
    assert kept.read_bytes() == content


def test_how_often_is_up_to_the_user(tmp_path: Path, boundaries: Boundaries) -> None:
    data, out = packets(tmp_path, 8), tmp_path / "o.h5"
    solved(data, "jpo", out, control := boundaries.next(60), checkpoint_every=None)  # never
    assert not control.told("checkpoint")
    assert not (tmp_path / "o.h5.parts" / "checkpoint.safetensors").exists()
    with pytest.raises(invsolve.OptionError, match="checkpoint_every must be > 0 seconds, or never"):
        solved(data, "jpo", out, checkpoint_every=0.0)

    now, kept = [0.0], []

    def keep(state: object) -> int:
        kept.append(now[0])
        now[0] += 3
        return 1

    keeping = Checkpoints(keep, every=10, clock=lambda: now[0])
    keeping.follow(random=GlobalRandom(torch.device("cpu")))
    for second in range(200):
        now[0] = max(now[0], float(second))
        keeping.stops(Control())
    assert kept == [10.0, 73.0, 136.0, 199.0]  # each takes 3 s, and at most a twentieth of the time


def test_an_unusual_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    arrays = {
        "nan": np.array([np.nan, -np.inf, -0.0]),
        "scalar": np.array(3.5, dtype=np.float32),
        "none": np.zeros((0, 3), dtype=np.int8),
        "mask": np.array([True, False]),
        "bytes": np.arange(5, dtype=np.uint8)[::2],
    }
    state = {"a/b": {"tensor": arrays, "x": None}, "errors": [0.1, 1e-300, float("inf")], "text": "ü\n", "on": True}
    checkpoint_file.write_checkpoint(tmp_path / "c", state)
    found = checkpoint_file.read_checkpoint(tmp_path / "c")
    back = found["a/b"].pop("tensor")
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()
    del state["a/b"]["tensor"]  # type: ignore[attr-defined]
    assert found == state


def test_sigkill_and_resume_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At two moments, each soon after a checkpoint; the log tells all."""
    monkeypatch.setattr(simulations, "_RACE", RACE)
    data, out, log = packets(tmp_path, 8), tmp_path / "o.h5", tmp_path / "log.jsonl"
    longer = SMALL["jpo"] | {"steps": 200, "passes": 100}
    options = [f"-O{key}={value}" for key, value in longer.items()]
    words = ["solve", data, "--method", "jpo", *options, "--threads", 1, "--out", out, "--resume", "--quiet"]
    for kept in (1, 3):
        words_now = map(str, [*words, "--log", log, "--checkpoint-every", "0.01s"])
        process = subprocess.Popen([sys.executable, "-m", "invsolve", *words_now])
        while process.poll() is None and not (log.exists() and log.read_text().count('"checkpoint"') >= kept):
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -9
        assert not out.exists()
    assert log.read_text().count('"resumed"') == 1
    control = Heard()
    found = invsolve.solve(data, method="jpo", options=longer, out=out, control=control, threads=1, resume=True)
    assert len(control.told("resumed")) == 1
    assert_same(found, invsolve.solve(data, method="jpo", options=longer, threads=1))


def test_durations_of_the_flag() -> None:
    assert [checkpoint_seconds(text) for text in ("5m", "90", "never")] == [300.0, 90.0, None]
    with pytest.raises(invsolve.OptionError, match="a duration must be above zero, found '0'"):
        checkpoint_seconds("0")
