"""Supervised learning of the way back: a network is trained on simulated pairs, and asked for the examples' targets.

The classic way to learn an inverse problem (Arridge, Maass, Öktem and Schönlieb 2019, Acta Numerica 28, section 5), for
comparison: the network never sees the loss of the examples that it is to solve.
"""

from __future__ import annotations

from torch import Tensor

from invsolve.control import Control
from invsolve.examples import Examples
from invsolve.methods.answers import AnswerMethod, AnswerOptions
from invsolve.methods.candidates import Candidates
from invsolve.methods.solver_network import NetworkMethod, NetworkOptions, SolverNetwork


class Supervised(AnswerMethod[SolverNetwork], NetworkMethod):
    """For comparison: a network is trained on simulated pairs, and what it answers to the targets is refined."""

    name = "supervised"
    trains_in_crews = True

    class Options(AnswerOptions, NetworkOptions):
        pass

    options: Options

    def learner(self, examples: Examples) -> SolverNetwork:
        return self.begin_network(examples)

    def answers(self, learned: SolverNetwork, examples: Examples, candidates: Candidates, control: Control) -> Tensor:
        return learned.all_solutions(examples, examples.coordinates.to_solver(examples.x0))[:, None]
