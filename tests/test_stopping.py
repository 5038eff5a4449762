"""What a stop leaves: all that was reached and could still be scored in a few seconds, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import invsolve
from invsolve import control as control_module
from invsolve import run as run_module
from invsolve.control import GRACE, Control
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.models.base import FunctionModel

BATCH = 8


def shots(n: int) -> Dataset:
    data = invsolve.generate("billiards", n, seed=1)
    data.x0 = np.array([0.7, 0.0])
    return data


class SlowRun:
    """Billiards by a clock of its own, on which every row takes `each` seconds; stopped once it shows `stop`."""

    def __init__(self, stop: float, each: float = 0.5) -> None:
        self.now, self.stop, self.each = 0.0, stop, each
        self.control = Control(clock=lambda: self.now)
        self.inner = invsolve.load_model("billiards")

    def solve(self, n: int, method: str, by: str = "signal", **more: Any) -> invsolve.Solution:
        limit = self.stop if by == "time limit" else None

        def forward(x: Tensor, identifiers: Tensor) -> Tensor:
            self.now += self.each * len(x)
            if by == "signal" and self.now >= self.stop:
                self.control.interrupted = True
            return self.inner(x, identifiers)

        model = FunctionModel(forward, "slow")
        return invsolve.solve(
            shots(n), model, method, batch_size=BATCH, control=self.control, time_limit=limit, threads=1, **more
        )


@pytest.mark.parametrize("by", ["signal", "time limit"])
@pytest.mark.parametrize(
    ("method", "n", "stop", "more"),
    [
        ("bfgs", 60, 150.0, {}),
        ("lm", 60, 150.0, {}),
        ("multistart", 60, 150.0, {}),
        ("bfgs", 60, 150.0, {"covariance": True}),
        ("jpo", 60, 150.0, {}),
        ("jpo", 60, 230.0, {"options": {"steps": 3, "simulations": 1}}),  # in its local solves
        ("auto", 60, 300.0, {}),
        ("supervised", 60, 150.0, {}),
        ("bfgs", 60, 10.0, {}),  # while the starts are scored
        ("jpo", 60, 10.0, {}),
    ],
)
def test_little_is_evaluated_after_a_stop(method: str, n: int, stop: float, more: dict[str, Any], by: str) -> None:
    """A round that was begun ends, what it reached is scored for 10 s, and of the rest nothing is told."""
    slow = SlowRun(stop)
    found = slow.solve(n, method, by, **more)
    together = n if method in ("jpo", "auto", "supervised") else BATCH  # their simulations are one call
    assert slow.now - slow.stop <= slow.each * together + GRACE + 1.5
    unscored = found.status == Status.NOT_RUN
    assert np.array_equal(np.isnan(found.loss), unscored)
    assert np.array_equal(np.isnan(found.grad_norm), unscored)
    assert unscored.any()
    assert unscored.all() == (stop == 10.0)
    np.testing.assert_array_equal(found.x[unscored], found.x_initial[unscored])
    assert (found.loss[~unscored] <= found.loss_initial[~unscored]).all()
    assert found.history is not None
    assert np.isnan(found.history[unscored]).all()
    if "covariance" in more:
        assert found.covariance is not None
        assert np.isnan(found.covariance[unscored]).all()


def test_what_is_quickly_scored_is_all_scored() -> None:
    """The parts of a hurry grow: rows that take no time are scored like ever, all that were begun."""
    slow = SlowRun(1.0, each=1e-3)
    found = slow.solve(300, "gd", max_evaluations=200)
    assert (found.status == Status.BUDGET).sum() >= BATCH
    assert np.array_equal(np.isnan(found.loss), found.status == Status.NOT_RUN)
    slow = SlowRun(2.2, each=1e-3)  # in the training
    assert (slow.solve(300, "jpo", options={"proposals": "none"}).status != Status.NOT_RUN).all()


def test_an_interrupted_run_goes_on_where_nothing_was_scored(tmp_path: Path) -> None:
    for stop in (10.0, 150.0):
        out = tmp_path / f"{stop}.h5"
        slow = SlowRun(stop)
        slow.solve(60, "bfgs", out=out)
        slow.control, slow.stop = Control(), np.inf
        resumed = slow.solve(60, "bfgs", out=out, resume=True)
        np.testing.assert_array_equal(resumed.loss, slow.solve(60, "bfgs").loss)
        assert not out.with_name(out.name + ".parts").exists()


def test_the_losses_at_x_true_are_left_out_where_time_is_over() -> None:
    slow = SlowRun(1e9)
    run = run_module.Run(invsolve.generate("billiards", 40, seed=1), "billiards", {}, invsolve.Settings())
    assert run.loss_true(slow.control) is not None
    slow.control.interrupted = True
    assert slow.control.may_score
    slow.now += GRACE
    assert run.loss_true(slow.control) is None


SCRIPT = """
import sys, invsolve.control, invsolve.ranges
invsolve.control.GRACE = 0.5
invsolve.ranges.RANGE, invsolve.ranges.PATIENCE = 8, 0
sys.argv[0] = "invsolve"
from invsolve.__main__ import main
main()
"""
SLEEPING = """
import pathlib, time, invsolve
inner = invsolve.load_model("billiards")
def F(x, identifiers):
    time.sleep({each} * len(x))
    if {hangs} and len(list(pathlib.Path("d.bfgs.h5.parts").glob("rows-*.h5"))) >= 2:
        pathlib.Path("hangs").touch()
        time.sleep(1000)
    return inner(x, identifiers)
