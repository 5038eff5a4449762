"""A forward model together with rows of data: the loss, its gradient, and the count of what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from invsolve.coordinates import Coordinates
from invsolve.data.dataset import Rows
from invsolve.errors import DataError, InvsolveError, ModelError, first_line
from invsolve.histories import History
from invsolve.memory import Fitting, ran_out
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Uniform
from invsolve.penalty import Penalty
from invsolve.rows_apart import rows_apart
from invsolve.shapes import check_output
from invsolve.watchdog import Watch


@dataclass
class Conduct:
    """What a model has been seen to do, shared by all problems of a run."""

    proven: set[str] = field(default_factory=set)
    """What was computed without exception: "loss", "gradient", "Jacobian". Until then an exception is held against the
    model rather than against a row."""
    rows_apart: bool = False
    """Row i of y was seen to depend on no other row of x."""
    jacobian_by: str = ""
    """How the model's Jacobian was had, see `jacobian.linearized`; empty before the first."""
    first_error: tuple[int, str] | None = None
    """The first exception that was held against a row: its example and what it said."""
    fitting: Fitting = field(default_factory=Fitting)  # how many rows fit into memory together
    watch: Watch = field(default_factory=Watch)  # which evaluation is under way


_GUESSED_TOGETHER = 1024  # rows

LossOf = Callable[[Tensor], Tensor]
"""Losses (b,) of residuals (b, m)."""

_PROBED = 64  # rows in which it would show that a model mixes them


class Batch(NamedTuple):
    """The data of b rows that are evaluated together."""

    rows: Tensor  # (b,) their numbers in the problem
    targets: Tensor  # (b, m), m the components of a target
    observed: Tensor | None  # (b, m) bool, None where all is
    weight: Tensor | None  # (b, m) 1/σ, None where it is 1
    blank: Tensor | None  # (b,) bool: of which nothing was observed, None where there are none
    identifiers: Identifiers  # each (b, ...)

    def combine(self, change: Callable[..., Tensor], *others: Batch) -> Batch:
        """`change` applied to every tensor, together with those of the other batches at its place."""
        mine, theirs = self.tensors(), [other.tensors() for other in others]
        return self.rebuilt([change(*parts) for parts in zip(mine, *theirs, strict=True)])

    def select(self, keep: Tensor | slice) -> Batch:
        """The data of the rows at the places `keep`."""
        return self.combine(lambda t: t[keep])

    def tensors(self) -> list[Tensor]:
        """All that is there, in a fixed order."""
        known = self.identifiers
        given: list[Tensor] = [] if known is None else list(known.values()) if isinstance(known, dict) else [known]
        return [t for t in self[:-1] if t is not None] + given

    def rebuilt(self, tensors: Sequence[Tensor]) -> Batch:
        """A batch of the same make from what `tensors` would give."""
        parts = iter(tensors)
        fixed = [None if t is None else next(parts) for t in self[:-1]]
        known = self.identifiers
        given: Identifiers = {k: next(parts) for k in known} if isinstance(known, dict) else next(parts, None)
        return Batch(*fixed, given)  # type: ignore[arg-type, call-arg]


