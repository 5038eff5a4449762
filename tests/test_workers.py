"""Processes that share a run: they change nothing but the time, whatever becomes of them or of their parent."""

from __future__ import annotations

import contextlib
import os
import signal
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
from invsolve import range_solver, ranges, run
from invsolve.control import Control, Progress
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Status
from invsolve.errors import WorkerError
from invsolve.models.base import FunctionModel

PARENT = os.getpid()
SCRIPT = """
import sys, invsolve.ranges, invsolve.run
invsolve.run.WORTH_FORKING = 0
invsolve.ranges.RANGE, invsolve.ranges.PATIENCE = 5, 0
sys.argv[0] = "invsolve"
from invsolve.__main__ import main
main()
"""
SLOW = """
import os, pathlib, time, torch, invsolve
inner = invsolve.load_model("billiards")
def F(x, identifiers):
    pathlib.Path("seen", str(os.getpid())).touch()
    time.sleep(0.01)
    return inner(x, identifiers)
"""


@pytest.fixture(autouse=True)
def _always_forking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "WORTH_FORKING", 0)
    monkeypatch.setattr(ranges, "RANGE", 5)
    monkeypatch.setattr(ranges, "PATIENCE", 0)


def shots(n: int = 40) -> Dataset:
    data = invsolve.generate("billiards", n, seed=1)
    data.x0 = np.array([0.7, 0.0])
    return data


def in_workers(change: Any) -> FunctionModel:
    """Billiards, whose y `change(y, identifiers)` replaces in a worker."""
    inner = invsolve.load_model("billiards")

    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        y = inner(x, identifiers)
        return y if os.getpid() == PARENT else change(y, identifiers)

    return FunctionModel(forward, "in-workers")


def alone(data: Dataset) -> invsolve.Solution:
    """By one process, and by the same model, which has no names for its unknowns."""
    return invsolve.solve(data, in_workers(lambda y, identifiers: y), threads=1)


@pytest.mark.parametrize(
    "more", [{}, {"method": "gd", "max_evaluations": 30}, {"dtype": "float32"}, {"covariance": True}, {"method": "jpo"}]
)
@pytest.mark.parametrize("to_file", [False, True])
def test_processes_change_no_solution(more: dict[str, Any], to_file: bool, tmp_path: Path) -> None:
    data, seen = shots(), tmp_path / "seen"
    seen.mkdir()

    def noting(y: Tensor, identifiers: Tensor) -> Tensor:
        (seen / str(os.getpid())).touch()
        return y

    if more.get("method") == "jpo":
        more = more | {"options": {"steps": 20}}
    out = tmp_path / "o.h5" if to_file else None
    alone = invsolve.solve(data, in_workers(noting), threads=1, **more)
    assert not list(seen.iterdir())
    shared = invsolve.solve(data, in_workers(noting), threads=3, out=out, **more)
    assert len(list(seen.iterdir())) == 3
    for name, column in alone.columns().items():
        np.testing.assert_array_equal(shared.columns()[name], column, err_msg=name)
    assert shared.attributes["threads"] == 3
    seen.rename(tmp_path / "was-seen")
    assert sorted(p.name for p in tmp_path.iterdir()) == (["o.h5"] if to_file else []) + ["was-seen"]


