"""Local solves of examples from several starts each, until enough of them agree on the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invsolve.control import Control, Progress
from invsolve.coordinates import FEW_UNNAMED
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.methods.base import Budget, Method
from invsolve.problem import Problem
from invsolve.sampling import Sampler

_MEMORY = 2**25  # numbers that the starts of some examples may take together: of larger ones, fewer at a time
_SAME_X = 1e-2  # typical changes between ends that are one minimum
_SAME_LOSS = 1e-3  # relative, between their losses
_ZERO = 1e-9  # of the loss of y = 0: losses below are no different
_LIKE = 10.0  # times the median of the others' losses, each relative to that of y = 0, below which one is like them
_UNLIKE_AGREE = 4  # times as many that must agree where it is not
_FITTED = 1e-6  # of that loss and of the first one, whichever is less: the same, where both are known
_DEAR = 40  # evaluations of a local solve, from which starts race
_LEGS = 5  # in those of the dearest solve
_HEAT = 8  # starts in a race, at most
_AHEAD = 4  # of them, of which one goes on
_PERFECT = 1e-12  # of the loss of y = 0: nothing better is looked for. Small, for y may be an offset and little else


@dataclass(frozen=True)
class Starts:
    """Where the local solves of n examples start, in the order in which they are tried."""

    points: Tensor  # (n, K, d)
    origins: Tensor  # (n, K) int8, see FoundBy
    agree: int  # an example is done once so many starts ended in its best minimum,
    least: int  # and so many were made
    first: Tensor | None = None  # (n,) loss at x0: what is left of it tells how good a fit is
    seen: RowResults | None = None  # what is known of the first points: where local solves ended, none begins again
    peers: bool = False  # whether one whose loss is far above that of most others needs more to agree
    race: bool = False  # whether few evaluations may decide which starts are solved from to the end


def search_in_parts(
    local: Method,
    problem: Problem,
    starts_of: Callable[[Problem, int], Starts],
    most: int,
    budget: Budget,
    control: Control,
    stage: str,
) -> RowResults:
    """The best end of each example, for as many of them at a time as memory allows.

    `starts_of(part, start)` gives the starts, `most` of each example, of the part whose first row is row `start`.
    """
    together = max(1, _MEMORY // (most * _numbers_of_a_start(problem)))
    parts = []
    for start in range(0, problem.n, together):
        part = problem.slice(start, min(start + together, problem.n))
        search = Search(local, part, starts_of(part, start), budget)
        parts.append(search.run(search.part_of(control, stage, problem, start)))
    return RowResults.joined(parts)


def _numbers_of_a_start(problem: Problem) -> int:
    """That a start takes: where it is and ends, and its example's data, of a quarter of the starts at a time."""
    known = problem.identifiers
    given = [] if known is None else list(known.values()) if isinstance(known, dict) else [known]
    data = sum(t[0].numel() for t in (problem.targets, problem.observed, problem.weight, *given) if t is not None)
    return 6 * problem.d + 1 + data // 4


