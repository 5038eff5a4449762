"""Solutions of new examples from a network that was trained before: nothing is learned, only asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from invsolve.control import Control
from invsolve.data.network_file import SavedNetwork
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.examples import Examples
from invsolve.methods.base import Budget
from invsolve.methods.candidates import TOGETHER, Candidates, simulate
from invsolve.methods.joint import JointMethod, JointOptions, beginning_at
from invsolve.methods.solver_network import SIZES, NetworkOptions, SolverNetwork


class Predict(JointMethod):
    """The answers of a saved network, one evaluation each; where they are to be refined, local solves begin there.

    It is not in the registry, for it is nothing without a network: `predict` makes it.
    """

    name = "predict"
    Options = JointOptions
    options: JointOptions

    def __init__(self, saved: SavedNetwork, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> None:
        super().__init__(options, seed=seed)
        self.saved = saved

    def train(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        sizes = NetworkOptions(**{name: getattr(self.saved.about, name) for name in SIZES})
        network = SolverNetwork(sizes, examples, self.saved)
        z0 = examples.coordinates.to_solver(examples.x0)
        answers = network.all_solutions(examples, z0)
        candidates = Candidates.at(z0, initial_loss)
        asked = self._score(examples, answers, candidates, control)
        ended = torch.where(torch.isfinite(candidates.loss), int(Status.BUDGET), int(Status.NONFINITE))
        return RowResults(
            z=candidates.z,
            status=torch.where(asked, ended, int(Status.NOT_RUN)).to(torch.int8),
            iterations=torch.zeros(examples.n, dtype=torch.int64, device=examples.device),
            best=candidates.loss,
            found_by=candidates.origin,
            **beginning_at((candidates.z, candidates.origin), (answers, FoundBy.NETWORK), (z0, FoundBy.LOCAL)),
        )

    def _score(self, examples: Examples, answers: Tensor, candidates: Candidates, control: Control) -> Tensor:
        """Evaluate F at the answers (n, d); which (n,) it was evaluated at.

        That is affordable always: a run may make three evaluations at least.
        """
        asked = torch.zeros(examples.n, dtype=torch.bool, device=examples.device)
        for window in examples.windows():
            for rows in torch.split(torch.arange(len(window.examples), device=examples.device), TOGETHER):
                if control.stopped:
                    return asked
                which = window.examples[rows]
                loss, _ = simulate(window.problem, rows, answers[which])
                candidates.take(window, rows, answers[which], loss, FoundBy.NETWORK)
                asked[which] = True
                done = float(asked.sum()) / examples.n
                control.report(lambda f=done: candidates.progress(self.name, examples, f))  # type: ignore[misc]
            del window  # before the next one is loaded
        return asked