def test_processes_follow_a_parent_that_computed_in_parallel() -> None:
    """Children lack the threads of OpenMP that their parent has started: they must not wait for them."""
    script = (
        "import torch, invsolve, invsolve.run as r\n"
        "torch.set_num_threads(2)\n"
        "x = torch.randn(1500, 1500, dtype=torch.float64, requires_grad=True)\n"
        "(x @ x).exp().sum().backward()\n"
        "torch.fft.rfft2(torch.randn(8, 512, 512)); torch.linalg.svd(x.detach()[:300, :300])\n"
        "r.WORTH_FORKING = 0\n"
        "for threads in (2, 3, 2):\n"
        "    data = invsolve.generate('wave-packet', 3000, seed=1)\n"
        "    print(float(invsolve.solve(data, threads=threads, batch_size=3000).loss.mean()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert len(set(done.stdout.split())) == 1


def test_what_a_worker_refuses_is_refused_in_the_same_words() -> None:
    with pytest.raises(invsolve.ModelError, match=r"returned shape \(\d+, 1\) for x") as caught:
        invsolve.solve(shots(), in_workers(lambda y, identifiers: y[:, :1]), threads=2)
    assert "\n" not in str(caught.value)
    assert not getattr(caught.value, "__notes__", [])


def test_a_fault_in_a_worker_tells_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*arguments: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(range_solver, "_refine", faulty)
    with pytest.raises(ZeroDivisionError, match="a fault of ours") as caught:
        invsolve.solve(shots(), method="gd", refine="bfgs", threads=2)
    assert "in faulty" in caught.value.__notes__[0]


def test_a_row_that_raises_in_a_worker_is_told_as_its_own() -> None:
    data = shots()
    bad = torch.from_numpy(np.asarray(data.identifiers)[[23, 31]])

    def raising(y: Tensor, identifiers: Tensor) -> Tensor:
        if bool((identifiers[:, None] == bad).all(-1).any()):
            raise ValueError("not this one")
        return y

    model = in_workers(raising)
    job = run.Run(data, model, {}, invsolve.Settings(threads=2))
    solution = job.solve(None, False, False, None)
    assert job.conduct.first_error == (23, "ValueError: not this one")
    # The starts of the first range were scored before there were workers; theirs is a later one.
    assert list(np.flatnonzero(solution.status == Status.NONFINITE)) == [23, 31]


def test_a_killed_worker_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    data, out = shots(), tmp_path / "o.h5"
    victim = torch.from_numpy(np.asarray(data.identifiers)[30])

    def dying(y: Tensor, identifiers: Tensor) -> Tensor:
        if bool((identifiers == victim).all(1).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return y

    with pytest.raises(WorkerError, match=r"killed by SIGKILL while it solved examples 30 to 34; perhaps memory"):
        invsolve.solve(data, in_workers(dying), threads=2, out=out)
    kept = sorted(p.name for p in (tmp_path / "o.h5.parts").glob("rows-*.h5"))
    assert len(kept) >= 3
    seen: list[Tensor] = []

    def recording(x: Tensor, identifiers: Tensor) -> Tensor:
        seen.append(identifiers)
        return invsolve.load_model("billiards")(x, identifiers)

    resumed = invsolve.solve(data, FunctionModel(recording, "in-workers"), out=out, resume=True, threads=1)
    np.testing.assert_array_equal(resumed.loss, alone(data).loss)
    start, stop = (int(part) for part in Path(kept[0]).stem.split("-")[1:])
    finished = torch.from_numpy(np.asarray(data.identifiers)[start:stop])
    assert not any((row == finished).all(1).any() for row in torch.cat(seen))


def test_an_unwritable_piece_is_one_line(tmp_path: Path) -> None:
    def removing(y: Tensor, identifiers: Tensor) -> Tensor:
        for path in (tmp_path / "o.h5.parts").glob("run.json"):
            path.unlink()
            path.parent.rename(tmp_path / "away")
        return y

    with pytest.raises(invsolve.OutputError, match="cannot write"):
        invsolve.solve(shots(), in_workers(removing), threads=2, out=tmp_path / "o.h5")


def test_the_time_limit_holds_in_workers(tmp_path: Path) -> None:
    def slow(y: Tensor, identifiers: Tensor) -> Tensor:
        time.sleep(0.05)
        return y

    data, out = shots(200), tmp_path / "o.h5"
    limited = invsolve.solve(data, in_workers(slow), threads=2, out=out, time_limit=1.5)
    assert (limited.status == Status.NOT_RUN).any()
    assert np.isfinite(limited.loss).any()
    resumed = invsolve.solve(data, in_workers(lambda y, identifiers: y), threads=2, out=out, resume=True)
    np.testing.assert_array_equal(resumed.loss, alone(data).loss)


def test_the_budget_holds_in_workers() -> None:
    solution = invsolve.solve(shots(), threads=2, max_evaluations=5)
    assert solution.evaluations.max() == 5


def test_progress_is_of_the_whole_run() -> None:
    told: list[Progress] = []

    def slow(y: Tensor, identifiers: Tensor) -> Tensor:
        time.sleep(0.02)
        return y

    control = Control(told.append)
    control.begin_run("2/5 bfgs seed 3")
    invsolve.solve(shots(), in_workers(slow), threads=2, control=control)
    assert len(told) > 3
    assert {p.stage for p in told} == {"2/5 bfgs seed 3"}
    assert {p.total for p in told} == {40}
    assert all(0 <= p.fraction <= 1 and 0 <= p.done <= 40 for p in told)
    assert told[-1].fraction > told[0].fraction
    assert told[-1].evaluations > told[0].evaluations
    assert len(told[-1].losses)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent_and_the_run_resumes(number: signal.Signals, tmp_path: Path) -> None:
    """As a terminal does, SIGINT is sent to all; SIGTERM and SIGKILL to the parent alone."""
    invsolve.write_dataset(tmp_path / "d.h5", shots(120))
    (tmp_path / "slow.py").write_text(SLOW)
    seen = tmp_path / "seen"
    seen.mkdir()
    flags = ["--model", "slow.py:F", "--threads", "2", "--compile", "off"]
    words = [sys.executable, "-c", SCRIPT, "solve", "d.h5", *flags]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=tmp_path, start_new_session=True, **streams)
    parts = tmp_path / "d.bfgs.h5.parts"
    deadline = time.monotonic() + 60
    while len(list(parts.glob("rows-*.h5"))) < 4 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert len(list(seen.iterdir())) == 3
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + number, err
        assert err.count("stopping: what is reached will be written") == 1
        assert (invsolve.read_solution(tmp_path / "d.bfgs.h5").status == Status.NOT_RUN).any()
    for path in seen.iterdir():
        while _runs(int(path.name)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not _runs(int(path.name))
    kept = len(list(parts.glob("rows-*.h5")))
    assert kept >= 4
    (tmp_path / "slow.py").write_text(SLOW.replace("0.01", "0.00"))
    again = subprocess.run([*words, "--resume"], cwd=tmp_path, check=False, **streams)
    assert again.returncode == 2  # another model's code is another run
    (tmp_path / "slow.py").write_text(SLOW)
    subprocess.run([*words, "--resume", "--json"], cwd=tmp_path, check=True, **streams)
    solution = invsolve.read_solution(tmp_path / "d.bfgs.h5")
    np.testing.assert_array_equal(solution.loss, alone(shots(120)).loss)
    assert not parts.exists()


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z"
    return False


def test_a_refusal_by_a_worker_ends_the_command_in_2(tmp_path: Path) -> None:
    invsolve.write_dataset(tmp_path / "d.h5", shots())
    (tmp_path / "m.py").write_text(
        "import os, invsolve\nPARENT, inner = os.getpid(), invsolve.load_model('billiards')\n"
        "def F(x, g):\n    y = inner(x, g)\n    return y if os.getpid() == PARENT else y.float()\n"
    )
    words = [sys.executable, "-c", SCRIPT, "solve", "d.h5", "--model", "m.py:F", "--threads", "2"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("invsolve: model 'm.py:F' returned float32 where float64 came in")
    assert done.stderr.count("\n") == 1
