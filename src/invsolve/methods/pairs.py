"""The pairs that a network is trained on, as many as memory is for."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.checkpoints import State
from invsolve.networks.features import Features

MEMORY = 2**28  # bytes of pairs that are kept; older ones make room


class Pairs:
    """What a network would see, and the `outputs` numbers that it should answer, of the `most` pairs simulated last."""

    def __init__(self, like: Features, outputs: int, most: int) -> None:
        row = 4 * (like.grid[0].numel() + like.flat[0].numel() + outputs)
        self.most, self.count, self._next = max(1, min(most, MEMORY // row)), 0, 0
        self.features = Features(*(t.new_empty(self.most, *t.shape[1:]) for t in (like.grid, like.flat)))
        self.answers = like.flat.new_empty(self.most, outputs)

    def add(self, features: Features, answers: Tensor) -> None:
        """Keep pairs (b,); where there is no room, in place of the oldest."""
        places = (self._next + torch.arange(len(answers), device=answers.device)) % self.most
        self.features.grid[places], self.features.flat[places] = features.grid, features.flat
        self.answers[places] = answers.to(self.answers.dtype)
        self._next = (self._next + len(answers)) % self.most
        self.count = min(self.count + len(answers), self.most)

    def state(self) -> State:
        kept = {"grid": self.features.grid, "flat": self.features.flat, "answers": self.answers}
        return {"most": self.most, "next": self._next} | {name: t[: self.count] for name, t in kept.items()}

    @classmethod
    def restored(cls, state: State, device: torch.device) -> Pairs:
        """Pairs of this state, on a device."""
        answers = state["answers"].to(device)
        seen = Features(state["grid"].to(device), state["flat"].to(device))
        pairs = cls(seen, answers.shape[1], state["most"])
        pairs.add(seen, answers)
        pairs._next = state["next"]
        return pairs

    def draw(self, size: int, generator: torch.Generator) -> tuple[Features, Tensor]:
        """So many pairs at random."""
        places = torch.randint(self.count, (size,), generator=generator).to(self.answers.device)
        return self.features[places], self.answers[places]
