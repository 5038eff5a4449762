"""A driver outside of the cluster, which reaches one port of it: that of Ray's client server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import invsolve
from tests.test_cluster import own_model, pytestmark, ray, sine, waves  # noqa: F401

ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
OPTIONS = {"proposals": "none", "steps": 60}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster that `ray start` has begun, as an administrator would."""
    port, client = free_port(), free_port()
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    words += ["--include-dashboard=false", f"--port={port}", f"--ray-client-server-port={client}"]
    quiet = subprocess.DEVNULL
    head = subprocess.Popen(words, env=ENVIRONMENT, stdout=quiet, stderr=quiet, start_new_session=True)
    yield f"ray://127.0.0.1:{client}"
    head.terminate()
    head.wait()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bfgs", "jpo"])
def test_it_finds_the_same(address: str, method: str, tmp_path: Path) -> None:
    data, out, options = tmp_path / "d.h5", tmp_path / "out.h5", OPTIONS if method == "jpo" else {}
    model = own_model(tmp_path)
    invsolve.write_dataset(data, waves())
    words = ["solve", str(data), "--model", model, "--method", method, "--out", str(out), "--json", "--quiet"]
    words += [f"-O{key}={value}" for key, value in options.items()]
    for _ in range(20):  # until it has begun
        done = subprocess.run(
            [sys.executable, "-m", "invsolve", *words, "--cluster", address],
            env=ENVIRONMENT, capture_output=True, check=False, text=True,
        )  # fmt: skip
        if "Connection refused" not in done.stderr:
            break
    assert not done.stderr, done.stderr
    assert json.loads(done.stdout)["status"]["converged"] == 40
    here = invsolve.solve(waves(), sine, method, options=options, threads=1)
    np.testing.assert_allclose(invsolve.read_solution(out).x, here.x, rtol=1e-6, atol=1e-8)
