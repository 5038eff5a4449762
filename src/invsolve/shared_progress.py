"""How far several workers are, as it travels from them, and as one progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from invsolve.control import Control, Progress

_MOST_LOSSES = 1000  # that a worker tells of at a time, for the quantiles on display


@dataclass
class Told:
    """Progress of one range, as it travels."""

    stage: str = ""
    done: int = 0
    worth: float = 0.0  # the fraction of the work, in examples
    evaluations: int = 0
    losses: np.ndarray | None = None


def told(p: Progress) -> Told:
    """What is told of a progress."""
    step = max(1, len(p.losses) // _MOST_LOSSES)
    return Told(p.stage, p.done, p.fraction * p.total, p.evaluations, p.losses[::step].cpu().numpy())


def show(control: Control, parts: Sequence[Told], *, done: int, total: int, evaluations: int) -> None:
    """Tell the display of all ranges that are being solved.

    Args:
        parts: of the ranges.
        done: examples in the ranges before them.
        total: examples of the run.
        evaluations: made for the ranges before them.
    """
    import torch  # not by the board of a cluster, which begins in half of the time without it

    heard = [part for part in parts if part.losses is not None]
    if not heard:
        return
    losses = torch.from_numpy(np.concatenate([part.losses for part in heard]))
    control.begin_range(0, total)
    control.report(
        lambda: Progress(
            stage=heard[0].stage,
            total=total,
            done=done + sum(part.done for part in heard),
            fraction=(done + sum(part.worth for part in heard)) / total,
            evaluations=evaluations + sum(part.evaluations for part in heard),
            losses=losses,
        )
    )
