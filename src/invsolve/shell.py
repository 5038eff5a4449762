"""What a shell expects of a program: exit codes, one-line errors, signals, pipes that close."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import typer

from invsolve.allocator import keep_freed_memory
from invsolve.errors import InvsolveError, PipeClosed, visible

if TYPE_CHECKING:
    from pathlib import Path

    from invsolve.control import Control
    from invsolve.events import Listener

DONE, REFUSED, UNSATISFIED = 0, 2, 3
_SIGPIPE, _SIGINT = 128 + 13, 128 + 2
_LONGEST = 2000  # characters of an error


def run_command_line(app: typer.Typer) -> NoReturn:
    """Run the command line; every way it can end is turned into its exit code here."""
    from typer.main import get_command

    # Threads that wait for each other must not burn a core that another process needs: by default they spin so long
    # that runs on a busy machine became up to 30 times slower. torch's OpenMP reads this when it is loaded, later.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_freed_memory()
    if sys.stdout is None:  # closed by the shell (>&-)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # a name in a file may hold what no terminal can show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = get_command(app).main(prog_name="invsolve", standalone_mode=False)
        sys.stdout.flush()
    except InvsolveError as error:
        _end(REFUSED, str(error))
    except (PipeClosed, BrokenPipeError):  # the reader of a pipe has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_SIGPIPE)
    except (typer.Abort, KeyboardInterrupt):
        _end(_SIGINT, "interrupted")
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own: a wrong flag or argument
            _end(REFUSED, f"{error.format_message().rstrip('.')}{_found(error)}")
        raise
    sys.exit(code if isinstance(code, int) else DONE)


def _found(error: Exception) -> str:
    """What was given for the flag that an error of typer's is about."""
    flags = getattr(getattr(error, "param", None), "opts", [])
    for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if flag in flags:
            return f", found '{value if equals else following}'"
    return " (set in the config)" if flags and flags[0].startswith("-") and "--config" in sys.argv else ""


def _end(code: int, message: str) -> NoReturn:
    """Leave with one line on standard error, whatever a name in the message holds, and however long it is."""
    line = visible(" ".join(message.split()))
    print(f"invsolve: {line if len(line) <= _LONGEST else line[:_LONGEST] + ' …'}", file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def watched(quiet: bool, log: Path | None = None, verbose: bool = False) -> Iterator[tuple[Control, list[int]]]:
    """A Control with signal handlers and, on a terminal, a progress display; and the list of signals received.

    Meanwhile what a model prints goes to standard error, which leaves standard output to the result. Events are
    appended to `log`, and shown if `verbose`.
    """
    import signal

    from invsolve import console
    from invsolve.control import Control
    from invsolve.events import EventLog

    signals: list[int] = []
    shown = sys.stderr.isatty() and not quiet
    display = console.ProgressDisplay() if shown else None
    written = None if log is None else EventLog(log)
    listeners: list[Listener] = [console.say_event] if verbose else []
    listeners += [] if written is None else [written]
    control = Control(display.update if display else None, listeners=listeners)

    def stop(number: int, frame: object) -> None:
        control.interrupted = True
        signals.append(number)
        control.tell("signal", signal=signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends at once
        if not quiet:
            console.say("stopping: what is reached will be written (Ctrl-C again to end at once)")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    stdout = sys.stdout

    @contextlib.contextmanager
    def aside() -> Iterator[None]:
        if display is not None:
            display.__exit__(None, None, None)
        with contextlib.redirect_stdout(stdout):
            yield

    control.aside = aside
    try:
        with contextlib.redirect_stdout(sys.stderr), display or contextlib.nullcontext():
            yield control, signals
    except BaseException as error:
        control.tell("failed", text=" ".join(str(error).split()) or type(error).__name__)
        raise
    finally:
        if written is not None:
            written.close()
            if written.failed and not quiet:
                console.say(f"log {log} is not complete: {written.failed}")
        for number, handler in before.items():
            signal.signal(number, handler)


def this_command() -> str:
    """The command that is running, as it would be typed."""
    return shlex.join(["invsolve", *sys.argv[1:]])


def resume_command() -> str:
    """The command that goes on with this one."""

    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    return shlex.join(["invsolve", *words, "--resume"])
