"""Processes that run cases, so many at a time, each with one thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, NoReturn

from benchmarks.kept import C, R, Result, Store, package_code, package_commit, write_result

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
_LOOKS = 0.05  # seconds between two looks at who has ended


def end_by_signal() -> None:
    """Leave at a SIGTERM by way of every `finally`, so that processes are ended; a second one changes nothing."""

    def end(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)


class Runner(Generic[C, R]):
    """Runs what is not in the store yet; what is interrupted leaves nothing, what fails leaves why.

    Each case is a process: `python -m CHILD CASE FILE`, with the case in JSON, that writes the file.
    """

    def __init__(self, child: str, store: Store[C, R], jobs: int, time_limit: float, *, retry: bool) -> None:
        self.child, self.store, self.jobs, self.time_limit, self.retry = child, store, jobs, time_limit, retry

    def run(self, cases: Iterable[C], stage: str) -> None:
        """Run a stage's cases to the end of the last."""
        waiting = deque(case for case in dict.fromkeys(cases) if self._is_missing(case))
        running: list[_Process[C, R]] = []
        total, ended = len(waiting), 0
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    running.append(_Process(self.child, waiting.popleft(), self.store, self.time_limit))
                time.sleep(_LOOKS)
                for process in [p for p in running if p.has_ended()]:
                    running.remove(process)
                    process.keep()
                    ended += 1
                    self._tell(f"{stage} {ended}/{total}", process.case)
        finally:
            for process in running:
                process.stop()

    def _is_missing(self, case: C) -> bool:
        result = self.store.get(case)
        return result is None or (self.retry and result.outcome == "failed")

    def _tell(self, where: str, case: C) -> None:
        self.store.forget(case)
        result = self.store.get(case)
        said = "interrupted" if result is None else result.told()
        print(f"{where} {case.key}: {said}", file=sys.stderr, flush=True)


class _Process(Generic[C, R]):
    """A case that is being run."""

    def __init__(self, child: str, case: C, store: Store[C, R], time_limit: float) -> None:
        self.case, self.path = case, store.path(case)
        self.log = self.path.with_suffix(".log")
        self.until, self.time_limit = time.monotonic() + time_limit, time_limit
        self.late = False
        command = [sys.executable, "-m", child, case.to_json(), str(self.path)]
        self.path.unlink(missing_ok=True)  # a failure that is tried again
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=log, stderr=log)

    def has_ended(self) -> bool:
        """Whether it has; beyond its time it is made to."""
        if time.monotonic() > self.until:
            self.late = True
            self.child.kill()
            self.child.wait()
        return self.child.poll() is not None

    def keep(self) -> None:
        """Write down why, if it failed; the result itself was written by the process."""
        code = self.child.returncode
        # Who interrupts it, by these, means to go on later.
        if not self.path.exists() and (self.late or code not in (-signal.SIGINT, -signal.SIGTERM)):
            said = f"ran past {self.time_limit:g} s" if self.late else f"exit code {code}, {_last_line(self.log)}"
            write_result(self.path, self.case, Result("failed", package_code(), package_commit(), line=said))
        self.log.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it, and leave nothing."""
        self.child.kill()
        self.child.wait()
        self.log.unlink(missing_ok=True)
        for part in self.path.parent.glob(f"*.{self.child.pid}.part"):
            part.unlink()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing said"
