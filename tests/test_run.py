"""Runs as a whole: ranges, interruption, resuming, limits, one writer."""

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
import torch
from torch import Tensor

import invsolve
from invsolve import ranges
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.run_folder import RunFolder
from invsolve.data.solution import COLUMNS, Status
from invsolve.events import Event
from invsolve.models.base import FunctionModel

COMPARED = [*(c for c in COLUMNS if c != "example"), "history"]


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE", 5)
    monkeypatch.setattr(ranges, "PATIENCE", 0)  # they do not grow


def shots(n: int = 13, seed: int = 1) -> Dataset:
    """Billiards with x0 in the data, so that plain functions can solve it too."""
    data = invsolve.generate("billiards", n, seed=seed)
    data.x0 = np.array([0.7, 0.0])
    return data


def interrupting(model: str, control: Control, after: int) -> FunctionModel:
    """A built-in model that interrupts the run at its call number `after`."""
    inner, calls = invsolve.load_model(model), [0]

    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        calls[0] += 1
        control.interrupted = control.interrupted or calls[0] == after
        return inner(x, identifiers)

    return FunctionModel(forward, "interrupting")


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("method", ["bfgs", "gd", "jpo"])
def test_ranges_make_no_difference(method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = shots()
    options: dict[str, Any] = {"jpo": {"steps": 30}}.get(method, {})
    pieces = invsolve.solve(data, method=method, options=options, out=tmp_path / "out.h5")
    monkeypatch.setattr(ranges, "RANGE", 1000)
    whole = invsolve.solve(data, method=method, options=options)
    np.testing.assert_allclose(pieces.loss, whole.loss, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(pieces.history, whole.history, rtol=1e-4, atol=1e-12)
    assert np.array_equal(pieces.example, np.arange(13))
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]


def test_ranges_are_bounded_by_what_comes_of_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    data, heard = Dataset(targets=np.zeros((400, 1)), x0=np.zeros(50)), list[Event]()
    monkeypatch.setattr(ranges, "MEMORY", 40 * 8 * (1 + 50 * 2))  # 40 examples' y, x and x0; and y alone of all
    model = FunctionModel(lambda x, identifiers: x.sum(1, keepdim=True), "sum")
    invsolve.solve(data, model, "bfgs", control=Control(listeners=[heard.append]), threads=1)
    sizes = [event.told["stop"] - event.told["start"] for event in heard if event.kind == "range"]
    assert sum(sizes) == 400
    assert max(sizes) <= 40 * 1.5


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize(("method", "after"), [("bfgs", 20), ("gd", 60), ("jpo", 10), ("jpo", 40)])
def test_an_interrupted_run_keeps_what_it_has_and_resumes(method: str, after: int, tmp_path: Path) -> None:
    data = shots()
    out = tmp_path / "out.h5"
    options: dict[str, Any] = {"jpo": {"steps": 30}}.get(method, {})
    control = Control()
    broken = invsolve.solve(
        data, interrupting("billiards", control, after), method, options=options, out=out, control=control
    )
    assert len(broken) == 13
    assert (broken.status == Status.NOT_RUN).any() or method == "jpo"
    assert (tmp_path / "out.h5.parts" / "run.json").exists()

    calm = interrupting("billiards", Control(), -1)
    with pytest.raises(invsolve.OutputError, match=r"exists; choose another name, or --overwrite it"):
        invsolve.solve(data, calm, method, options=options, out=out)
    resumed = invsolve.solve(data, calm, method, options=options, out=out, resume=True)
    undisturbed = invsolve.solve(data, calm, method, options=options)
    for column in COMPARED:
        np.testing.assert_array_equal(getattr(resumed, column), getattr(undisturbed, column), err_msg=column)
    for told in ("chosen", "training_curve"):
        assert (told in resumed.attributes) == (method == "jpo")
        if method == "jpo":
            assert json.loads(resumed.attributes[told]) == undisturbed.attributes[told]
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]
    again = invsolve.solve(data, calm, method, options=options, out=out, resume=True)  # complete: nothing to do
    assert again.attributes["created"] == resumed.attributes["created"]


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("method", ["bfgs", "jpo"])
def test_what_an_earlier_version_finished_has_no_history(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out, control = shots(), tmp_path / "out.h5", Control()
    options: dict[str, Any] = {"jpo": {"steps": 2, "proposals": "none"}}.get(method, {})
    with monkeypatch.context() as earlier:
        earlier.setattr("invsolve.range_solver.HISTORY_EXAMPLES", 0)
        stopping = interrupting("billiards", control, {"bfgs": 20, "jpo": 10}[method])
        invsolve.solve(data, stopping, method, options=options, out=out, control=control)
    found = invsolve.solve(
        data, interrupting("billiards", Control(), -1), method, options=options, out=out, resume=True
    )
    assert found.history is not None
    known = ~np.isnan(found.history).all(1)
    assert known.any()
    np.testing.assert_allclose(found.history[known, -1], found.loss[known], rtol=1e-6)
    assert (method == "jpo") or not known[:5].any()


@pytest.mark.usefixtures("small_ranges")
def test_finished_ranges_are_not_computed_again(tmp_path: Path) -> None:
    data = shots()
    control = Control()
    model = interrupting("billiards", control, 20)  # in the second range
    invsolve.solve(data, model, out=tmp_path / "o.h5", control=control)
    seen: list[Tensor] = []
    inner = invsolve.load_model("billiards")

    def recording(x: Tensor, identifiers: Tensor) -> Tensor:
        seen.append(identifiers)
        return inner(x, identifiers)

    invsolve.solve(data, FunctionModel(recording, "interrupting"), out=tmp_path / "o.h5", resume=True)
    first_range = torch.from_numpy(np.asarray(data.identifiers))[:5]
    assert not any((row == first_range).all(1).any() for row in torch.cat(seen))


@pytest.mark.usefixtures("small_ranges")
def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    data, control = shots(), Control()
    model = interrupting("billiards", control, 20)
    invsolve.solve(data, model, out=tmp_path / "o.h5", control=control)
    with pytest.raises(invsolve.OutputError, match="its seed was 0, now 1"):
        invsolve.solve(data, model, out=tmp_path / "o.h5", resume=True, seed=1)
    other = shots(seed=2)
    with pytest.raises(invsolve.OutputError, match="its input_sha256 was"):
        invsolve.solve(other, model, out=tmp_path / "o.h5", resume=True)
    invsolve.write_dataset(tmp_path / "o.h5", other, overwrite=True)
    with pytest.raises(invsolve.DataError, match="an invsolve-solution file is needed"):
        invsolve.solve(data, model, out=tmp_path / "o.h5", resume=True)
    (tmp_path / "o.h5").unlink()  # as after a kill: the folder alone tells whose run it was
    with pytest.raises(invsolve.OutputError, match="cannot resume .*o.h5.parts: its seed was 0, now 1"):
        invsolve.solve(data, model, out=tmp_path / "o.h5", resume=True, seed=1)
    with pytest.raises(invsolve.OutputError, match="an unfinished run with 1 finished ranges"):
        invsolve.solve(data, model, out=tmp_path / "o.h5")
    done = invsolve.solve(data, "billiards", out=tmp_path / "o.h5", overwrite=True)
    assert (done.status != Status.NOT_RUN).all()


def test_one_writer(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "o.h5", {"a": 1}, resume=False, overwrite=False)
    with pytest.raises(invsolve.OutputError, match="another run is writing"):
        RunFolder(tmp_path / "o.h5", {"a": 1}, resume=True, overwrite=True)
    first.close()


def test_a_time_limit_gives_the_best_so_far() -> None:
    now = [0.0]
    inner = invsolve.load_model("wave-packet")

    def slow(x: Tensor, identifiers: None) -> Tensor:
        now[0] += 1.0
        return inner(x, identifiers)

    data = invsolve.generate("wave-packet", 6, seed=1)
    data.x0 = np.full((6, 1), 10.0)
    solution = invsolve.solve(data, slow, time_limit=5.0, control=Control(clock=lambda: now[0]))
    assert (solution.status == Status.BUDGET).any()
    assert (solution.loss < solution.loss_initial).any()
    assert (solution.loss <= solution.loss_initial).all()


@pytest.mark.usefixtures("small_ranges")
def test_a_run_that_met_its_time_limit_can_be_resumed(tmp_path: Path) -> None:
    data, now = shots(), [0.0]
    inner = invsolve.load_model("billiards")

    def slow(x: Tensor, identifiers: Tensor) -> Tensor:
        now[0] += 1.0
        return inner(x, identifiers)

    out, clock = tmp_path / "o.h5", Control(clock=lambda: now[0])
    limited = invsolve.solve(data, slow, out=out, time_limit=20.0, control=clock)
    assert (limited.status == Status.NOT_RUN).any()
    resumed = invsolve.solve(data, slow, out=out, resume=True)
    np.testing.assert_array_equal(resumed.loss, invsolve.solve(data, slow).loss)
    assert [p.name for p in tmp_path.iterdir()] == ["o.h5"]


def test_a_refused_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def refuses(x: Tensor, identifiers: Tensor) -> Tensor:
        raise ValueError("no")

    with pytest.raises(invsolve.ModelError):
        invsolve.solve(shots(), refuses, out=tmp_path / "o.h5")
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    parts = tmp_path / "o.h5.parts"
    parts.mkdir()
    (parts / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(invsolve.OutputError, match="holds mine.txt, which no run has put there"):
            invsolve.solve(shots(), "billiards", out=tmp_path / "o.h5", overwrite=overwrite)
    assert (parts / "mine.txt").read_text() == "mine"


def test_an_edited_model_file_is_another_model(tmp_path: Path) -> None:
    model, out = tmp_path / "m.py", tmp_path / "o.h5"
    model.write_text("def F(x, identifiers): return x\n")
    data = Dataset(targets=np.ones((3, 2)), x0=np.zeros(2))
    invsolve.solve(data, f"{model}:F", out=out)
    model.write_text("def F(x, identifiers): return 2 * x\n")
    with pytest.raises(invsolve.OutputError, match="its model_sha256 was"):
        invsolve.solve(data, f"{model}:F", out=out, resume=True)


def test_the_input_is_never_the_output(wave_packets: Path) -> None:
    before = wave_packets.read_bytes()
    with pytest.raises(invsolve.OutputError, match="is the input"):
        invsolve.solve(wave_packets, out=wave_packets, overwrite=True)
    assert wave_packets.read_bytes() == before


def test_attributes_say_how_the_solution_came_to_be(wave_packets: Path, tmp_path: Path) -> None:
    solution = invsolve.solve(wave_packets, method="gd", seed=4, out=tmp_path / "o.h5")
    a = solution.attributes
    assert (a["model"], a["method"], a["seed"], a["dtype"], a["device"]) == ("wave-packet", "gd", 4, "float64", "cpu")
    assert json.loads(a["method_options"])["optimizer"] == "sgd"
    assert json.loads(a["model_options"])["samples"] == 32
    assert json.loads(a["versions"]).keys() == {"invsolve", "torch", "numpy", "python"}
    assert a["input_sha256"] == subprocess.check_output(["sha256sum", wave_packets], text=True).split()[0]


def test_a_kill_at_any_moment_loses_at_most_a_range(tmp_path: Path) -> None:
    """SIGKILL at three moments of a run of many ranges; after each, the run resumes, and at the end all is there."""
    data, out = tmp_path / "d.h5", tmp_path / "o.h5"
    invsolve.write_dataset(data, shots(60))
    script = (
        "import time, torch, invsolve, invsolve.ranges as r\n"
        "r.RANGE, r.PATIENCE = 4, 0\n"
        "inner = invsolve.load_model('billiards')\n"
        "def F(x, identifiers):\n"
        "    time.sleep(0.005)\n"
        "    return inner(x, identifiers)\n"
        f"invsolve.solve({str(data)!r}, F, out={str(out)!r}, resume=True, compile='off')\n"
    )
    parts, kept = out.with_name("o.h5.parts"), 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 60
        while len(list(parts.glob("rows-*.h5"))) < kept + 3 and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        kept = len(list(parts.glob("rows-*.h5")))
        assert kept > 0
    subprocess.run([sys.executable, "-c", script], check=True)
    solution, inner = invsolve.read_solution(out), invsolve.load_model("billiards")
    expected = invsolve.solve(data, lambda x, identifiers: inner(x, identifiers))  # noqa: PLW0108 (without names)
    np.testing.assert_allclose(solution.loss, expected.loss, rtol=1e-6, atol=1e-12)
    assert sorted(os.listdir(tmp_path)) == ["d.h5", "o.h5"]


def test_robust_solutions_are_not_refined_by_least_squares() -> None:
    with pytest.raises(invsolve.OptionError, match="'bfgs' would undo that; use none"):
        invsolve.solve(invsolve.generate("sine", 3), method="lm", options={"loss": "cauchy"}, refine="bfgs")
