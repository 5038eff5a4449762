"""Where a joint step points, by the number of examples that make it (figure 2 of arXiv 2408.08119)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Update = Callable[[Tensor], Tensor]
"""The change (k, d) of the unknowns of the examples (k,) that one step on their common loss brings."""

_MOST_GROUPS = 32  # of one size: more would tell the mean no better


def cosines(update: Tensor, direction: Tensor) -> Tensor:
    """Cosine (b,) of the angles between updates and directions (b, d); 0 where one of them is zero.

    Each is scaled by its largest component first, for the squares of tiny ones would vanish.
    """
    one, other = (v / v.abs().amax(1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny) for v in (update, direction))
    lengths = one.norm(dim=1) * other.norm(dim=1)
    found: Tensor = (one * other).sum(1) / torch.where(lengths > 0, lengths, 1.0)
    return found.clamp(-1, 1)


def group_sizes(n: int) -> list[int]:
    """1, 2, 4, ... up to n, and n itself."""
    return [*(1 << i for i in range((n - 1).bit_length())), n] if n else []


def joint_alignment(update: Update, direction: Tensor, sizes: list[int], generator: torch.Generator) -> Tensor:
    """Cosines (len(sizes), n) between joint updates and the directions (n, d) to the solutions.

    For each size k the examples are drawn into groups of k, whose members are moved by one step on the sum of the
    group's losses. NaN for examples that are left over.
    """
    n = len(direction)
    found = direction.new_full((len(sizes), n), torch.nan)
    for row, k in zip(found, sizes, strict=True):
        groups = torch.randperm(n, generator=generator)[: n // k * k].reshape(-1, k)[:_MOST_GROUPS]
        for group in groups.to(direction.device):
            row[group] = cosines(update(group).to(direction.dtype), direction[group])
    return found
