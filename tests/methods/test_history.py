"""The memory of L-BFGS against dense matrices made of the same pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.methods.history import History

M, D = 3, 7


def dense(pairs: list[tuple[Tensor, Tensor]], free: Tensor) -> Tensor:
    """H (d, d) from pairs, the oldest first, on the `free` components: BFGS updates of γI (N&W eq. 6.17 and 7.20)."""
    eye = torch.eye(D, dtype=torch.float64)
    pairs = [(torch.where(free, s, 0.0), torch.where(free, y, 0.0)) for s, y in pairs]
    pairs = [(s, y) for s, y in pairs if s @ y > 1e-10]
    h = eye if not pairs else eye * (pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1])
    for s, y in pairs:
        v = eye - torch.outer(y, s) / (s @ y)
        h = v.T @ h @ v + torch.outer(s, s) / (s @ y)
    return torch.where(free, 1.0, 0.0)[:, None] * h * free


class Reference:
    """What each example has learnt, kept in lists."""

    def __init__(self, n: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        a = self.draw(n, D, D)
        self.hessians = a @ a.mT + 0.1 * torch.eye(D, dtype=torch.float64)
        self.pairs: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(n)]

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)

    def learn(self, history: History, rows: list[int], moved: list[bool]) -> History:
        """A pair for each of the examples `rows`; where not `moved`, and for backward steps, it must be left out."""
        s = self.draw(len(rows), D)
        y = (self.hessians[rows] @ s[:, :, None])[:, :, 0]
        backward = torch.rand(len(rows), generator=self.generator) < 0.2
        y[backward] *= -1
        history, learnt = history.learn(s, y, torch.tensor(moved))
        for k, i in enumerate(rows):
            assert bool(learnt[k]) == (moved[k] and not bool(backward[k]))
            if learnt[k]:
                self.pairs[i] = [*self.pairs[i], (s[k], y[k])][-M:]
        return history

    def check(self, history: History, rows: list[int], free: Tensor | None = None) -> None:
        """The recursion gives what the dense matrices of the examples `rows` give, for any part of them."""
        q = self.draw(len(rows), D)
        for part in (torch.arange(len(rows)), torch.arange(len(rows))[::2], torch.arange(len(rows))[:1]):
            found = history.times(part, q[part], None if free is None else free[part])
            for k, j in enumerate(part.tolist()):
                mask = torch.ones(D, dtype=torch.bool) if free is None else free[j]
                torch.testing.assert_close(found[k], dense(self.pairs[rows[j]], mask) @ q[j], rtol=1e-9, atol=1e-9)


def test_it_is_the_dense_formula_while_rings_fill_and_turn() -> None:
    known, rows = Reference(4, seed=1), [0, 1, 2, 3]
    history = History.empty(known.draw(4, D), M)
    for turn in range(9):  # the rows learn at different times, so that their rings stand at different places
        history = known.learn(history, rows, [turn % 2 == 0, True, turn < 2, turn % 3 == 0])
        known.check(history, rows)
    assert [len(p) for p in known.pairs] != [M] * 4


def test_free_components_have_an_inverse_hessian_of_their_own() -> None:
    known, rows = Reference(5, seed=2), [0, 1, 2, 3, 4]
    history = History.empty(known.draw(5, D), M)
    free = torch.rand(5, D, generator=known.generator) < 0.6
    free[4] = False
    for _ in range(6):
        history = known.learn(history, rows, [True] * 5)
        known.check(history, rows, free)


def test_the_scale_is_that_of_the_newest_pair() -> None:
    known, rows = Reference(3, seed=3), [0, 1, 2]
    history = History.empty(known.draw(3, D), M)
    assert history.scale().tolist() == [1, 1, 1]
    for _ in range(5):
        history = known.learn(history, rows, [True, True, False])
        for k, pairs in enumerate(known.pairs):
            expected = pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1]) if pairs else 1.0
            torch.testing.assert_close(history.scale()[k], torch.as_tensor(expected, dtype=torch.float64))


def test_rows_come_and_go_without_mixing_nor_moving_the_rings() -> None:
    known, rows = Reference(12, seed=4), [0, 1, 2, 3]
    history = History.empty(known.draw(4, D), M)
    history = known.learn(history, rows, [True] * 4)
    ring = history.s.data_ptr(), history.y.data_ptr()
    for following in range(4, 12):
        leaves = int(torch.randint(len(rows), (1,), generator=known.generator))
        history = history.put(torch.tensor([leaves]), History.empty(known.draw(1, D), M))
        rows[leaves] = following
        for _ in range(2):
            history = known.learn(history, rows, [True] * 4)
            known.check(history, rows)
    assert (history.s.data_ptr(), history.y.data_ptr()) == ring


def test_more_rows_than_places_keep_what_they_know() -> None:
    known = Reference(6, seed=5)
    history = known.learn(History.empty(known.draw(6, D), M), list(range(6)), [True, True] + [False] * 4)
    history = known.learn(history, list(range(6)), [True] * 6)
    known.check(history, list(range(6)))
    placed = [place for place in history.place.tolist() if place >= 0]
    assert len(placed) == len(set(placed)) == sum(bool(pairs) for pairs in known.pairs)


def test_forgetting_leaves_the_other_rows_alone() -> None:
    known, rows = Reference(3, seed=6), [0, 1, 2]
    history = History.empty(known.draw(3, D), M)
    for _ in range(4):
        history = known.learn(history, rows, [True] * 3)
    history = history.forget(torch.tensor([False, True, False]))
    known.pairs[1] = []
    known.check(history, rows)
    history = known.learn(history, rows, [True] * 3)
    known.check(history, rows)
