"""A Ray cluster of this machine, held by a process of its own, in a session of its own.

What is sent to all of a command's group, by a terminal, `timeout` or a scheduler, does not reach it: the cluster lives
until the command has written what was reached. It ends with the command however that ends, for its holder reads from
it, and sees the end of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import Any

_END = 10.0  # seconds that it takes at most
_TOKEN = "RAY_AUTH_MODE"  # in the environment, as Ray sets it in the process that starts a cluster


class Host:
    """Starts a cluster with so many cores, and ends it.

    Raises:
        ConnectionError: Ray could not start one.
    """

    def __init__(self, cores: int) -> None:
        # -P: nothing beside this file, or in the folder of the user, is imported in place of a library.
        words, pipe = [sys.executable, "-P", __file__, str(cores)], subprocess.PIPE
        self._process = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "Ray ended as it began"}')
        if "error" in told:
            self.end()
            raise ConnectionError(told["error"])
        self.address: str = told["address"]
        self.environment: dict[str, str] = told["environment"]
        """What Ray has to find in the environment of who connects."""

    def end(self) -> None:
        """End the cluster, and come back when it has."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _hold(cores: int) -> None:
    """Be the process: start the cluster, tell where it is, and end it when nobody is there any more."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    try:
        import ray

        ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
        mode = os.environ.get(_TOKEN)
        environment = {} if mode is None else {_TOKEN: mode}
        told = {"address": ray.get_runtime_context().gcs_address, "environment": environment}
    except Exception as error:
        told = {"error": str(error).strip().partition("\n")[0] or type(error).__name__}
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(told), file=out, flush=True)
    sys.stdin.read()
    if "error" not in told:
        ray.shutdown()


if __name__ == "__main__":
    _hold(int(sys.argv[1]))
