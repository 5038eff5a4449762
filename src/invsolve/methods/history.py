"""The last steps of each row and what they tell of the inverse Hessian: the memory of L-BFGS.

Nocedal and Wright 2006, section 7.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from invsolve.engine import RowState

SAFE_CURVATURE = 1e-10  # of |s||y|, that s·y must be above


@dataclass
class History(RowState):
    """Up to m pairs of step s and change of the gradient y for each of b rows, in rings.

    The rings, (places, m, d), are written in place and never copied when rows come and go: a row has a place in them,
    and rows that leave make theirs free. Thus a state that has been advanced must not be used again.
    """

    s: Tensor  # (places, m, d)
    y: Tensor  # (places, m, d)
    place: Tensor  # (b,) int64, −1 until the row has learnt something
    count: Tensor  # (b,) int64: pairs learnt since the last reset; the ring holds the last m of them
    curvature: Tensor  # (b, m) s·y of each pair
    least: Tensor  # (b, m) below which the curvature of a part of the components is not safe

    @classmethod
    def empty(cls, z: Tensor, m: int) -> History:
        """The histories of fresh rows z (b, d)."""
        b, d = z.shape
        none = torch.zeros(b, dtype=torch.int64, device=z.device)
        nothing, zeros = z.new_zeros(0, m, d), z.new_zeros(b, m)
        return cls(s=nothing, y=nothing, place=none - 1, count=none, curvature=zeros, least=zeros)

    def combine(self, change: Callable[..., Tensor], *others: Self) -> Self:
        """As for every state, but the rings stay as they are; the rows of `others` must be fresh."""
        assert not any(len(other.s) for other in others)
        names = ("place", "count", "curvature", "least")
        return replace(self, **{k: change(getattr(self, k), *(getattr(o, k) for o in others)) for k in names})

    def learn(self, s: Tensor, y: Tensor, moved: Tensor) -> tuple[Self, Tensor]:
        """Keep the pairs s, y (b, d) of the rows `moved` (b,) whose curvature is safely positive; those are told."""
        curvature = _dot(s, y)
        least = SAFE_CURVATURE * s.norm(dim=1) * y.norm(dim=1)
        safe = moved & (curvature > least)
        rows = safe.nonzero().squeeze(1)
        if not len(rows):
            return self, safe
        kept = self._with_places(rows)
        slot = kept.count[rows] % kept.s.shape[1]
        place = kept.place[rows]
        kept.s[place, slot], kept.y[place, slot] = part(s, rows), part(y, rows)
        return replace(
            kept,
            count=kept.count + safe,
            curvature=kept.curvature.index_put((rows, slot), curvature[rows]),
            least=kept.least.index_put((rows, slot), least[rows]),
        ), safe

    def forget(self, rows: Tensor) -> Self:
        """The histories without what they knew in `rows` (b,) bool."""
        return replace(self, count=self.count.masked_fill(rows, 0))

    def _with_places(self, rows: Tensor) -> Self:
        """The histories with a place for each of the rows (k,)."""
        new = rows[self.place[rows] < 0]
        if not len(new):
            return self
        taken = torch.zeros(len(self.s), dtype=torch.bool, device=self.place.device)
        taken[self.place[self.place >= 0]] = True
        free = (~taken).nonzero().squeeze(1)
        more = len(new) - len(free)
        s, y = self.s, self.y
        if more > 0:
            # At once for all rows there are, for most of them will learn something in the same round.
            more = max(more, len(self.place) - len(s))
            free = torch.cat([free, torch.arange(len(s), len(s) + more, device=free.device)])
            s, y = (_lengthened(t, more) for t in (s, y))
        return replace(self, s=s, y=y, place=self.place.index_put((new,), free[: len(new)]))

    def scale(self) -> Tensor:
        """γ (b,) = s·y / y·y of the newest pair (N&W eq. 7.20); rows that know nothing have 1."""
        newest = (self.count - 1) % self.s.shape[1]
        known = self.count > 0
        gamma = torch.ones_like(self.curvature[:, 0])
        rows = known.nonzero().squeeze(1)
        if not len(rows):
            return gamma
        _, y = self._pairs(self.place[rows], newest[rows])
        return gamma.index_put((rows,), self.curvature[rows, newest[rows]] / _dot(y, y))

    def times(self, rows: Tensor, q: Tensor, free: Tensor | None = None) -> Tensor:
        """H q (k, d) for the rows (k,), H being their approximate inverse Hessian: two-loop recursion (N&W alg. 7.4).

        With `free` (k, d) bool, H is that of the free components by themselves: s, y and q are theirs alone, and pairs
        whose curvature is not safe there are left out. Other components of the result are 0.
        """
        m = self.s.shape[1]
        place, count = self.place[rows], self.count[rows]
        depth = int(count.max().clamp(max=m))
        q = q.clone() if free is None else torch.where(free, q, 0.0)
        gamma = torch.ones_like(q[:, 0])
        unset = torch.ones_like(gamma, dtype=torch.bool)
        weights = []
        for back in range(depth):  # from the newest to the oldest
            slot = (count - 1 - back) % m
            s, y = self._pairs(place, slot)
            sy = self.curvature[rows, slot]
            if free is not None:
                y = torch.where(free, y, 0.0)
                sy = _dot(s, y)
            used = (back < count) & (sy > self.least[rows, slot])
            rho = torch.where(used, 1 / sy, 0.0)
            alpha = rho * _dot(s, q)
            q.addcmul_(alpha[:, None], y, value=-1)
            newest = used & unset
            if bool(newest.any()):
                gamma = torch.where(newest, sy / _dot(y, y), gamma)
                unset &= ~newest
            weights.append((slot, rho, alpha))
        q *= gamma[:, None]
        for slot, rho, alpha in reversed(weights):
            s, y = self._pairs(place, slot)
            q.addcmul_((alpha - rho * _dot(y, q))[:, None], s if free is None else torch.where(free, s, 0.0))
        return q

    def _pairs(self, place: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
        """s and y (k, d) at a slot (k,) of each place (k,)."""
        if len(place) == 1:  # of one row, which may be very long, no copy is needed
            i, j = int(place), int(slot)
            return self.s[i, j][None], self.y[i, j][None]
        return self.s[place, slot], self.y[place, slot]


def part(t: Tensor, rows: Tensor) -> Tensor:
    """The rows (k,), in order, of t (b, ...), which is not copied where they are all of them."""
    return t if len(rows) == len(t) else t[rows]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None, :] @ b[:, :, None])[:, 0, 0]  # without a product as long as the rows


def _lengthened(ring: Tensor, more: int) -> Tensor:
    fresh = ring.new_zeros(len(ring) + more, *ring.shape[1:])
    fresh[: len(ring)] = ring
    return fresh
