"""Run configurations: anything that the flags give, from a TOML file; and durations as people write them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from invsolve.errors import OptionError, first_line, nearest

TABLES = ("options", "model_options")
_NOT_IN_FILES = {"network", "data", "config", "option", "model_option"}
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def load_config(path: Path, flags: dict[str, bool]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The flags that a file sets, and its tables `[options]` and `[model-options]`.

    `flags` are the names that the command knows, with underscores, and whether each is a switch; the file may write
    hyphens.

    Raises:
        OptionError: no such file, not TOML, a key that is no flag of the command, or a value of the wrong type.
    """
    try:
        content = tomllib.loads(path.read_bytes().decode())
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"config {path} is not TOML: {first_line(error)}") from None
    except (OSError, ValueError) as error:
        raise OptionError(f"config {path} cannot be read: {first_line(error)}") from None
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
                raise OptionError(f"{where} must be a table [{key}], found {value!r}")
            tables[name] = {k: _table_value(f"{where}: '{k}'", v) for k, v in value.items()}
        elif name not in known:
            valid = [k.replace("_", "-") for k in (*known, *TABLES)]
            raise OptionError(f"config {path} sets '{key}', which is no flag here; {nearest(key, valid)}")
        else:
            values[known[name]] = _flag_value(where, value, switch=flags[known[name]])
    return values, tables


def _flag_value(where: str, value: Any, *, switch: bool) -> Any:
    if isinstance(value, list) and value and all(isinstance(v, str) or v.__class__ is int for v in value):
        return ",".join(map(str, value))
    if isinstance(value, bool) is not switch or not isinstance(value, bool | str | int | float):
        raise OptionError(f"{where} must be {'true or false' if switch else 'text or a number'}, found {value!r}")
    return value


def _table_value(where: str, value: Any) -> Any:
    """As text, so that a file and a command line mean the same; one level of tables, for options by method."""
    if isinstance(value, dict):
        return {k: _table_value(f"{where}: '{k}'", v) for k, v in value.items()}
    if not isinstance(value, bool | str | int | float):
        raise OptionError(f"{where} must be text, a number or true or false, found {value!r}")
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