class Problem:
    """Some rows of a dataset under a forward model: L_i(x) and its gradient, counted per row.

    Solvers see z (b, d), see `Coordinates`, and with `prior` the sum of L_i and the prior's `Penalty`; `x0` (n, d) is
    the start in the user's flat x. `evaluations` and `gradients` (n,) int64 count the rows of F computed and
    differentiated since the problem was made; `history`, where it is kept, what was minimized meanwhile.

    Raises:
        DataError: x0 is outside the model's bounds, or with `prior` outside of a uniform prior.
        ModelError: by any evaluation: the model raises for every row, mixes rows, or returns something of a wrong type
            or shape.
    """

    def __init__(
        self,
        model: ForwardModel,
        rows: Rows,
        x_shape: tuple[int, ...],
        device: torch.device,
        dtype: torch.dtype,
        conduct: Conduct | None = None,
        *,
        prior: bool = False,
    ) -> None:
        n, d = len(rows), math.prod(x_shape)
        self.parameters = tuple(p.within_prior() if prior else p for p in model.parameters)
        self.penalty = Penalty(self.parameters, device, dtype) if prior else None
        self.model, self.x_shape, self.device, self.dtype = model, x_shape, device, dtype
        self.start, self.n, self.d = rows.start, n, d
        # The number of each row, where they are not in a row.
        self._examples = None if rows.numbers is None else torch.from_numpy(rows.numbers)
        self.has_sigma = rows.sigma is not None
        self.y_shape = rows.targets.shape[1:]
        self._strict_dtype = True
        self.conduct = Conduct() if conduct is None else conduct
        targets = torch.from_numpy(np.ascontiguousarray(rows.targets, dtype=np.float64)).reshape(n, -1)
        observed = ~torch.isnan(targets)
        self.observed = None if bool(observed.all()) else observed.to(device)
        # An example of which nothing was observed would be solved by anything: it counts as failed.
        self.blank = None if bool(observed.any(1).all()) else ~observed.any(1).to(device)
        self.targets = targets.to(device, dtype)
        self.weight = self._weights(rows)
        self.identifiers = self._identifiers(rows)
        # Made now, for torch.func would keep hold of what is made within one of its transformations.
        model.constants(torch.empty(0, device=device, dtype=dtype))
        self.coordinates = Coordinates(self.parameters, d, device, dtype)
        self._exact_x0 = self._start(rows)
        self.x0 = self._exact_x0.to(device, dtype)
        self.evaluations = torch.zeros(n, dtype=torch.int64, device=device)
        self.gradients = torch.zeros(n, dtype=torch.int64, device=device)
        self.history: History | None = None

    def _weights(self, rows: Rows) -> Tensor | None:
        if rows.sigma is None:
            return None
        sigma = np.broadcast_to(np.asarray(rows.sigma, dtype=np.float64), rows.targets.shape)
        return torch.from_numpy(1 / sigma).reshape(len(rows), -1).to(self.device, self.dtype)

    def _identifiers(self, rows: Rows) -> Identifiers:
        def tensor(array: np.ndarray) -> Tensor:
            if array.dtype.kind == "f":
                return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)).to(self.device, self.dtype)
            # Integers may be indices of the user's, so they stay integers; torch computes with signed ones only.
            if array.dtype == np.uint64 and bool((array >= 2**63).any()):
                raise DataError(f"identifiers hold {array.max()}, which no signed integer can; store them as float64")
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(self.device)

        if isinstance(rows.identifiers, dict):
            return {k: tensor(v) for k, v in rows.identifiers.items()}
        return None if rows.identifiers is None else tensor(rows.identifiers)

    def _start(self, rows: Rows) -> Tensor:
        if rows.x0 is not None:
            x0 = np.broadcast_to(np.asarray(rows.x0, dtype=np.float64), (self.n, *self.x_shape))
            start = torch.from_numpy(x0.copy())
        else:
            start = self._guess()
        start = start.reshape(self.n, self.d)
        for j, p in enumerate(self.parameters):
            outside = (start[:, j] < p.lower) | (start[:, j] > p.upper)
            if bool(outside.any()):
                i = int(outside.nonzero()[0])
                what = "x0" if rows.x0 is not None else f"the initial guess of model '{self.model.name}'"
                limits = "bounds" if self.penalty is None else "bounds and prior"
                raise DataError(
                    f"{what} of example {self.example(i)} has {p.name} = {start[i, j]:g}, outside the {limits} "
                    f"[{p.lower:g}, {p.upper:g}]; move it inside"
                )
        return start

    def _guess(self) -> Tensor:
        try:
            # Few rows at a time, which stay in cache.
            rows = torch.split(torch.arange(self.n, device=self.device), _GUESSED_TOGETHER)
            start = torch.cat([part for some in rows for part in self._guesses(some)])
        except InvsolveError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelError(f"initial_guess of model '{self.model.name}' raises {first_line(error)}") from error
        if tuple(start.shape) != (self.n, *self.x_shape):
            raise ModelError(
                f"initial_guess of model '{self.model.name}' has shape {tuple(start.shape)}; "
                f"{(self.n, *self.x_shape)} is needed for these data"
            )
        if self.penalty is not None:  # the model guesses without regard to its priors
            for j, p in enumerate(self.parameters):
                if isinstance(p.prior, Uniform):
                    start[:, j].clamp_(p.lower, p.upper)
        return start

    def _guesses(self, rows: Tensor) -> list[Tensor]:
        def of_part(part: slice | None) -> Tensor:
            some = rows if part is None else rows[part]
            targets = self.targets[some].reshape(len(some), *self.y_shape)
            known = _apply(self.identifiers, lambda t: t[some])
            guess = self.conduct.watch.call(lambda: self.model.initial_guess(targets, known), self, some)
            return torch.as_tensor(guess).detach().double().cpu()

        return self.conduct.fitting.in_parts(of_part, len(rows), "loss", self.model.name)

    def slice(self, start: int, stop: int) -> Problem:
        """Rows start ≤ i < stop of this problem, sharing its memory and its counts."""
        part = object.__new__(Problem)
        part.__dict__.update(self.__dict__)
        for name in ("targets", "observed", "blank", "weight", "_exact_x0", "x0", "evaluations", "gradients"):
            tensor = getattr(self, name)
            setattr(part, name, None if tensor is None else tensor[start:stop])
        part.identifiers = _apply(self.identifiers, lambda t: t[start:stop])
        part.history = None if self.history is None else self.history.slice(start, stop)
        part.start, part.n = self.start + start, stop - start
        part._examples = None if self._examples is None else self._examples[start:stop]
        return part

    def example(self, row: int) -> int:
        """The number, in the data, of the example in a row."""
        return self.start + row if self._examples is None else int(self._examples[row])

    @property
    def examples(self) -> Tensor:
        """The numbers (n,) of all rows' examples, on the CPU."""
        return torch.arange(self.start, self.start + self.n) if self._examples is None else self._examples

    def select(self, rows: Tensor) -> Problem:
        """The rows (b,), which may be repeated, as a problem of their own, whose counts begin at zero.

        What was made of it is told to this one by `absorb`.
        """
        part = object.__new__(Problem)
        part.__dict__.update(self.__dict__)
        for name in ("targets", "observed", "blank", "weight", "_exact_x0", "x0"):
            tensor = getattr(self, name)
            setattr(part, name, None if tensor is None else tensor[rows.to(tensor.device)])
        part.identifiers = _apply(self.identifiers, lambda t: t[rows])
        part.n, part._examples = len(rows), self.examples[rows.cpu()]
        part.evaluations, part.gradients = torch.zeros_like(rows), torch.zeros_like(rows)
        part.history = None if self.history is None else History.empty(len(rows), self.device)
        return part

    def absorb(self, rows: Tensor, part: Problem) -> None:
        """Count what was computed of the rows (b,) that `part` was selected as; repeated ones one after another."""
        if self.history is not None and part.history is not None:
            self.history.absorb(rows, part.history, self.evaluations[rows], part.evaluations)
        self.count(rows, evaluations=part.evaluations, gradients=part.gradients)

    def note(self, rows: Tensor, objective: Tensor) -> None:
        """These (b,) are known by now of the rows (b,), as points that may become their solutions."""
        if self.history is not None:
            self.history.note(rows, self.evaluations[rows], objective)

    def in_float64(self, rows: Rows) -> Problem:
        """The same rows at full precision, sharing this problem's counts; what the evaluator scores with."""
        if self.dtype == torch.float64:
            return self
        prior = self.penalty is not None
        rows = replace(rows, x0=self._exact_x0.reshape(self.n, *self.x_shape).numpy())  # not to be guessed anew
        exact = Problem(self.model, rows, self.x_shape, self.device, torch.float64, self.conduct, prior=prior)
        exact.evaluations, exact.gradients, exact.history = self.evaluations, self.gradients, self.history
        exact._strict_dtype = False
        return exact

    def batch(self, rows: Tensor) -> Batch:
        """The data of the rows (b,), which may be repeated."""

        def pick(t: Tensor | None) -> Tensor | None:
            return None if t is None else t[rows]

        return Batch(
            rows, self.targets[rows], pick(self.observed), pick(self.weight), pick(self.blank),
            _apply(self.identifiers, pick),
        )  # fmt: skip

    def evaluate(self, rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (b,), the prior's penalty included, and ∂L/∂z (b, d) of the rows (b,) at z (b, d), for a solver.

        Where F or its gradient fails, or nothing was observed, the loss is +inf and the gradient 0. Counted.
        """
        loss, gradient = self.attempt(self.objective, "gradient", self.batch(rows), z, failed=self.nowhere(z))
        self.count(rows, evaluations=1, gradients=1)
        return loss, gradient

    @staticmethod
    def nowhere(z: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (1,) and gradient (1, d) of a row where F fails, as a solver is told them."""
        return z.new_full((1,), torch.inf), torch.zeros_like(z[:1])

    def objective(
        self, batch: Batch, z: Tensor, *, differentiate: bool = True, loss_of: LossOf | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `evaluate` gives, not counted; what the model raises is not held back.

        `loss_of` residuals (b, m) is another loss (b,) than ½ of their squares. Unless `differentiate` the gradient is
        that of the penalty alone.
        """
        x = self.coordinates.to_user(z)
        loss, gradient = self._loss_and_gradient(batch, x, differentiate=differentiate, loss_of=loss_of)
        # One test for both: NaN and Inf stay so in a sum, and a product with zero makes either NaN.
        finite = torch.isfinite(loss + (gradient * 0).sum(1))
        slope = self.coordinates.slope(x)
        gradient = gradient * slope
        if self.penalty is not None:
            loss, gradient = loss + self.penalty.loss(x), gradient + self.penalty.gradient(x, slope)
        return loss.masked_fill(~finite, torch.inf), gradient.masked_fill(~finite[:, None], 0.0)

    def evaluate_user(self, rows: Tensor, x: Tensor, *, differentiate: bool = True) -> tuple[Tensor, Tensor]:
        """Loss (b,) of the data alone and ∂L/∂x (b, d) at the user's x (b, d), as they are. Counted.

        The loss is +inf where F fails. Where only the gradient fails it holds NaN or Inf;
        unless `differentiate` it is 0.
        """
        compute: Callable[..., tuple[Tensor, Tensor]] = partial(self._loss_and_gradient, differentiate=differentiate)
        parts = [(compute, slice(None))]
        if not differentiate and not self.conduct.rows_apart and len(rows) > 1:
            # The first scoring, which needs no gradient, has one made of a few rows for what it tells of the model.
            parts = [(self._probed_loss, slice(_PROBED)), (compute, slice(_PROBED, None))]
        failed = x.new_full((1,), torch.inf), torch.full_like(x[:1], torch.nan)
        what = "gradient" if differentiate else "loss"
        found = [
            self.attempt(compute, what, self.batch(rows[part]), x[part], failed=failed)
            for compute, part in parts
            if len(rows[part])
        ]
        loss, gradient = (torch.cat(some) for some in zip(*found, strict=True))
        self.count(rows, evaluations=1, gradients=int(differentiate))
        return torch.where(torch.isfinite(loss), loss, torch.inf), gradient

    def count(self, rows: Tensor, *, evaluations: int | Tensor, gradients: int | Tensor) -> None:
        """Add what was computed of each of the rows (b,), the same for all or (b,)."""
        for counts, more in ((self.evaluations, evaluations), (self.gradients, gradients)):
            if isinstance(more, Tensor) or more:
                counts.index_add_(0, rows, torch.as_tensor(more, device=rows.device).expand_as(rows))

    def attempt(
        self,
        compute: Callable[..., tuple[Tensor, ...]],
        what: str,
        batch: Batch,
        *args: Tensor,
        failed: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """`compute(batch, *args)`, losses (b,) and what belongs to them; where the model raises, rows apart.

        Then the batch is halved until the guilty rows stand alone, whose results are `failed`, each (1, ...). `args`
        and results have one row for each of the batch. `what` is computed, see `Conduct.proven`. Rows that do not fit
        into memory together are computed in parts.

        Raises:
            ModelError: the model raises for every row, or is wrong in itself.
            OptionError: a single row does not fit.
        """

        def of_part(part: slice | None) -> tuple[Tensor, ...]:
            if part is None:
                return self._attempt(compute, what, batch, args, failed)
            return self._attempt(compute, what, batch.select(part), tuple(a[part] for a in args), failed)

        found = self.conduct.fitting.in_parts(of_part, len(batch.rows), what, self.model.name)
        return found[0] if len(found) == 1 else tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _attempt(
        self,
        compute: Callable[..., tuple[Tensor, ...]],
        what: str,
        batch: Batch,
        args: tuple[Tensor, ...],
        failed: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        try:
            result = self.conduct.watch.call(lambda: compute(batch, *args), self, batch.rows)
        except InvsolveError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's model raises
            if ran_out(error):
                raise
            if what not in self.conduct.proven and self._raises_everywhere(differentiate=what != "loss"):
                self._refuse(batch.rows, error)
            text = first_line(error)
        else:
            self.conduct.proven.add(what)
            return result
        # Here the exception is gone, and with it the memory of what was computed.
        half = len(batch.rows) // 2
        if not half:
            self.conduct.first_error = self.conduct.first_error or (self.example(int(batch.rows[0])), text)
            return failed
        first, second = (
            self.attempt(compute, what, batch.select(part), *(a[part] for a in args), failed=failed)
            for part in (slice(None, half), slice(half, None))
        )
        return tuple(torch.cat(pair) for pair in zip(first, second, strict=True))

    def _loss_and_gradient(
        self, batch: Batch, x: Tensor, *, differentiate: bool, loss_of: LossOf | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss (b,) of the data and ∂L/∂x (b, d), 0 unless `differentiate`, as they are."""
        with torch.set_grad_enabled(differentiate):
            x = x.detach().requires_grad_(differentiate)
            loss = self._data_loss(batch, self.residual(batch, x), loss_of)
            if not differentiate:
                return loss, torch.zeros_like(x)
            (gradient,) = torch.autograd.grad(loss.sum(), x)
        return loss.detach(), gradient

    def _probed_loss(self, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            probed = x.detach().requires_grad_()
            y = self.predict(batch, probed)
        self.conduct.rows_apart, guilty = rows_apart(y, probed)
        if guilty is not None:
            j = self.example(int(batch.rows[guilty]))
            raise ModelError(
                f"model '{self.model.name}' mixes rows: x of example {j} changes y of others; row i of y must come "
                f"from row i alone (look for a sum or mean over axis 0, or a solver with steps that all rows share)"
            )
        return self.loss_at(batch, y.detach()), torch.zeros_like(x)

    def loss_at(self, batch: Batch, y: Tensor) -> Tensor:
        """Loss (b,) of the data where F gave y (b, *y_shape)."""
        return self._data_loss(batch, self._weighted(batch, y))

    @staticmethod
    def _data_loss(batch: Batch, residual: Tensor, loss_of: LossOf | None = None) -> Tensor:
        loss = 0.5 * residual.square().sum(1) if loss_of is None else loss_of(residual)
        return loss if batch.blank is None else loss.masked_fill(batch.blank, torch.inf)

    def loss_of_nothing(self) -> Tensor:
        """Loss (n,) of y = 0: how large losses are, whatever F gives."""
        seen = self.targets if self.observed is None else self.targets.masked_fill(~self.observed, 0.0)
        return 0.5 * (seen if self.weight is None else seen * self.weight).square().sum(1)

    def residual(self, batch: Batch, x: Tensor) -> Tensor:
        """(F − y*) / σ (b, m) at the user's x (b, d), zero where nothing was observed; differentiable, not counted."""
        return self._weighted(batch, self.predict(batch, x))

    def predict(self, batch: Batch, x: Tensor) -> Tensor:
        """y (b, *y_shape) at the user's x (b, d); not counted."""
        known = batch.identifiers
        given: list[Tensor] = [] if known is None else list(known.values()) if isinstance(known, dict) else [known]
        before = [t._version for t in given]
        # A dict of its own: what the model does to it is not to be seen by the next call.
        known = dict(known) if isinstance(known, dict) else known
        given_x = x.reshape(len(x), *self.x_shape)
        y: Tensor = self.conduct.watch.call(lambda: self.model(given_x, known), self, batch.rows)
        if any(t._version != v for t, v in zip(given, before, strict=True)):
            raise ModelError(
                f"model '{self.model.name}' changes its identifiers in place; make new tensors instead (g = 2 * g, not "
                f"g *= 2)"
            )
        wanted = self.dtype if self._strict_dtype else None
        check_output(y, x, (self.x_shape, tuple(self.y_shape)), self.model.name, self.example(0), wanted)
        return y

    def _weighted(self, batch: Batch, y: Tensor) -> Tensor:
        residual = y.reshape(len(y), -1).to(self.dtype) - batch.targets
        if batch.observed is not None:
            residual = torch.where(batch.observed, residual, 0.0)
        return residual if batch.weight is None else residual * batch.weight

    def _raises_everywhere(self, *, differentiate: bool) -> bool:
        """Whether none of up to 64 rows can be evaluated alone at its start.

        Where F itself was seen to work, a row for which it raises says nothing of the gradient.
        """
        proven, guilty = "loss" in self.conduct.proven, False
        for i in torch.linspace(0, self.n - 1, min(self.n, 64)).round().long().tolist():
            row = self.batch(torch.tensor([i], device=self.device))
            works = False
            try:
                self._loss_and_gradient(row, self.x0[row.rows], differentiate=False)
                works = True
                self._loss_and_gradient(row, self.x0[row.rows], differentiate=differentiate)
            except InvsolveError:
                raise
            except (Exception, SystemExit):
                guilty = guilty or works or not proven
                continue
            return False
        return guilty

    def _refuse(self, rows: Tensor, error: BaseException) -> NoReturn:
        shapes: object = None
        if isinstance(self.identifiers, dict):
            shapes = {k: tuple(v.shape[1:]) for k, v in self.identifiers.items()}
        elif self.identifiers is not None:
            shapes = tuple(self.identifiers.shape[1:])
        raise ModelError(
            f"model '{self.model.name}' raises {first_line(error)} (at example {self.example(int(rows[0]))}; each "
            f"example's x {self.x_shape}, identifiers {shapes}, target {tuple(self.y_shape)})"
        ) from error


def _apply(identifiers: Identifiers, change: Callable[[Tensor], Tensor | None]) -> Identifiers:
    if isinstance(identifiers, dict):
        return {k: v for k, t in identifiers.items() if (v := change(t)) is not None}
    return None if identifiers is None else change(identifiers)
