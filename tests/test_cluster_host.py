"""A cluster that a command starts for itself: it outlives signals to the command's group, and not the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import invsolve
from invsolve.cluster.host import Host
from tests.test_cluster import own_model, processes, pytestmark, waves  # noqa: F401

SCRIPT = (
    "from invsolve import ranges; ranges.RANGE = 5; ranges.PATIENCE = 0; from invsolve.__main__ import main; main()"
)


def begun(tmp_path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A command in a group of its own, after the first of its ranges; and its output."""
    model, out, data = own_model(tmp_path, "time.sleep(0.05)"), tmp_path / "out.h5", tmp_path / "d.h5"
    invsolve.write_dataset(data, waves(400))
    words = ["solve", str(data), "--model", model, "--out", str(out), "--quiet", "--compile", "off", "--cluster", "ray"]
    command = subprocess.Popen([sys.executable, "-c", SCRIPT, *words], start_new_session=True)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("out.h5.parts/rows-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return command, out


def hosts() -> list[int]:
    return processes(f"{sys.executable}\0-P\0{Path(invsolve.__file__).parent}/cluster/host.py")


def test_a_signal_to_the_whole_group_leaves_what_was_reached(tmp_path: Path) -> None:
    """As `timeout` and schedulers send it."""
    command, out = begun(tmp_path)
    assert len(hosts()) == 1
    os.killpg(command.pid, signal.SIGTERM)
    assert command.wait(60) == 128 + signal.SIGTERM
    counts = invsolve.read_solution(out).status_counts()
    assert counts["converged"] > 0
    assert counts["not_run"] > 0
    assert hosts() == []


@pytest.mark.slow
def test_nothing_outlives_a_command_that_is_killed(tmp_path: Path) -> None:
    command, _ = begun(tmp_path)
    command.send_signal(signal.SIGKILL)
    command.wait()
    deadline = time.monotonic() + 30
    while (left := hosts() + processes("ray::solve_range")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def test_a_cluster_that_cannot_begin_says_why() -> None:
    with pytest.raises(ConnectionError, match=r"num_cpus|CPU|negative"):
        Host(-1)
    assert hosts() == []
