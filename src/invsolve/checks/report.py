"""What `invsolve check` finds: plain values, to be shown as a table or printed as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from invsolve.errors import first_line


class Verdict(StrEnum):
    """How a check came out. A warning leaves the subject usable; a fault makes its results wrong or impossible."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it came out, what was found, and what to change."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Speed:
    """Cost of F at one batch size; None where it would have taken too long, or too much memory."""

    batch: int
    value_ms: float | None  # milliseconds per row
    gradient_ms: float | None  # milliseconds per row, value and gradient
    memory_mb: float | None  # held for the backward pass, all rows together, in 10⁶ bytes


@dataclass
class Report:
    """All findings on one model or method."""

    subject: str
    findings: list[Finding]
    speed: list[Speed] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return all(f.verdict is not Verdict.FAULT for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The `check --json` document."""
        return {
            "schema": "invsolve-check/1",
            "subject": self.subject,
            "ok": self.ok,
            "findings": [asdict(f) for f in self.findings],
            "speed": [asdict(s) for s in self.speed],
        }


Subject = TypeVar("Subject")


def examine(checks: Sequence[tuple[str, Callable[[Subject], Finding]]], subject: Subject) -> list[Finding]:
    """The findings of all checks by name; one that raises is a fault."""
    findings = []
    for name, check in checks:
        try:
            findings.append(check(subject))
        except (Exception, SystemExit) as error:  # whatever another's code raises is what is to be found here
            findings.append(Finding(name, Verdict.FAULT, first_line(error)))
    return findings


def verdict_of_share(good: int, n: int) -> Verdict:
    """All is well, only some is, or nothing."""
    return Verdict.OK if good == n else Verdict.WARNING if good else Verdict.FAULT
