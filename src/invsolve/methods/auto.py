"""The method for who does not want to choose: each stage works on what the ones before it left behind."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from invsolve.control import Control
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.examples import Examples
from invsolve.methods.base import Budget
from invsolve.methods.bfgs import Bfgs
from invsolve.methods.joint import beginning_at
from invsolve.methods.search import perfect_loss
from invsolve.methods.simulations import MINIBATCH, TOGETHER, Candidates, ProposalOptions, Simulation
from invsolve.methods.solver_network import NetworkMethod, training


class Auto(NetworkMethod):
    """Local solves first; proposals and a network for the examples left behind; then local solves until they agree."""

    name = "auto"
    Options = ProposalOptions
    options: ProposalOptions

    def train(self, examples: Examples, initial_loss: Tensor, budget: Budget, control: Control) -> RowResults:
        z0 = examples.coordinates.to_solver(examples.x0)
        candidates = Candidates.at(z0, initial_loss)
        results = RowResults.unstarted(z0, initial_loss)
        done = self._solve_locally(examples, z0, results, candidates, budget, control)
        answers, proposed = z0, z0
        self.chosen["local_solves"] = {"examples": examples.n, "left": int((~done).sum())}
        if not bool(done.all()) and not control.stopped:
            with training(examples, self.seed, MINIBATCH):
                network = self.begin_network(examples)
                plan = self.options.plan(~done, budget.left(examples.evaluations) // 2)
                simulation = Simulation(plan, network, examples, candidates, self.seed)
                if self.saved is None or not simulation.knows_already(control):
                    simulation.run(control)
                self.tell("proposals", simulation.told(), simulation.curve)
                answers, proposed = network.all_solutions(examples, z0), simulation.proposed
        return replace(
            results,
            z=candidates.z,
            best=candidates.loss,
            found_by=candidates.origin,
            **beginning_at((candidates.z, candidates.origin), (answers, FoundBy.NETWORK), (proposed, FoundBy.PROPOSAL)),
        )

    def _solve_locally(
        self,
        examples: Examples,
        z0: Tensor,
        results: RowResults,
        candidates: Candidates,
        budget: Budget,
        control: Control,
    ) -> Tensor:
        """Solve all examples from their own start; which (n,) need nothing more, for they fit perfectly or fail."""
        done = torch.zeros(examples.n, dtype=torch.bool, device=z0.device)
        local = budget.refiner or Bfgs(seed=self.seed)
        if budget.max_evaluations is not None:  # the other stages are to have their share
            budget = replace(budget, max_evaluations=budget.max_evaluations // 2)
        for window in examples.windows():
            for rows in torch.split(torch.arange(window.problem.n, device=z0.device), 8 * TOGETHER):
                if control.stopped:
                    return done
                which, part = window.examples[rows], window.problem.select(rows)
                left = (budget.limit(window.problem) - window.problem.evaluations)[rows]
                found = local.solve(part, z0[which], replace(budget, limits=left), control)
                window.problem.absorb(rows, part)
                perfect = found.best <= perfect_loss(part, candidates.loss[which])
                candidates.take(window, rows, found.z, found.best, FoundBy.LOCAL)
                results.status[which], results.iterations[which] = found.status, found.iterations
                done[which] = perfect | (found.status == int(Status.NONFINITE))
            del window  # before the next one is loaded
        return done
