"""Run configurations: anything that the flags give, from a TOML file; and durations as people write them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from invsolve.errors import OptionError, first_line, nearest

TABLES = ("options", "model_options")
_NOT_IN_FILES = {"data", "config", "option", "model_option"}
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def load_config(path: Path, flags: set[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The flags that a file sets, and its tables `[options]` and `[model-options]`.

    `flags` are the names that the command knows, with underscores; the file may write hyphens.

    Raises:
        OptionError: no such file, not TOML, or a key that is no flag of the command.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"config {path} cannot be read: {first_line(error)}") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"config {path} is not TOML: {first_line(error)}") from None
    names = {"as_json": "json"}
    known = {names.get(f, f): f for f in flags - _NOT_IN_FILES}
    values: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name in TABLES:
            if not isinstance(value, dict):
                raise OptionError(f"config {path}: '{key}' must be a table [{key}], found {value!r}")
            tables[name] = value
        elif name not in known:
            valid = [k.replace("_", "-") for k in (*known, *TABLES)]
            raise OptionError(f"config {path} sets '{key}', which is no flag here; {nearest(key, valid)}")
        else:
            values[known[name]] = ",".join(map(str, value)) if isinstance(value, list) else value
    return values, tables


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
        raise OptionError(f"a time limit must be above zero, found '{text}'")
    return seconds
