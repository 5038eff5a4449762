"""Run configurations: anything that the flags give, from a TOML file; and durations as people write them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from invsolve.errors import OptionError, first_line, nearest

TABLES = ("options", "model_options")
_NOT_IN_FILES = {"network", "data", "config", "option", "model_option"}
_MOST_BYTES = 2**16
_MOST_DOTS = 1000  # in a line: tomllib's memory grows with the square of a dotted key
_MOST_WHOLE = 2**64  # Python refuses to write out numbers of thousands of digits
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def load_config(path: Path, flags: dict[str, bool]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The flags that a file sets, and its tables `[options]` and `[model-options]`.

    `flags` are the names that the command knows, with underscores, and whether each is a switch; the file may write
    hyphens.

    Raises:
        OptionError: no such file, not TOML, a key that is no flag of the command, or a value of the wrong type.
    """
    content = _content(path)
    known = {name.removeprefix("as_"): name for name in flags if name not in _NOT_IN_FILES}
    values: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        where = f"config {path}: '{key}'"
        if name in tables or known.get(name) in values:
            raise OptionError(f"{where} is given twice, with hyphen and underscore")
        if name in TABLES:
            if not isinstance(value, dict):
                raise OptionError(f"{where} must be a table [{key}], found {_shown(value)}")
            tables[name] = {k: _table_value(f"{where}: '{k}'", v) for k, v in value.items()}
        elif name not in known:
            valid = [k.replace("_", "-") for k in (*known, *TABLES)]
            raise OptionError(f"config {path} sets '{key}', which is no flag here; {nearest(key, valid)}")
        elif name == "model" and ":" in str(value):
            raise OptionError(f"{where} names code, which runs only where you name it yourself; give it with --model")
        else:
            values[known[name]] = _flag_value(where, value, switch=flags[known[name]])
    return values, tables


def _content(path: Path) -> dict[str, Any]:
    """What is in a TOML file of a size that a configuration may have."""
    try:
        if path.exists() and not path.is_file():
            raise OptionError(f"config {path} is no regular file; name a TOML file")
        with path.open("rb") as stream:
            text = stream.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise OptionError(f"config {path} has more than {_MOST_BYTES} bytes, which no configuration needs")
        if max(line.count(b".") for line in text.split(b"\n")) > _MOST_DOTS:
            raise OptionError(f"config {path} is nested too deeply")
        return tomllib.loads(text.decode())
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"config {path} is not TOML: {first_line(error)}") from None
    except RecursionError:
        raise OptionError(f"config {path} is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise OptionError(f"config {path} cannot be read: {first_line(error)}") from None


def _shown(value: Any) -> str:
    """A value as a message tells it."""
    if isinstance(value, int) and abs(value) > _MOST_WHOLE:
        return "a number of more than 64 bits"
    if isinstance(value, dict | list):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    return repr(value)[:200]


def _flag_value(where: str, value: Any, *, switch: bool) -> Any:
    if isinstance(value, list) and value and all(isinstance(v, str) or v.__class__ is int for v in value):
        return ",".join(map(str, value))
    if isinstance(value, bool) is not switch or not _is_plain(value):
        raise OptionError(f"{where} must be {'true or false' if switch else 'text or a number'}, found {_shown(value)}")
    return value


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | str | float) or (isinstance(value, int) and abs(value) <= _MOST_WHOLE)


def _table_value(where: str, value: Any, *, level: int = 0) -> Any:
    """As text, so that a file and a command line mean the same; one level of tables, for options by method."""
    if isinstance(value, dict) and level == 0:
        return {k: _table_value(f"{where}: '{k}'", v, level=1) for k, v in value.items()}
    if not _is_plain(value):
        raise OptionError(f"{where} must be text, a number or true or false, found {_shown(value)}")
    return str(value)


def duration_seconds(text: str) -> float:
    """Seconds of a duration such as "90", "45s", "30m" or "1h30m".

    Raises:
        OptionError: it is none, or not above zero.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text)
    if not parts or "".join(a + b for a, b in parts) != text or (len(parts) > 1 and any(not b for _, b in parts)):
        raise OptionError(f"'{text}' is no duration; write seconds, or such as 45s, 30m, 1h30m")
    seconds = sum(float(value) * _UNITS[unit or "s"] for value, unit in parts)
    if seconds <= 0:
        raise OptionError(f"a duration must be above zero, found '{text}'")
    return seconds