class Search:
    """The starts of some examples, wave by wave: one, then up to the least number, then so many again or a quarter of
    those made.

    The first comes alone: where it leads to a perfect fit, or the budget suffices for no more, that is all. Examples
    that are settled are in no further wave. Where local solves are dear and end in several minima, all further starts
    race if they may: few evaluations show which are worth more (successive halving, Jamieson and Talwalkar 2016).

    Args:
        local: the method used from each start.
        problem: the examples, one a row.
        budget: of each example, shared by its starts.
    """

    def __init__(self, local: Method, problem: Problem, starts: Starts, budget: Budget) -> None:
        self.local, self.problem, self.starts, self.budget = local, problem, starts, budget
        self.limit = budget.limit(problem)
        z0 = problem.coordinates.to_solver(problem.x0)
        self.ends = Ends(problem, starts, z0, Sampler(problem, 0).units(z0))
        self.going = torch.ones(problem.n, dtype=torch.bool, device=z0.device)
        if problem.blank is not None:
            self.going &= ~problem.blank  # solved by anything: to start once tells as much
        if starts.seen is not None:
            self.ends.begin(starts.seen)
            self.going &= ~self.ends.settled()

    def run(self, control: Control) -> RowResults:
        """The best end of each example."""
        alone = ~self.going & (self.ends.made == 0)
        if bool(alone.any()) and not control.stopped:
            self._wave(alone[:, None] & self.ends.first(1), control)
        while not control.stopped and bool((which := self._next()).any()):
            self._wave(which, control)
            self.going &= ~self.ends.settled()
        if self.starts.race and not control.stopped and bool((which := self.ends.cut_off_at_best()).any()):
            self._advance(which, self.limit, control)
        return self.ends.results()

    def _next(self) -> Tensor:
        """Which starts (n, K) are next. Within a budget, no more than it suffices for by the dearest so far."""
        ends, least = self.ends, self.starts.least
        more = (ends.made // 4).clamp(min=least)
        count = torch.where(ends.made == 0, 1, torch.where(ends.made < least, least - ends.made, more))
        left = self.limit - self.problem.evaluations
        affordable = left // ends.dearest().clamp(min=1)
        if self.starts.race:
            race = self._race_next()
            count = torch.where(race, _HEAT, count)
            # All have a leg, a quarter another one, and one goes on to its end.
            entries = (left - ends.dearest()) // self._leg() * _AHEAD // (_AHEAD + 1)
            affordable = torch.where(race, entries, affordable)
        count = torch.minimum(count, affordable.clamp(min=1)).masked_fill(~self.going | (left < 1), 0)
        return ends.first(ends.made + count) & ~ends.first(ends.made)

    def _race_next(self) -> Tensor:
        """Which examples (n,) race: dear ones whose solves disagree, or ended far above those of most others."""
        ends = self.ends
        return (ends.dearest() >= _DEAR) & ((ends.made >= self.starts.least) | ends.unlike())

    def _leg(self) -> Tensor:
        """Evaluations (n,) that a start has in a race at first."""
        return (self.ends.dearest() // _LEGS).clamp(min=1)

    def _wave(self, which: Tensor, control: Control) -> None:
        """Solve the examples from the starts of the mask `which` (n, K): in turn, or in a race."""
        several = which.sum(1) > 1
        races = which & (self._race_next() & several)[:, None] if self.starts.race else torch.zeros_like(which)
        if bool((which & ~races).any()):
            self._advance(which & ~races, self.limit, control)
        leg = self._leg()
        while True:
            last = races.sum(1) == 1
            # To its end goes a start that has come below the best end so far: what leads to a better one does early.
            races &= ~last[:, None] | (self.ends.best <= self.ends.lowest_end()[:, None])
            if control.stopped or not bool(races.any()):
                break
            self._advance(races, torch.where(last, self.limit, leg), control)
            races = self.ends.ahead(races & (self.going & ~last)[:, None])

    def _advance(self, which: Tensor, most: Tensor, control: Control) -> None:
        """Solve from where the starts `which` (n, K) are, with `most` (n,) evaluations each of what they share."""
        # The first starts of all examples before any second one: whenever time runs out, all have had their share.
        ks, rows = which.T.nonzero(as_tuple=True)
        part = self.problem.select(rows)
        left = torch.minimum((self.limit - self.problem.evaluations) // which.sum(1).clamp(min=1), most)
        budget = replace(self.budget, limits=left[rows])
        solved = self.local.solve(part, self.ends.z[rows, ks], budget, control)
        self.problem.absorb(rows, part)
        self.ends.put(rows, ks, solved, part.evaluations)
        # Where a start took nothing, the budget does not suffice for another.
        took = torch.zeros_like(left).index_add_(0, rows, part.evaluations)
        self.going &= (took > 0) | ~which.any(1)

    def part_of(self, control: Control, stage: str, whole: Problem, before: int) -> Control:
        """The control of this part of a solve of `whole`, `before` examples of which came before these."""
        return control.seen_as(lambda p: self._seen(p, stage, whole, before))

    def _seen(self, p: Progress, stage: str, whole: Problem, before: int) -> Progress:
        most, made = self.starts.origins.shape[1], self.ends.made
        done = before + int((~self.going).sum())
        starts = most * done + int(made[self.going].sum()) + p.done
        losses = self.ends.best.amin(1)
        return Progress(
            stage=stage,
            total=whole.n,
            done=done,
            fraction=min(1.0, starts / (most * whole.n)),
            evaluations=int(whole.evaluations.sum()) + p.evaluations,
            losses=losses[torch.isfinite(losses)] if bool(made.any()) else p.losses,
        )


def perfect_loss(problem: Problem, first: Tensor | None = None) -> Tensor:
    """Losses (n,) of a problem's rows at which nothing better need be looked for, by those at x0 (n,) where known."""
    nothing = problem.loss_of_nothing()
    perfect = _PERFECT * nothing
    return perfect if first is None else torch.maximum(perfect, _FITTED * torch.minimum(nothing, first.to(nothing)))


def _is_minimum(status: Tensor) -> Tensor:
    """Whether local solves ended so by themselves: where a budget ended one is no minimum."""
    return (status == int(Status.CONVERGED)) | (status == int(Status.STALLED))


class Ends:
    """Where the starts of n examples ended, K at most of each; of those not made yet, where they will be."""

    def __init__(self, problem: Problem, starts: Starts, z0: Tensor, unit: Tensor | float) -> None:
        points = starts.points.clone()
        n, most, _ = points.shape
        self.starts, self.z0, self.unit = starts, z0, unit
        self.nothing = problem.loss_of_nothing()
        self.zero, self.perfect = _ZERO * self.nothing, perfect_loss(problem, starts.first)
        # Of the others the size tells how far apart two values are the same.
        self.sized = torch.tensor([p.spread is None and p.scale == "linear" for p in problem.parameters])
        self.z = points
        self.best = points.new_full((n, most), torch.inf)
        self.status = torch.full((n, most), int(Status.NOT_RUN), dtype=torch.int8, device=points.device)
        self.iterations = torch.zeros(n, most, dtype=torch.int64, device=points.device)
        self.evaluations = torch.zeros_like(self.iterations)
        self.new = torch.zeros(n, most, dtype=torch.bool, device=points.device)  # a minimum, no earlier one
        self.made = torch.zeros(n, dtype=torch.int64, device=points.device)

    def begin(self, seen: RowResults) -> None:
        """Take the first starts of those examples as made for which they are where a local solve ended by itself."""
        assert seen.found_by is not None
        which = (seen.found_by == int(FoundBy.LOCAL)) & _is_minimum(seen.status)
        self.best[which, 0], self.status[which, 0] = seen.best[which], seen.status[which]
        self.new[:, 0], self.made = which, self.made + which

    def first(self, count: Tensor | int) -> Tensor:
        """The first `count` (n,) starts of each example as a mask (n, K)."""
        numbers = torch.arange(self.best.shape[1], device=self.best.device)
        return numbers < torch.as_tensor(count, device=self.best.device).reshape(-1, 1)

    def put(self, rows: Tensor, ks: Tensor, solved: RowResults, evaluations: Tensor) -> None:
        """Take in what came of the starts `ks` (r,) of the examples `rows` (r,), each named once."""
        begun = self.status[rows, ks] == int(Status.NOT_RUN)
        self.made.index_add_(0, rows, begun.to(self.made.dtype))
        self.z[rows, ks], self.best[rows, ks] = solved.z, solved.best
        self.status[rows, ks] = solved.status
        self.iterations[rows, ks] += solved.iterations
        self.evaluations[rows, ks] += evaluations
        minimum = _is_minimum(self.status)
        for k in sorted(set(ks.tolist())):
            mine = rows[ks == k]
            known = (self._same(mine, torch.full_like(mine, k)) & minimum[mine])[:, :k].any(1)
            self.new[mine, k] = minimum[mine, k] & ~known

    def _same(self, rows: Tensor, k: Tensor) -> Tensor:
        """Which (r, K) ends of the examples `rows` (r,) are the minimum in which start k (r,) ended."""
        z, best, ends, losses = self.z[rows, k], self.best[rows, k], self.z[rows], self.best[rows]
        near = ((ends - z[:, None]).abs() <= (_SAME_X * self._typical(rows, z))[:, None]).all(2)
        close = (losses - best[:, None]).abs() <= (_SAME_LOSS * best.abs() + self.zero[rows])[:, None]
        return near & close & torch.isfinite(losses)

    def _typical(self, rows: Tensor, z: Tensor) -> Tensor:
        """A typical change (r, d) of each unknown, or (r, 1), near z (r, d).

        Where nothing is known of a named parameter, its typical change is at least its size.
        """
        if len(self.sized):
            return torch.where(self.sized.to(z.device), z.abs().clamp(min=1.0), 1.0)
        size = z.abs() if z.shape[1] <= FEW_UNNAMED else z.abs().amax(1, keepdim=True)
        return torch.maximum(size, self.unit[rows] if isinstance(self.unit, Tensor) else size)

    def dearest(self) -> Tensor:
        """Evaluations (n,) of the dearest start so far."""
        return self.evaluations.amax(1)

    def lowest_end(self) -> Tensor:
        """The least loss (n,) at which a start ended by itself, +inf where none did."""
        return self.best.masked_fill(~_is_minimum(self.status), torch.inf).amin(1)

    def ahead(self, which: Tensor) -> Tensor:
        """Of starts that were cut off, those of the mask (n, K), the best quarter of each example, one at least."""
        cut = which & (self.status == int(Status.BUDGET)) & (self.best.amin(1) > self.perfect)[:, None]
        place = self.best.masked_fill(~cut, torch.inf).argsort(1).argsort(1)
        return cut & (place < ((cut.sum(1) + _AHEAD - 1) // _AHEAD)[:, None])

    def cut_off_at_best(self) -> Tensor:
        """The best start of each example, as a mask (n, K), where it was cut off."""
        at_best = torch.zeros_like(self.new)
        at_best[torch.arange(len(self.best), device=self.best.device), self.best.argmin(1)] = True
        return at_best & (self.status == int(Status.BUDGET))

    def unlike(self) -> Tensor:
        """Whether (n,) the best loss of an example is far above that of most others."""
        best = self.best.amin(1)
        relative = best / self.nothing.clamp(min=torch.finfo(best.dtype).tiny)
        return relative > _LIKE * relative[torch.isfinite(relative)].median()

    def settled(self) -> Tensor:
        """Whether (n,) so many starts ended in the best minimum, or one fits perfectly, or none are left."""
        every, best = torch.arange(len(self.best), device=self.best.device), self.best.amin(1)
        agreeing, most = (self._same(every, self.best.argmin(1)) & _is_minimum(self.status)).sum(1), self.best.shape[1]
        agree = torch.full_like(agreeing, self.starts.agree)
        if self.starts.peers:
            agree = torch.where(self.unlike(), _UNLIKE_AGREE * agree, agree)
        enough = (agreeing >= agree) & (self.made >= min(self.starts.least, most))
        return enough | (best <= self.perfect) | (self.made == most)

    def results(self) -> RowResults:
        """The best end of each example, and what is told of all."""
        every, chosen = torch.arange(len(self.best), device=self.best.device), self.best.argmin(1)
        z, best = self.z[every, chosen], self.best[every, chosen]
        # An earlier start may have led to the same minimum, and be above by rounding.
        first = torch.minimum(chosen, self._same(every, chosen).int().argmax(1))
        found_by = self.starts.origins[every, first]
        nothing = ~torch.isfinite(best) | (z == self.z0).all(1)
        begun = torch.isfinite(self.best) | (self.status == int(Status.NONFINITE))
        return RowResults(
            z=z,
            status=self.status[every, chosen],
            iterations=self.iterations.sum(1),
            best=best,
            found_by=found_by.masked_fill(nothing, int(FoundBy.START)),
            starts=begun.sum(1),
            minima=self.new.sum(1),
        )
