"""How the objective of each example fell with the evaluations spent on it, recorded as it becomes known."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from invsolve.data.solution import HISTORY_EVALUATIONS

_K = len(HISTORY_EVALUATIONS)


class History:
    """Of n rows the least objective that was known by so many evaluations: `least` (n, K) float32.

    Entry k is the least of what became known after more than `HISTORY_EVALUATIONS[k - 1]` evaluations of the row and up
    to `HISTORY_EVALUATIONS[k]`, +∞ where nothing did; the last one takes all that comes later. Nothing here waits for a
    GPU.
    """

    def __init__(self, least: Tensor) -> None:
        self.least = least

    @classmethod
    def empty(cls, n: int, device: torch.device) -> History:
        """Of n rows of which nothing is known."""
        return cls(torch.full((n, _K), torch.inf, dtype=torch.float32, device=device))

    def note(self, rows: Tensor, evaluations: Tensor, objective: Tensor) -> None:
        """These (b,) are the objectives of the rows (b,), +∞ where not known, when so many evaluations were made.

        Rows may be repeated. Where the objective is +∞ the row may be any, negative ones too.
        """
        places = rows.clamp(min=0).mul_(_K).add(torch.searchsorted(_ends(rows.device), evaluations))
        self.least.view(-1).scatter_reduce_(0, places.flatten(), objective.float().flatten(), "amin")

    def absorb(self, rows: Tensor, part: History, before: Tensor, made: Tensor) -> None:
        """Take in the history of a part, whose rows are `rows` (b,) here: `before` (b,) evaluations had been made of
        each, and `made` (b,) are the part's. Of a row that is repeated one comes after the other.
        """
        order = rows.argsort(stable=True)
        ordered, spent = rows[order], made[order].cumsum(0)
        first = torch.searchsorted(ordered, ordered)  # where the row begins
        earlier = torch.empty_like(made)
        earlier[order] = spent - made[order] - (spent - made[order])[first]
        at = (before + earlier)[:, None] + torch.minimum(_ends(rows.device), made[:, None])
        self.note(rows[:, None], at, part.least)

    def slice(self, start: int, stop: int) -> History:
        """Rows start ≤ i < stop, sharing memory."""
        return History(self.least[start:stop])

    def column(self) -> np.ndarray:
        """The column `history` of a solution, (n, K) float32: the least objective so far, NaN while none is known."""
        least: np.ndarray = self.least.cummin(1).values.cpu().numpy()
        least[np.isinf(least)] = np.nan
        return least


@cache
def _ends(device: torch.device) -> Tensor:
    """The evaluations (K,) up to which each entry reaches."""
    return torch.tensor([*HISTORY_EVALUATIONS[:-1], torch.iinfo(torch.int64).max], device=device)
