"""Runs our own command line on hostile inputs, one after the other, in a process that is watched and limited.

`python -m tests.fuzz.child JOBS.json RESULTS FILE...` takes [[name, [word, ...]], ...], and the files that may be read
beside those in the words. It writes a line of JSON when it begins with each, and another when it has ended, so that the
last line names the input that crashed the process.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import resource
import signal
import sys
import sysconfig
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

MEMORY = 2**31  # bytes that the process may grow by
SECONDS = 20  # of the processor, for one input; by then it is killed, and the input told
_CALLS = ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
          "pickle.find_class", "os.remove", "os.rename")  # fmt: skip


class Watch:
    """What Python does that it should not while an input is read; as audit hooks stay for ever, this one is armed."""

    def __init__(self) -> None:
        self.allowed: set[str] | None = None
        self.seen: list[str] = []
        paths = {sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), *sysconfig.get_paths().values()}
        self._ours = tuple(os.path.realpath(path) for path in paths)
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event in _CALLS:
            own = event in ("os.remove", "os.rename") and any(mark in str(arguments[0]) for mark in (".tmp", ".parts"))
            self.seen += [] if own else [f"{event} {arguments[:2]}"]
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path not in self.allowed and not os.path.isdir(path) and not self._is_ours(path):
                self.seen.append(f"open {path}")

    def _is_ours(self, path: str) -> bool:
        """Whether it is a part of Python or of us, or what we write."""
        output = ".parts" in path or path.startswith(tuple(f"{allowed}." for allowed in self.allowed or ()))
        return output or path.startswith((*self._ours, "/proc/", "/sys/", "/dev/null"))


def run(words: list[str]) -> tuple[int, str, str, str]:
    """Exit code, standard output and error of `invsolve WORDS`, and the traceback if it ended in one."""
    from invsolve.__main__ import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    sys.argv = ["invsolve", *words]
    code, trace = 0, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            code, trace = 1, traceback.format_exc()
    return code, _text(out), _text(err), trace


def _text(stream: TextIO) -> str:
    stream.seek(0)
    return stream.read()


def peak() -> int:
    """Bytes of memory that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit() -> None:
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.RLIM_INFINITY))


def main() -> None:
    import torch
    import typer.main

    torch.set_num_threads(1)
    # The commands are put together anew for each input otherwise, which takes longer than to read it.
    typer.main.get_command = functools.cache(typer.main.get_command)
    listed, results_path, *known = sys.argv[1:]
    jobs = json.loads(Path(listed).read_text())
    for warm in (
        ["inspect", "absent.h5"],
        ["solve", "absent.h5"],
        ["compare", "a.h5", "b.h5"],
        ["methods"],
        ["models"],
    ):
        run(warm)
    watch = Watch()
    limit()
    with open(results_path, "w", buffering=1) as results:
        for name, words in jobs:
            results.write(json.dumps({"name": name, "words": words}) + "\n")
            watch.seen, before = [], peak()
            watch.allowed = {os.path.realpath(word) for word in (*words, *known)}
            began = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            code, out, err, trace = run(words)
            signal.setitimer(signal.ITIMER_PROF, 0)
            watch.allowed = None
            told = {
                "code": code,
                "out": out,
                "err": err,
                "trace": trace,
                "seen": watch.seen,
                "grown": peak() - before,
                "seconds": time.process_time() - began,
            }
            results.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
