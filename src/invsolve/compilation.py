"""Compiled rounds: F with its derivatives as one kernel, and the transition of all rows as another.

What a stepper computes is recorded once as a graph of tensor operations, gradients and forward derivatives included,
and compiled by torch's inductor for one number of rows. So the Jacobian of a Gauss–Newton matrix is never stored, and
the many small operations of a transition become one loop.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

from invsolve.engine import (
    CompilableStepper,
    Evaluation,
    Kernels,
    RowState,
    RowStepper,
    Slots,
    advance_slots,
)
from invsolve.errors import InvsolveError, ModelError, first_line
from invsolve.memory import ran_out, release
from invsolve.problem import Batch, Problem
from invsolve.tracing import traced

S = TypeVar("S", bound=RowState)
Function = Callable[..., Sequence[Tensor]]

SECONDS_PER_OPERATION = 0.02  # what the compiler takes for an operation of the graph, about
SECONDS_AT_LEAST = 8.0


class CompiledKernels(Kernels):
    """The two computations of a round of a `CompilableStepper`, compiled for `width` rows when they are first called.

    Where memory runs out, `too_large` becomes true and the rounds go on as they are written.

    Raises:
        ModelError: at the first call: the model does not compile, or gives something else when it is compiled.
    """

    def __init__(self, width: int, affordable: float = float("inf")) -> None:
        self.width: int = width
        self.affordable = affordable  # seconds that compiling may take
        self.seconds = 0.0
        self.too_large = False  # for the memory: nothing more is computed by them
        self._evaluate: Function | None = None
        self._advance: Function | None = None
        self._made_for: object = None

    def evaluate(self, stepper: RowStepper[S], problem: Problem, batch: Batch, slots: Slots[S]) -> Evaluation:
        if not self.too_large:
            try:
                return self._compiled_evaluation(stepper, problem, batch, slots)
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
            self.too_large = True
            release()
        return super().evaluate(stepper, problem, batch, slots)

    def _compiled_evaluation(
        self, stepper: RowStepper[S], problem: Problem, batch: Batch, slots: Slots[S]
    ) -> Evaluation:
        inputs = [slots.trial, *slots.state.tensors(), *batch.tensors()]
        made_for = [(t.shape, t.dtype) for t in inputs]
        if self._evaluate is None or made_for != self._made_for:  # gaps or σ may be in some ranges only
            known, compilable = len(slots.state.tensors()), cast(CompilableStepper[S], stepper)

            def compute(trial: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
                state, data = slots.state.rebuilt(others[:known]), batch.rebuilt(others[known:])
                found = compilable.compute(problem, data, state, trial)
                return found.loss, *found.derivatives, found.evaluations, found.gradients

            self._evaluate, self._made_for = self._compiled(compute, inputs, problem), made_for
        with torch.no_grad():
            evaluated = self._evaluate
            found = problem.conduct.watch.call(lambda: evaluated(*inputs), problem, batch.rows)
        loss, *derivatives, evaluations, gradients = found
        return Evaluation(loss, tuple(derivatives), evaluations, gradients)

    def advance(self, stepper: RowStepper[S], slots: Slots[S], found: Evaluation) -> Slots[S]:
        known = slots.tensors()
        inputs = [*known, found.loss, *found.derivatives, found.evaluations, found.gradients]
        if self._advance is None:

            def transition(*tensors: Tensor) -> list[Tensor]:
                loss, *derivatives, evaluations, gradients = tensors[len(known) :]
                before = slots.rebuilt(tensors[: len(known)])
                after = advance_slots(stepper, before, Evaluation(loss, tuple(derivatives), evaluations, gradients))
                return after.tensors()

            self._advance = self._compiled(transition, inputs, None)
        with torch.no_grad():
            return slots.rebuilt(self._advance(*inputs))

    def _compiled(self, function: Function, inputs: list[Tensor], problem: Problem | None) -> Function:
        began = time.monotonic()
        try:
            with _quiet(), torch.no_grad():  # as it is called later: else it would be compiled anew
                compiled = record_and_compile(function, inputs, self.affordable)
                compiled(*inputs)
        except ModelError:
            raise
        except (Exception, SystemExit) as error:  # whatever the compiler, or the user's code in it, raises
            if ran_out(error):
                raise
            what = f"model '{problem.model.name}'" if problem is not None else "the method"
            raise ModelError(f"{what} does not compile: {first_line(error)}") from error
        if problem is not None:
            rolled = [t.roll(1, 0) for t in inputs]
            for trial in (rolled[0], _elsewhere(rolled[0], problem)):
                _check_same(function, compiled, [trial, *rolled[1:]], problem)
        self.seconds += time.monotonic() - began
        self.affordable = float("inf")  # what was begun is not given up for a range with gaps, or σ, of another kind
        return compiled


def record_and_compile(function: Function, inputs: list[Tensor], affordable: float = float("inf")) -> Function:
    """Machine code of a function of tensors, for inputs of these shapes.

    Raises:
        ModelError: that would take longer than `affordable` seconds, by the number of operations.
    """
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    # Each input a tensor of its own: two that are one now would be recorded as one for ever.
    with traced():
        graph = make_fx(function)(*(t.clone() for t in inputs))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    operations = len(graph.graph.nodes)
    estimate = SECONDS_AT_LEAST + SECONDS_PER_OPERATION * operations
    if estimate > affordable:
        raise ModelError(f"{operations} operations take about {estimate:.0f} s to compile, more than that would save")
    # Not `torch.compile`: what it would see to, that each call's tensors are like these, is so, and takes as long as a
    # round of a small model.
    compiled: Function = torch._inductor.compile(graph, list(inputs))
    return compiled


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the compiler warns of, which is no concern of the user's."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _elsewhere(z: Tensor, problem: Problem) -> Tensor:
    """Points z (b, d) moved by up to half a unit, each row differently: often all rows start from one x0."""
    unit = z.abs().masked_fill(z == 0, 1.0) if not problem.parameters else torch.ones_like(z)
    angle = torch.arange(1, z.numel() + 1, device=z.device, dtype=z.dtype).reshape(z.shape)
    return (z + 0.5 * unit * angle.cos()).clamp(problem.coordinates.lower, problem.coordinates.upper)


def _check_same(function: Function, compiled: Function, inputs: list[Tensor], problem: Problem) -> None:
    """See that the compiled function depends on its inputs as the function does.

    A model that leaves torch, or that branches on values, is recorded with the values of the moment. With the inputs of
    the rows exchanged, or at other points, it gives itself away.
    """
    try:
        with torch.no_grad():
            pairs = list(zip(function(*inputs), compiled(*inputs), strict=True))
    except InvsolveError:
        raise
    except (Exception, SystemExit) as error:  # where a value decides whether it raises, that is a branch as well
        if ran_out(error):
            raise
        raise ModelError(f"model '{problem.model.name}' does not compile: {first_line(error)}") from error
    worst = max(_median_error(a, b) for a, b in pairs if a.is_floating_point())
    if not worst <= torch.finfo(problem.dtype).eps ** 0.5:
        raise ModelError(
            f"model '{problem.model.name}' gives something else when it is compiled, by {worst:.1g} of itself; it may "
            f"branch on values, or leave torch"
        )


def _median_error(expected: Tensor, found: Tensor) -> float:
    """Of rows (b, ...) relative to their largest component; infinite where others are finite."""
    a, b = expected.reshape(len(expected), -1), found.reshape(len(found), -1)
    known = torch.isfinite(a).all(1)
    if not torch.equal(known, torch.isfinite(b).all(1)):
        return float("inf")
    if not bool(known.any()):
        return 0.0
    difference, size = (a - b)[known].abs().amax(1), a[known].abs().amax(1)
    return float((difference / size.clamp(min=torch.finfo(a.dtype).tiny)).median())
