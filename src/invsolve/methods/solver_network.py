"""The network of the joint methods: from what is known of an example to where its solution is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import reduce
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from invsolve.errors import OptionError
from invsolve.examples import Examples, Window
from invsolve.methods.joint import JointOptions
from invsolve.models.base import Identifiers
from invsolve.networks.architectures import KINDS, VectorNetwork, choose_kind, grid_shape
from invsolve.networks.features import Features, Standard
from invsolve.problem import Problem


class ArchitectureOptions(JointOptions):
    """What the methods that train a network share."""

    network: Literal["auto", "mlp", "conv1d", "conv2d"] = Field(
        "auto", description="architecture; auto chooses by the shape of the targets"
    )
    width: int = Field(64, ge=1, description="units of each fully connected layer")
    depth: int = Field(2, ge=0, description="number of fully connected layers")
    channels: int = Field(16, ge=1, description="channels of the first convolution; they double at each further one")


class NetworkOptions(ArchitectureOptions):
    """What the methods share whose network gives solutions."""

    scale: float = Field(1.0, gt=0, description="scale of the network's output, in typical changes of each parameter")


class SolverNetwork:
    """z_i = z0_i + scale ∘ N_θ(y*_i, γ_i): what N sees is standardized by the moments of all examples."""

    def __init__(self, options: NetworkOptions, examples: Examples) -> None:
        self.scale, self.spatial = options.scale, _spatial(options, examples.y_shape)
        self.standard, one = self._look_at_all(examples)
        self.network: nn.Module = _untrained(options, one, examples.d)

    def _look_at_all(self, examples: Examples) -> tuple[Standard, Features]:
        """The standard of all examples, and the features of one of them, which have the shapes of all."""
        standards = []
        for window in examples.windows():
            targets, identifiers = _seen(window.problem)
            standards.append(Standard.measured(targets, identifiers, self.spatial))
            one = targets[:1].clone(), {k: v[:1].clone() for k, v in identifiers.items()}
            del window, targets, identifiers  # before the next one is loaded
        standard = reduce(Standard.joined, standards)
        return standard, standard.features(*one)

    def features(self, window: Window) -> Features:
        """What the network sees of a window's examples."""
        return self.standard.features(*_seen(window.problem))

    def simulated(self, problem: Problem, rows: Tensor, y: Tensor) -> Features:
        """What it would see of the examples in the rows (b,), had F given y (b, *y_shape) for them."""
        targets, identifiers = _seen(problem)
        gaps = torch.isnan(targets[rows])
        return self.standard.features(y.masked_fill(gaps, torch.nan), {k: v[rows] for k, v in identifiers.items()})

    def pairs(self, problem: Problem, rows: Tensor, z: Tensor, y: Tensor) -> tuple[Features, Tensor]:
        """What it would see, and should answer, had F given y (b, *y_shape) at z (b, d) for the rows (b,)."""
        z0 = problem.coordinates.to_solver(problem.x0[rows])
        return self.simulated(problem, rows, y), ((z - z0) / self.scale).float()

    def solutions(self, features: Features, z0: Tensor) -> Tensor:
        """z (b, d) from features of b examples and their starts z0 (b, d); bounds are not looked at."""
        output: Tensor = self.network(features)
        return z0 + self.scale * output.to(z0.dtype)

    @torch.no_grad()
    def all_solutions(self, examples: Examples, z0: Tensor, *, together: int = 4096) -> Tensor:
        """z (n, d) of all examples, inside the bounds."""
        z = torch.empty_like(z0)
        for window in examples.windows():
            features = self.features(window)
            for rows in torch.split(torch.arange(len(window.examples), device=z0.device), together):
                which = window.examples[rows]
                z[which] = self.solutions(features[rows], z0[which])
            del window, features  # before the next one is loaded
        return z.clamp(examples.coordinates.lower, examples.coordinates.upper)


@contextlib.contextmanager
def training(examples: Examples, seed: int, minibatch: int) -> Iterator[None]:
    """Seeds torch's generators meanwhile, and sets one thread where a step works on few numbers.

    Waiting for each other would cost more than it gains there. The limit is the grain size below which torch splits no
    elementwise operation.
    """
    before = torch.get_num_threads()
    cuda = [examples.device] if examples.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        if minibatch * math.prod(examples.y_shape) < 32_768:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def fresh_network(options: NetworkOptions, problem: Problem) -> tuple[VectorNetwork, Features]:
    """A network as a training on these rows begins with, and what it sees of each; by torch's global generator."""
    seen = _seen(problem)
    features = Standard.measured(*seen, _spatial(options, problem.y_shape)).features(*seen)
    return _untrained(options, features, problem.d), features


def _untrained(options: NetworkOptions, like: Features, d: int) -> VectorNetwork:
    network = VectorNetwork(like, d, width=options.width, depth=options.depth, channels=options.channels)
    return network.to(like.flat.device)


def _spatial(options: NetworkOptions, y_shape: tuple[int, ...]) -> tuple[int, ...]:
    return convolved(options.network if options.network != "auto" else choose_kind(y_shape), y_shape)


def convolved(kind: str, y_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the targets that a network of this kind convolves over.

    Raises:
        OptionError: the targets do not have them.
    """
    spatial = grid_shape(kind, y_shape)
    if kind != "mlp" and not spatial:
        raise OptionError(
            f"network '{kind}' does not fit targets of shape {y_shape}; valid here: "
            f"{', '.join(k for k in KINDS if k == 'mlp' or grid_shape(k, y_shape))}"
        )
    return spatial


def _seen(problem: Problem) -> tuple[Tensor, dict[str, Tensor]]:
    """What of a problem's data the network is shown: targets (w, *y_shape), and identifiers by name."""
    return problem.targets.reshape(problem.n, *problem.y_shape), named(problem.identifiers)


def named(identifiers: Identifiers) -> dict[str, Tensor]:
    """Identifiers by name, also where they are none, or one array without a name."""
    if identifiers is None:
        return {}
    return identifiers if isinstance(identifiers, dict) else {"identifiers": identifiers}
