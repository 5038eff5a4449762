"""A forward model that hangs: the run ends with what there is, whatever it hangs in, and goes on elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve import ranges, run
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.events import Event
from invsolve.models.base import ForwardModel, FunctionModel
from invsolve.watchdog import TimedOut, Watch, Watchdog

SOON = 0.8  # seconds: on a busy machine, nothing else takes as long


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE", 5)
    monkeypatch.setattr(ranges, "PATIENCE", 0)


def shots(n: int = 40) -> Dataset:
    data = invsolve.generate("billiards", n, seed=1)
    data.x0, data.x_true = np.array([0.7, 0.0]), None
    return data


def hanging(data: Dataset, example: int, *, hangs: bool = True) -> FunctionModel:
    """Billiards that does not come back from an example."""
    inner, guilty = invsolve.load_model("billiards"), torch.from_numpy(np.asarray(data.identifiers)[example])

    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        if hangs and bool((identifiers == guilty).all(1).any()):
            time.sleep(1000)
        return inner(x, identifiers)

    return FunctionModel(forward, "hanging")


@pytest.mark.parametrize("workers", [1, 2])
def test_finished_ranges_are_there_and_the_run_goes_on(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "WORTH_FORKING", 0 if workers > 1 else 1e9)
    data, out, heard = shots(), tmp_path / "o.h5", list[Event]()
    control = Control(listeners=[heard.append])
    more: dict[str, Any] = {"out": out, "threads": workers}
    with pytest.warns(
        UserWarning, match=r"model 'hanging' had not come back after [0-9.]+ s from an .* of 5 examples, of"
    ):
        found = invsolve.solve(data, hanging(data, 22), evaluation_timeout=SOON, control=control, **more)
    left = found.status == Status.NOT_RUN
    assert left[20:25].all()
    assert not left[:15].any()
    assert np.array_equal(np.isnan(found.loss), left)
    assert [e.told["text"].split(" after")[0] for e in heard if e.kind == "timeout"] == [
        "model 'hanging' had not come back"
    ]
    kept = len(list(out.with_name("o.h5.parts").glob("rows-*.h5")))
    assert kept >= 3
    resumed = invsolve.solve(data, hanging(data, 22, hangs=False), resume=True, **more)
    np.testing.assert_array_equal(resumed.loss, invsolve.solve(data, hanging(data, 22, hangs=False), threads=1).loss)
    assert sorted(os.listdir(tmp_path)) == ["o.h5"]


@pytest.mark.parametrize(("method", "after"), [("bfgs", 0), ("jpo", 0), ("jpo", 6)])
def test_a_run_that_hangs_before_anything_is_finished_tells_nothing(method: str, after: int) -> None:
    inner, calls = invsolve.load_model("billiards"), [0]

    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] > after:
            while True:  # in Python, without an end
                pass
        return inner(x, identifiers)

    with pytest.warns(UserWarning, match="had not come back"):
        found = invsolve.solve(shots(12), FunctionModel(forward, "m"), method, evaluation_timeout=SOON, threads=1)
    assert (found.status == Status.NOT_RUN).all()
    assert np.isnan(found.loss).all()


def test_a_guess_that_hangs_is_no_guess() -> None:
    class Guessing(ForwardModel):
        x_shape = (1,)

        def forward(self, x: Tensor, identifiers: None) -> Tensor:
            return 2 * x

        def initial_guess(self, targets: Tensor, identifiers: None) -> Tensor:
            if bool((targets == 8).any()):
                time.sleep(1000)
            return targets / 3

    with pytest.warns(UserWarning, match="had not come back"):
        found = invsolve.solve(Dataset(targets=np.arange(12.0)[:, None]), Guessing, evaluation_timeout=SOON)
    assert list(found.status == Status.NOT_RUN) == [False] * 5 + [True] * 7
    assert np.isnan(found.x[5:]).all()


def test_a_comparison_ends_in_one_line() -> None:
    data = shots(12)
    settings = invsolve.Settings(evaluation_timeout=SOON)
    with pytest.raises(invsolve.ModelError, match="had not come back after"):
        invsolve.compare(data, hanging(data, 3), ["bfgs", "gd"], settings=settings)


def test_many_quick_evaluations_are_no_slow_one() -> None:
    inner = invsolve.load_model("billiards")

    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        time.sleep(0.06)
        return inner(x, identifiers)

    found = invsolve.solve(shots(5), forward, evaluation_timeout=SOON, max_evaluations=25)
    assert (found.status != Status.NOT_RUN).all()


def test_what_ends_by_itself_in_time_goes_on() -> None:
    """F may catch whatever is raised: once it has come back, nothing is left behind."""
    watch, left = Watch(), list[str]()
    watch.limit = 0.1
    problem: Any = type("Problem", (), {"examples": torch.arange(7, 10), "n": 3, "model": FunctionModel(shots, "m")})()

    def stubborn() -> int:
        with contextlib.suppress(TimedOut):
            time.sleep(1000)
        return 5

    with Watchdog(watch, left.append):
        assert watch.call(stubborn, problem, torch.arange(3)) == 5
        with pytest.raises(TimedOut, match=r"of 2 examples, of 7 to 9"):
            watch.call(lambda: time.sleep(1000), problem, torch.tensor([0, 2]))
        assert watch.call(lambda: 6, problem, torch.arange(3)) == 6
    assert not left


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_no_time_at_all_is_refused(value: float) -> None:
    with pytest.raises(invsolve.OptionError, match="evaluation_timeout must be > 0"):
        invsolve.solve(shots(), "billiards", evaluation_timeout=value)


SCRIPT = """
import os, sys, invsolve.ranges, invsolve.run
if "--threads=2" in sys.argv:
    invsolve.run.WORTH_FORKING = 0
