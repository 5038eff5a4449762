"""A training that is stopped or killed goes on from its checkpoint, and ends as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import invsolve
from invsolve import checkpoints, ranges
from invsolve import examples as examples_module
from invsolve.checkpoints import Checkpoints
from invsolve.control import Control
from invsolve.data import dataset as dataset_module
from invsolve.data.solution import COLUMNS
from invsolve.data.store import read_dataset
from invsolve.events import Event
from invsolve.methods import simulations

COMPARED = [*(c for c in COLUMNS if c != "example"), "history", "found_by", "starts", "minima"]
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

        def stops(checkpoints: Checkpoints, control: Control) -> bool:
            if not control.interrupted:
                self.stages.append([*checkpoints._parts, "none"][len(checkpoints._parts) - 1])
                if len(self.stages) == self.at:
                    if self.kill:
                        raise Killed
                    control.interrupted = True
            return asked(checkpoints, control)

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
    for at in boundaries.some(Random(f"{method} {windows}"), each=2):
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
