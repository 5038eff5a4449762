"""What happens in a run, one event after another: for a log that others watch, and for who wants to see it."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from invsolve.errors import OutputError, first_line


@dataclass(frozen=True)
class Event:
    """Something that happened, with what is to be known of it as JSON values."""

    kind: str
    told: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


class EventLog:
    """A file of JSON lines that events are appended to, each whole or not at all.

    A log is no result: when its disk is full, the run goes on without it.

    Raises:
        OutputError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock, self._began = path, clock, clock()
        self.failed = ""  # why nothing is written any more
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
            regular = stat.S_ISREG(os.fstat(self._handle).st_mode)
            if regular and os.pread(self._handle, 1, 0) not in (b"", b"{"):
                raise OutputError(f"log {path} exists and is no log: lines would be appended to it; name another")
        except OSError as error:
            raise OutputError(f"cannot write log {path}: {first_line(error)}; choose another place") from None

    def __call__(self, event: Event) -> None:
        """Append one event."""
        if self.failed:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "seconds": round(self._clock() - self._began, 3), "event": event.kind} | event.told
        text = json.dumps(line, default=str, allow_nan=False) + "\n"
        try:
            # In one call, so that lines of several processes are not mixed.
            os.write(self._handle, text.encode())
        except OSError as error:
            self.failed = first_line(error)

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            os.close(self._handle)
