"""What a run tells those who watch it: events, the log, and `-v`."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve import control, ranges, run
from invsolve.control import Control
from invsolve.errors import OutputError
from invsolve.events import Event, EventLog
from invsolve.models.base import FunctionModel
from tests.conftest import Command


def events_of(n: int, method: str = "bfgs", **more: Any) -> list[Event]:
    """Of solving n billiards shots."""
    heard: list[Event] = []
    invsolve.solve(
        invsolve.generate("billiards", n, seed=1), method=method, control=Control(listeners=[heard.append]), **more
    )
    return heard


def kinds(heard: list[Event]) -> list[str]:
    return [event.kind for event in heard]


def test_a_run_is_told_from_begin_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE", 8)
    monkeypatch.setattr(ranges, "PATIENCE", 0)
    heard = events_of(20, threads=1)
    assert kinds(heard) == ["begin", "range", "range", "range", "end"]
    begin, *solved, end = (event.told for event in heard)
    assert (begin["examples"], begin["method"], begin["process"]) == (20, "bfgs", os.getpid())
    assert [(r["start"], r["stop"]) for r in solved] == [(0, 8), (8, 16), (16, 20)]
    assert sum(r["evaluations"] for r in solved) == end["evaluations"]
    assert sum(sum(r["status"].values()) for r in solved) == 20
    json.dumps([event.told for event in heard], allow_nan=False)


def test_workers_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE", 5)
    monkeypatch.setattr(ranges, "PATIENCE", 0)
    monkeypatch.setattr(run, "WORTH_FORKING", 0)
    monkeypatch.setattr(control, "BETWEEN_EVENTS", 0.0)
    heard = events_of(40, threads=2)
    done = [event.told for event in heard if event.kind == "range"]
    assert sorted(i for r in done for i in range(r["start"], r["stop"])) == list(range(40))
    assert "progress" in kinds(heard)
    assert heard[-1].kind == "end"


def test_training_faults_and_what_was_kept_are_told(tmp_path: Path) -> None:
    heard = events_of(6, "jpo", options={"passes": 1, "simulations": 2})
    trained = next(event.told for event in heard if event.kind == "trained")
    assert trained["network"]["kind"] == "mlp"
    assert trained["evaluations"] >= 6

    def moody(x: Tensor, identifiers: Any) -> Tensor:
        if bool((identifiers == 3).any()):
            raise ValueError("not this one")
        return x * identifiers[:, None]

    known = np.arange(6.0)
    data = invsolve.Dataset(targets=np.ones((6, 1)), identifiers=known, x0=np.zeros((6, 1)))
    told: list[Event] = []
    invsolve.solve(data, FunctionModel(moody, "moody"), control=Control(listeners=[told.append]))
    fault = next(event.told for event in told if event.kind == "fault")
    assert fault == {"example": 3, "text": "ValueError: not this one"}


def test_the_log_has_a_line_for_each_event_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for _ in range(2):
        log = EventLog(path)
        log(Event("range", {"start": 0, "text": "two\nlines \u202e"}))
        log(Event("end"))
        log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["range", "end"] * 2
    assert lines[0]["text"] == "two\nlines \u202e"
    assert datetime.fromisoformat(lines[0]["time"]).tzinfo is not None
    assert lines[1]["seconds"] >= lines[0]["seconds"] >= 0


def test_nothing_is_appended_to_what_is_no_log(tmp_path: Path) -> None:
    other = tmp_path / "data.h5"
    other.write_bytes(b"\x89HDF")
    with pytest.raises(OutputError, match="is no log"):
        EventLog(other)
    assert other.read_bytes() == b"\x89HDF"
    with pytest.raises(OutputError, match="cannot write log"):
        EventLog(tmp_path / "absent" / "run.jsonl")
    with pytest.raises(OutputError, match="cannot write log"):
        EventLog(tmp_path)


def test_a_full_disk_ends_the_log_not_the_run() -> None:
    log = EventLog(Path("/dev/full"))
    log(Event("begin"))
    log(Event("end"))
    assert "No space left" in log.failed
    log.close()


def test_the_shell_logs_shows_and_tells_of_failures(command: Command, wave_packets: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    done = command("solve", wave_packets, "--log", path, "-v", "--json")
    json.loads(done.stdout)
    shown = [line.removeprefix("invsolve: ").split(":")[0] for line in done.stderr.splitlines()]
    assert shown == ["begin", "range", "end"]
    refused = command("solve", wave_packets, "--log", path)  # the output exists
    assert refused.returncode == 2
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "range", "end", "failed"]
    assert "exists" in lines[-1]["text"]
    assert lines[0]["out"] == str(wave_packets.with_name("wp.bfgs.h5"))


def test_progress_is_told_twice_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Event] = []
    now = [0.0]
    watching = Control(clock=lambda: now[0], listeners=[heard.append])
    watching.begin_range(50, 100)

    def progress() -> control.Progress:
        return control.Progress("bfgs", 10, 5, 0.5, 77, torch.ones(3))

    for second in range(100):
        now[0] = float(second)
        watching.report(progress)
    assert [event.told["evaluations"] for event in heard] == [77] * 3
    assert heard[0].told == {"stage": "bfgs", "examples": 100, "done": 55, "fraction": 0.55, "evaluations": 77}
