"""Those who train together: each member computes its share of the examples, and all know what came of it.

All members make the same calls in the same order, and each comes back from them with the same.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


class Crew:
    """A crew of one, which has nobody to tell."""

    rank, size = 0, 1

    def share(self, n: int) -> tuple[int, int]:
        """Of n rows this member's: start ≤ i < stop."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def gather(self, mine: T) -> list[T]:
        """What each member has, in their order."""
        return [mine]

    def first(self, mine: T) -> T:
        """What the first member has."""
        return mine

    def any(self, mine: bool) -> bool:
        """Whether it is so for some member."""
        return any(self.gather(mine))

    def joined(self, mine: Tensor) -> Tensor:
        """The rows of all members, one member after another."""
        return mine

    def sum_(self, values: Tensor) -> Tensor:
        """The sum over all members, in place."""
        return values

    def least_(self, values: Tensor) -> Tensor:
        """The least of all members, element by element, in place."""
        return values

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network, the gradients of which are from now on the mean of those that all members have."""
        return network


ALONE = Crew()


class ProcessGroup(Crew):
    """The processes of torch's default group, which must have begun."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, mine: T) -> list[T]:
        """What each member has, in their order; by pickle."""
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, mine)
        return cast(list[T], found)

    def first(self, mine: T) -> T:
        """What the first member has; by pickle."""
        told = [mine]
        dist.broadcast_object_list(told)
        return told[0]

    def joined(self, mine: Tensor) -> Tensor:
        counts = self.gather(len(mine))
        padded = mine.new_zeros(max(counts), *mine.shape[1:])
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def sum_(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def least_(self, values: Tensor) -> Tensor:
        dist.all_reduce(values, dist.ReduceOp.MIN)
        return values

    def parallel(self, network: nn.Module) -> nn.Module:
        return DistributedDataParallel(network)
