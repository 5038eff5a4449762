"""JSON from files, which anybody may have written."""

from __future__ import annotations

import json
import math
from typing import Any

_DEEPEST = 32  # levels: what is deeper cannot be passed on safely, and nobody needs it


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object (RFC 8259) that a text holds; None if it is none, is nested too deeply, or holds NaN or Inf."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_sound(value, _DEEPEST) else None


def _is_sound(value: Any, deepest: int) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return deepest > 0 and all(_is_sound(item, deepest - 1) for item in inner)
