"""How numbers read, in the terminal and on pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: float | None) -> str:
    """Four significant digits; None, which stands for infinity in JSON, as ∞."""
    return "∞" if value is None else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that reads best."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def p_value(p: float) -> str:
    """Three decimals are all that matters."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def interval(ratio: Mapping[str, Any]) -> str:
    """Median and interval of a log10 ratio; null is infinite, of a sign that is told beside, or unknown."""
    infinite = ratio.get("infinite", {})

    def part(name: str) -> str | None:
        if name in infinite:
            return "∞" if infinite[name] > 0 else "-∞"
        return None if ratio[name] is None else f"{ratio[name] + 0.0:.2f}".replace("-0.00", "0.00")

    middle, low, high = map(part, ("median", "low", "high"))
    return f"{middle} [{low}, {high}]" if low is not None else f"{middle}"