invsolve.ranges.RANGE, invsolve.ranges.PATIENCE = 5, 0
sys.argv[0] = "invsolve"
from invsolve.__main__ import main
main()
"""
STUCK = """
import ctypes, pathlib, invsolve
inner, library, lock = invsolve.load_model("billiards"), ctypes.CDLL(None), ctypes.create_string_buffer(64)
library.pthread_mutex_init(lock, None)
def F(x, identifiers):
    if pathlib.Path("hang").exists() and bool((identifiers[:, 0] == {guilty!r}).any()):
        library.pthread_mutex_lock(lock)
        library.pthread_mutex_lock(lock)  # no signal ends that
    return inner(x, identifiers)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="by Linux's library")
@pytest.mark.parametrize("threads", [1, 2])
def test_code_that_nothing_can_end_is_left(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shots()
    invsolve.write_dataset(tmp_path / "d.h5", data)
    (tmp_path / "m.py").write_text(STUCK.format(guilty=float(np.asarray(data.identifiers)[22, 0])))
    (tmp_path / "hang").touch()
    words = [sys.executable, "-c", SCRIPT, "solve", "d.h5", "--model", "m.py:F", "--evaluation-timeout", "1"]
    words += [f"--threads={threads}", "--json", "--log", "run.jsonl"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    told, found = json.loads(done.stdout), invsolve.read_solution(tmp_path / "d.bfgs.h5")
    assert told["status"]["not_run"] == (found.status == Status.NOT_RUN).sum() >= 5
    assert np.isfinite(found.loss[:15]).all()
    assert done.stderr.count("had not come back after 1") == 1
    assert "of 5 examples, of 20 to 24" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("--resume' goes on")
    events = [json.loads(line)["event"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert events.count("timeout") == 1
    assert not list(tmp_path.glob("**/*.tmp"))
    assert not list(tmp_path.glob("**/final.h5"))
    (tmp_path / "hang").unlink()
    monkeypatch.chdir(tmp_path)
    resumed = invsolve.solve("d.h5", "m.py:F", out="d.bfgs.h5", resume=True, threads=1)
    assert (resumed.status != Status.NOT_RUN).all()
    assert not (tmp_path / "d.bfgs.h5.parts").exists()
