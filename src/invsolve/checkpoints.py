"""When the state of a training is kept, so that a kill loses minutes of it and not all.

What is trained are objects that tell their state and take it back; where in their work that may be asked for, they say
themselves. They know no files, and this room knows nothing of what they do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from invsolve.control import Control
from invsolve.crew import ALONE, Crew
from invsolve.errors import OutputError, first_line

State = dict[str, Any]
"""Tensors, JSON values, and dicts of these, by name."""

_BETWEEN_LOOKS = 0.2  # seconds, from one agreement of a crew to the next
_SHARE = 20  # times as long as a checkpoint took, at least, is what is computed before the next


class Part(Protocol):
    """Something that a training is made of."""

    def state(self) -> State:
        """All that makes it go on as if nothing had happened. It may share memory with what is computed with.

        All members of a crew ask for it together.
        """
        ...

    def restore(self, state: State) -> None:
        """Become what gave this state, whose tensors are on the CPU and nobody else's."""
        ...


class Checkpoints:
    """Keeps the state of all parts of a training every so often, and when it is stopped.

    Args:
        keep: puts a state, with arrays for tensors, where a kill does no harm to it, and gives its size in bytes; None
            keeps nothing.
        earlier: what an earlier run kept, to be gone on from.
        every: seconds from one checkpoint to the next; more where one takes more than a twentieth of that.
        crew: those who train together. The first one's `keep` and clock count, the others' are to be like it.
    """

    def __init__(
        self,
        keep: Callable[[State], int] | None = None,
        earlier: State | None = None,
        *,
        every: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        crew: Crew = ALONE,
    ) -> None:
        self.crew = crew
        self._pace = _Pace(clock)
        self._put, self._earlier, self._every, self._clock = keep, dict(earlier or {}), every, clock
        self._parts: dict[str, Part] = {}
        self._due = clock() + every
        self._stopped = False
        self.failed = ""  # why a checkpoint could not be kept

    def follow(self, **parts: Part) -> None:
        """From now on these belong to what is kept; those of which an earlier run kept something go on from there."""
        for name, part in parts.items():
            self._parts[name] = part
            if name in self._earlier:
                part.restore(_each(self._earlier.pop(name), np.ndarray, torch.from_numpy))

    def stops(self, control: Control, *, over: bool = False) -> bool:
        """To be asked between steps, where the states of all parts belong together: whether to stop here.

        Then they are kept, or if it is time and the training is not `over`. Once it was said to stop nothing is kept
        any more: what still happens is the end of a run that was cut off, and no part of the training.
        """
        if self._stopped or (self.crew.size > 1 and self._pace.is_early() and not over):
            return self._stopped
        due = not over and self._clock() >= self._due
        self._stopped, due, self._pace.calls = self.crew.first((control.stopped, due, self._pace.calls_until_next()))
        if self._put is not None and (self._stopped or due):
            self._keep(self._put, control)
        return self._stopped

    def leaves(self, control: Control) -> bool:
        """To be asked where members of a crew may be at different places: whether to stop here.

        In a crew nothing is kept then, and all have to `agree` on it afterwards.
        """
        return self.stops(control) if self.crew.size == 1 else control.stopped

    def agree(self, left: bool) -> bool:
        """Whether any member of the crew was stopped in the middle, so that nothing is kept any more."""
        left = self.crew.any(left)
        self._stopped |= left
        return left

    def _keep(self, put: Callable[[State], int], control: Control) -> None:
        if self._earlier or not self._parts:  # what was kept is further than this; or nobody could go on from here
            return
        began, stage = self._clock(), list(self._parts)[-1]
        try:
            state = {name: part.state() for name, part in self._parts.items()}
            size = put(_each(state, Tensor, lambda t: t.detach().cpu().numpy()))
        except (OutputError, MemoryError) as error:  # the training is worth more; perhaps the next one can be kept
            if not self.failed:
                self.failed = first_line(error.__cause__ or error)
                control.tell("checkpoint", stage=stage, failed=self.failed)
        else:
            control.tell("checkpoint", stage=stage, bytes=size, took=round(self._clock() - began, 3))
        now = self._clock()
        self._due = now + max(self._every, _SHARE * (now - began))


class _Pace:
    """How many calls there are in a while: to agree on each takes longer than many a step."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._began = clock, clock()
        self.calls = self._made = 0

    def is_early(self) -> bool:
        """Whether it is not time yet; to be asked once in each call."""
        self._made += 1
        return self._made <= self.calls

    def calls_until_next(self) -> int:
        """After a call that was in time: how many there may be before the next such one."""
        now = self._clock()
        calls = int(self._made * _BETWEEN_LOOKS / max(now - self._began, 1e-6))
        self._began, calls = now, min(calls, 2 * self._made)  # the next ones may take longer
        self._made = 0
        return calls


def _each(state: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A state with all values of a kind changed."""
    if isinstance(state, dict):
        return {name: _each(value, kind, change) for name, value in state.items()}
    return change(state) if isinstance(state, kind) else state


class GlobalRandom:
    """Torch's global generators, as far as a training on this device draws from them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state(self) -> State:
        found: State = {"cpu": torch.get_rng_state()}
        return found | ({"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {})

    def restore(self, state: State) -> None:
        torch.set_rng_state(state["cpu"])
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """The moments of an optimizer, and its learning rates; all else of it is as it was made."""
    found = optimizer.state_dict()
    moments = {str(i): dict(of_one) for i, of_one in found["state"].items()}
    return {"moments": moments, "rates": [group["lr"] for group in found["param_groups"]]}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimizer that was made alike what `optimizer_state` told."""
    groups = optimizer.state_dict()["param_groups"]
    for group, rate in zip(groups, state["rates"], strict=True):
        group["lr"] = rate
    moments = {int(i): of_one for i, of_one in state["moments"].items()}
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
