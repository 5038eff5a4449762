"""Runs the program in processes of its own, forked from one that has imported it: half of a short run is imports.

Started as a script it is that process: a line of JSON for each run on standard input, its status on standard output.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Launcher:
    """Starts the program with what `subprocess.run` gets: words, folder and environment."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        words: list[str],
        *,
        timeout: float = 120,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m invsolve WORDS` to its end; standard input is empty."""
        if env is not None and env.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):  # read where Python begins
            whole = [sys.executable, "-m", "invsolve", *words]
            return subprocess.run(
                whole, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd, env=dict(env)
            )
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen([sys.executable, "-u", __file__], stdin=pipe, stdout=pipe, text=True)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            told = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
            process.stdin.write(json.dumps(told | {"out": str(out), "err": str(err)}) + "\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], timeout)[0]:
                self.close()
                raise subprocess.TimeoutExpired(words, timeout, out.read_text(), err.read_text())
            status = json.loads(process.stdout.readline())
            return subprocess.CompletedProcess(words, status, out.read_text(), err.read_text())

    def close(self) -> None:
        """End the process, and a run that is under way."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None


def _serve() -> None:
    import invsolve.cli
    import invsolve.console
    import invsolve.pipeline  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be_the_program(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _be_the_program(told: dict[str, Any]) -> None:
    """As `python -m invsolve` is, and end."""
    os.environ.clear()
    os.environ.update(told["env"])
    os.chdir(told["cwd"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, told["out"], os.O_WRONLY | os.O_CREAT),
        (2, told["err"], os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = (open(i, mode) for i, mode in enumerate(("r", "w", "w")))  # noqa: SIM115
    sys.argv, sys.path[0] = ["invsolve", *told["words"]], told["cwd"]
    status: Any = 0
    try:
        sys.modules["invsolve.cli"].main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    _serve()
