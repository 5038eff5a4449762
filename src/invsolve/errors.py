"""What can be wrong with a request, each kind with one clear line for the user.

An outcome of an example (it did not converge, its F is NaN) is a value, `invsolve.Status`, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InvsolveError(Exception):
    """Base of all errors that the user can mend; the command line prints its text and exits with 2."""


class DataError(InvsolveError):
    """A dataset or solution file, or the arrays given instead, cannot be used."""


class ModelError(InvsolveError):
    """A forward model cannot be found, loaded or evaluated."""


class OptionError(InvsolveError):
    """A method, option or setting is unknown or has an unusable value."""


class OutputError(InvsolveError):
    """A result cannot be written where it was asked for."""


class WorkerError(InvsolveError):
    """A process that shared the work of a run has died."""


class PipeClosed(Exception):
    """Whoever read standard output has gone. No OSError, which typer would turn into an exit code of its own."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that ends an error line about an unknown name: the nearest valid one, else all of them."""
    names = sorted(valid)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"valid: {', '.join(names)}" if names else "there are none"


def visible(text: str) -> str:
    """`text` for a terminal, with control characters, and those that turn the order of letters, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The type and first line of `error`, for use inside a one-line message."""
    if callable(details := getattr(error, "errors", None)):  # pydantic's: the first line only counts them
        first = details()[0]
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        return f"{where}{first['msg'].removeprefix('Value error, ')}"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
