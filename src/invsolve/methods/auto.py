"""The method for who does not want to choose: each stage works on what the ones before it left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from invsolve.checkpoints import Checkpoints, GlobalRandom, State
from invsolve.control import Control
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.examples import Examples, Tour
from invsolve.methods.base import Budget, Method
from invsolve.methods.bfgs import Bfgs
from invsolve.methods.candidates import TOGETHER, Candidates
from invsolve.methods.joint import beginning_at
from invsolve.methods.search import perfect_loss
from invsolve.methods.simulations import MINIBATCH, ProposalOptions, Simulation
from invsolve.methods.solver_network import NetworkMethod, training


class Auto(NetworkMethod):
    """Local solves first; proposals and a network for the examples left behind; then local solves until they agree."""

    name = "auto"
    trains_in_crews = True
    Options = ProposalOptions
    options: ProposalOptions

    def train(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        z0 = examples.coordinates.to_solver(examples.x0)
        candidates = Candidates.at(z0, initial_loss, examples.crew)
        local = LocalSolves(budget.refiner or Bfgs(seed=self.seed), examples, z0, candidates)
        self.checkpoints.follow(examples=examples, candidates=candidates, local_solves=local)
        self._solve_locally(local, budget, control)
        left, answers, proposed = ~local.done, z0, z0
        self.chosen["local_solves"] = {"examples": examples.n, "left": int(left.sum())}
        if bool(left.any()) and not examples.crew.any(control.stopped):
            with training(examples, self.seed, MINIBATCH):
                network = self.begin_network(examples)
                self.checkpoints.follow(network=network, random=GlobalRandom(examples.device))
                plan = self.options.plan(left, budget.left(examples.evaluations) // 2)
                experienced = self.saved is not None
                simulation = Simulation(plan, network, examples, candidates, self.seed, experienced=experienced)
                self.checkpoints.follow(proposals=simulation)
                simulation.run(control, self.checkpoints)
                self.tell("proposals", simulation.told(), simulation.curve)
                answers, proposed = network.all_solutions(examples, z0), simulation.proposed
        examples.merge()
        candidates.merge()
        return replace(
            local.results,
            z=candidates.z,
            best=candidates.loss,
            found_by=candidates.origin,
            **beginning_at((candidates.z, candidates.origin), (answers, FoundBy.NETWORK), (proposed, FoundBy.PROPOSAL)),
        )

    def _solve_locally(self, local: LocalSolves, budget: Budget, control: Control) -> None:
        if budget.max_evaluations is not None:  # the other stages are to have their share
            budget = replace(budget, max_evaluations=budget.max_evaluations // 2)
        local.run(budget, control, self.checkpoints)


class LocalSolves:
    """A local solve of each example from its own start; `done` (n,) are those that need nothing more, for they fit
    perfectly or fail.
    """

    def __init__(self, local: Method, examples: Examples, z0: Tensor, candidates: Candidates) -> None:
        self.local, self.z0, self.candidates = local, z0, candidates
        self.results = RowResults.unstarted(z0, candidates.loss)
        self.done = torch.zeros(examples.n, dtype=torch.bool, device=z0.device)
        self._tour, self._examples = Tour(examples, 8 * TOGETHER), examples

    def run(self, budget: Budget, control: Control, checkpoints: Checkpoints) -> None:
        """Solve all that were not solved yet."""
        known = self.results.status, self.results.iterations, self.done
        before, stopped = [t.clone() for t in known], False
        for window, rows in self._tour:
            which, part = window.examples[rows], window.problem.select(rows)
            left = (budget.limit(window.problem) - window.problem.evaluations)[rows]
            found = self.local.solve(part, self.z0[which], replace(budget, limits=left), control)
            stopped = checkpoints.leaves(control)  # before what a stop cut off counts
            window.problem.absorb(rows, part)
            perfect = found.best <= perfect_loss(part, self.candidates.loss[which])
            self.candidates.take(window, rows, found.z, found.best, FoundBy.LOCAL)
            self.results.status[which], self.results.iterations[which] = found.status, found.iterations
            self.done[which] = perfect | (found.status == int(Status.NONFINITE))
            if stopped:
                break
            del window  # before the next one is loaded
        checkpoints.agree(stopped)
        self._merge(known, before)

    def _merge(self, known: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Let all members of the crew know what each has done."""
        crew = self._examples.crew
        self.candidates.merge()
        self._examples.merge()
        for now, then in zip(known, before, strict=True):
            now.copy_(then + crew.sum_(now.long() - then.long()))

    def state(self) -> State:
        tried = {"status": self.results.status, "iterations": self.results.iterations}
        return tried | {"done": self.done, "tour": self._tour.state()}

    def restore(self, state: State) -> None:
        self.results.status.copy_(state["status"])
        self.results.iterations.copy_(state["iterations"])
        self.done.copy_(state["done"])
        self._tour.restore(state["tour"])
