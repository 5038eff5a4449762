"""How the outputs of a network move together, in one small step of its parameters on a common loss."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.analysis.alignment import Update
from invsolve.methods.jpo import Jpo
from invsolve.methods.solver_network import fresh_network
from invsolve.problem import Problem


def joint_update(problem: Problem, gradient: Tensor, seed: int) -> Update:
    """What a random network of JPO's changes x_i by, in a gradient step on the loss of a group of the problem's rows.

    Δx_i = −J_i Σ_j J_jᵀ ∂L_j/∂x_j with J = ∂N/∂θ, by one backward pass and one forward derivative: the step is taken
    to be small, and only directions matter. `gradient` (n, d) is at x0, where outputs of zero leave every example;
    those of a fresh network are nearly zero.
    """
    with torch.random.fork_rng(devices=[problem.device] if problem.device.type == "cuda" else []):
        torch.manual_seed(seed)
        network, features = fresh_network(Jpo().options, problem)
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    slope = (gradient / gradient.abs().max().clamp(min=1e-300)).float()

    def update(rows: Tensor) -> Tensor:
        seen = features[rows]

        def outputs(values: dict[str, Tensor]) -> Tensor:
            out: Tensor = torch.func.functional_call(network, values, (seen,))
            return out

        _, pull = torch.func.vjp(outputs, parameters)  # type: ignore[misc]
        (steepest,) = pull(slope[rows])
        downhill = {name: -value for name, value in steepest.items()}
        _, change = torch.func.jvp(outputs, (parameters,), (downhill,))  # type: ignore[misc]
        moved: Tensor = change
        return moved

    return update
