"""A network that stands in for the forward model: ŷ = S(x, γ), learned from points at which F was evaluated."""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor, nn

from invsolve.checkpoints import State
from invsolve.examples import Examples
from invsolve.methods.solver_network import ArchitectureOptions, convolved, named
from invsolve.models.base import FunctionModel, Identifiers
from invsolve.networks.architectures import ArrayNetwork, choose_kind
from invsolve.networks.features import Features, Moments, Standard, arranged, together
from invsolve.problem import Conduct, Problem
from invsolve.sampling import Sampler

_LOOKED_AT = 8  # points for each example, of which the inputs' standard is taken
_FAR = 30.0  # standard deviations that it answers at most: where F is beyond, there is nothing to be learned but that
_WILD = 1e4  # times the median square of y, above which a point tells nothing of how large y is


class Surrogate:
    """S(x, γ): x in typical changes, γ and y standardized; trained on pairs ((x, γ), y)."""

    def __init__(self, options: ArchitectureOptions, examples: Examples, seed: int) -> None:
        self.y_shape = examples.y_shape
        kind = options.network
        if kind == "auto":  # a signal's shifts are hard for convolutions to make of a number: a perceptron learns them
            kind = "conv2d" if choose_kind(self.y_shape) == "conv2d" else "mlp"
        self.spatial = convolved(kind, self.y_shape)
        self.coordinates = examples.coordinates
        self.standard, one = self._look_at_all(examples, Sampler(examples, seed))
        self.network: nn.Module = ArrayNetwork(
            one, math.prod(self.y_shape), width=options.width, depth=options.depth, channels=options.channels
        ).to(examples.device)
        self.measured = False  # whether the pairs have been asked, too, how large y is
        self.low = self.high = torch.zeros(examples.d, device=examples.device)  # the region that it was trained in

    def _look_at_all(self, examples: Examples, sampler: Sampler) -> tuple[Standard, Features]:
        """The standard of its inputs, by x as they will be drawn; of its outputs first by the targets."""
        standards, moments = [], []
        z0 = examples.coordinates.to_solver(examples.x0)
        for window in examples.windows():
            problem = window.problem
            drawn = sampler.spread(window.examples.cpu(), _LOOKED_AT, z0[window.examples]).flatten(0, 1)
            standards.append(Standard.measured(_flat(drawn), named(problem.identifiers), self.spatial))
            moments.append(self._moments(problem.targets))
            one = drawn[:1], {k: v[:1].clone() for k, v in named(problem.identifiers).items()}
            del window, problem  # before the next one is loaded
        self.moments = reduce(Moments.joined, moments)
        standard = reduce(Standard.joined, standards)
        return standard, standard.features(_flat(one[0]), one[1])

    def _moments(self, y: Tensor) -> Moments:
        image = self._image(y)
        return Moments.measured(image, together(image))

    def _image(self, y: Tensor) -> Tensor:
        return arranged(y.reshape(len(y), *self.y_shape), self.spatial)

    def pairs(self, problem: Problem, rows: Tensor, z: Tensor, y: Tensor) -> tuple[Features, Tensor]:
        """What it sees, and should answer, of y (b, *y_shape) = F at z (b, d) for the rows (b,)."""
        if self.measured:
            self.low, self.high = torch.minimum(self.low, z.amin(0)), torch.maximum(self.high, z.amax(0))
        else:  # the targets of few examples tell too little of how y varies
            square = y.flatten(1).double().square().sum(1)
            self.moments = self.moments.joined(self._moments(y[square <= _WILD * square.median()]))
            self.low, self.high, self.measured = z.amin(0), z.amax(0), True
        known = {k: v[rows] for k, v in named(problem.identifiers).items()}
        answers = self.moments.standardized(self._image(y)).flatten(1)
        return self.standard.features(_flat(z), known), answers.clamp(-_FAR, _FAR)

    def state(self) -> State:
        """The weights, and what was learned of y and of the region; the standard of x is taken from the examples."""
        known: State = {"measured": self.measured, "low": self.low, "high": self.high}
        return known | {"network": self.network.state_dict(), "moments": vars(self.moments)}

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        self.measured = state["measured"]
        self.low, self.high = (state[name].to(self.low.device) for name in ("low", "high"))
        self.moments = Moments(**{name: t.to(self.low.device) for name, t in state["moments"].items()})

    def __call__(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        """ŷ (b, *y_shape) from x (b, *x_shape) and identifiers, as a forward model gives it; differentiable in x."""
        z = self.coordinates.to_solver(x.flatten(1))
        output: Tensor = self.network(self.standard.features(_flat(z), named(identifiers)))
        image = self.moments.restored(output.reshape(len(x), self.moments.mean.shape[1], *self.spatial))
        return image.reshape(len(x), *self.y_shape).to(x.dtype)

    def in_place_of_f(self, problem: Problem, rows: Tensor) -> Problem:
        """The problem of the rows (b,), which may be repeated, with this in place of F and x where it was trained.

        Loss, gaps, errors and prior are the same. What is computed of it is counted by itself, and is no evaluation
        of F.
        """
        stand_in = problem.select(rows)
        stand_in.model, stand_in.conduct = FunctionModel(self, "surrogate"), Conduct()
        stand_in.history = None
        # Elsewhere S means nothing, and its low losses are wrong. Ren, Padilla and Malof keep x inside by a loss,
        # ReLU(|x − μ| − R/2); bounds need no weight beside other losses, and BFGS keeps them anyway.
        stand_in.coordinates = problem.coordinates.within(self.low, self.high)
        return stand_in


def _flat(z: Tensor) -> Tensor:
    """z (b, d) as features that are no grid, also where it happens to be as long as one."""
    return z[..., None]