"""


def started(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    flags = ["--model", "m.py:F", "--batch-size", "8", "--compile", "off", "--threads", "1"]
    command = [sys.executable, "-c", SCRIPT, "solve", "d.h5", *flags, *words]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def waited(process: subprocess.Popen[str], path: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(path.glob(pattern))) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def test_sigterm_leaves_a_whole_file_and_the_time_of_a_few_evaluations(tmp_path: Path) -> None:
    invsolve.write_dataset(tmp_path / "d.h5", shots(200))
    (tmp_path / "m.py").write_text(SLEEPING.format(each=0.01, hangs=False))
    process = started(tmp_path, "--json")
    waited(process, tmp_path / "d.bfgs.h5.parts", "rows-*.h5", 2)
    process.terminate()
    out, err = process.communicate(timeout=30)  # the grace of a scheduler
    assert process.returncode == 143, err
    told, found = json.loads(out), invsolve.read_solution(tmp_path / "d.bfgs.h5")
    assert told["status"]["not_run"] == (found.status == Status.NOT_RUN).sum() > 100
    assert np.isfinite(found.loss[:16]).all()
    assert "'invsolve solve d.h5" in err
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_second_interrupt_ends_at_once_and_corrupts_nothing(tmp_path: Path) -> None:
    invsolve.write_dataset(tmp_path / "d.h5", shots(60))
    (tmp_path / "m.py").write_text(SLEEPING.format(each=0.0, hangs=True))
    process = started(tmp_path)
    waited(process, tmp_path, "hangs", 1)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "Ctrl-C again to end at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert sorted(os.listdir(tmp_path)) == ["d.bfgs.h5.parts", "d.h5", "hangs", "m.py"]
    kept = sorted(p.name for p in (tmp_path / "d.bfgs.h5.parts").iterdir())
    assert [name for name in kept if name.startswith("rows")] == [
        "rows-000000000000-000000000008.h5",
        "rows-000000000008-000000000016.h5",
    ]
    refused = started(tmp_path)
    assert "an unfinished run with 2 finished ranges" in refused.communicate(timeout=60)[1]


def test_parts_of_a_solve_have_no_time_of_their_own() -> None:
    now = [0.0]
    whole = Control(clock=lambda: now[0])
    part = whole.seen_as(lambda p: p)
    assert part.may_score
    whole.interrupted = True
    assert part.may_score
    now[0] = control_module.GRACE
    assert not part.may_score
    assert not whole.may_score
