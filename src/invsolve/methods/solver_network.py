"""The network of the joint methods: from what is known of an example to where its solution is.

It can be kept in a file, and be begun from one; what is saved of it are `parts`, what comes back is `restored`.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from invsolve.checkpoints import State
from invsolve.data.network_file import MOST_LAYERS, SavedNetwork
from invsolve.errors import DataError, OptionError, first_line
from invsolve.examples import Examples, Window
from invsolve.methods.joint import JointMethod, JointOptions
from invsolve.models.base import Identifiers
from invsolve.networks.architectures import KINDS, VectorNetwork, choose_kind, grid_shape
from invsolve.networks.features import Features, Moments, Standard, outline
from invsolve.problem import Problem


class ArchitectureOptions(JointOptions):
    """What the methods that train a network share."""

    network: Literal["auto", "mlp", "conv1d", "conv2d"] = Field(
        "auto", description="architecture; auto chooses by the shape of the targets"
    )
    width: int = Field(64, ge=1, description="units of each fully connected layer")
    depth: int = Field(2, ge=0, le=MOST_LAYERS, description="number of fully connected layers")
    channels: int = Field(16, ge=1, description="channels of the first convolution; they double at each further one")


class NetworkOptions(ArchitectureOptions):
    """What the methods share whose network gives solutions."""

    scale: float = Field(1.0, gt=0, description="scale of the network's output, in typical changes of each parameter")


class SolverNetwork:
    """z_i = z0_i + scale ∘ N_θ(y*_i, γ_i): what N sees is standardized by the moments of all examples.

    N does not see z0. Where it is one for all examples, as most are, it belongs to the network, and new data may have
    another. With `saved`, whose sizes the options have, N is that of a file, and so are z0 and the moments: its weights
    mean something only beside those that it was trained with.
    """

    def __init__(self, options: NetworkOptions, examples: Examples, saved: SavedNetwork | None = None) -> None:
        self.options, self.scale = options, options.scale
        if saved is None:
            spatial = _spatial(options, examples.y_shape)
            self.standard, self.names, one = self._look_at_all(examples, spatial)
            self.network: nn.Module = _untrained(options, one, examples.d)
            z0 = examples.coordinates.to_solver(examples.x0)
            self.start = z0[0].clone() if bool((z0 == z0[:1]).all()) else None
        else:
            self.network, self.standard, start = restored(saved)
            self.network.to(examples.device)
            self.start = None if start is None else start.to(examples.x0)
            self.standard = self.standard.to(examples.device)
            self.names = tuple(known.name for known in saved.about.identifiers)

    def _look_at_all(self, examples: Examples, spatial: tuple[int, ...]) -> tuple[Standard, tuple[str, ...], Features]:
        """The standard of all examples, the names of their identifiers, and the features of one of them, which have
        the shapes of all.
        """
        standards = []
        for window in examples.windows():
            targets, identifiers = _seen(window.problem)
            standards.append(Standard.measured(targets, identifiers, spatial))
            one = targets[:1].clone(), {k: v[:1].clone() for k, v in identifiers.items()}
            del window, targets, identifiers  # before the next one is loaded
        standard = reduce(Standard.joined, examples.crew.gather(reduce(Standard.joined, standards)))
        return standard, tuple(one[1]), standard.features(*one)

    def parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What a file holds of it: sizes by name, and tensors."""
        sizes = {name: getattr(self.options, name) for name in SIZES if name != "network"}
        sizes["network"] = KINDS[len(self.standard.spatial)]
        tensors = {f"network.{name}": t for name, t in self.network.state_dict().items()}
        for name, moments in zip(_moment_names(self.names), self.standard.moments, strict=True):
            tensors |= {f"{name}.{part}": t for part, t in vars(moments).items()}
        if self.start is not None:
            tensors["start"] = self.start.double()
        return sizes | {"gaps": self.standard.gaps}, {name: t.cpu().numpy() for name, t in tensors.items()}

    def state(self) -> State:
        """The weights: all else is taken from the examples anew, or from the file."""
        return self.network.state_dict()

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state)

    def features(self, window: Window) -> Features:
        """What the network sees of a window's examples."""
        targets, identifiers = _seen(window.problem)
        return self.standard.features(targets, self._in_order(identifiers))

    def simulated(self, problem: Problem, rows: Tensor, y: Tensor) -> Features:
        """What it would see of the examples in the rows (b,), had F given y (b, *y_shape) for them."""
        targets, identifiers = _seen(problem)
        gaps = torch.isnan(targets[rows])
        known = {k: v[rows] for k, v in self._in_order(identifiers).items()}
        return self.standard.features(y.masked_fill(gaps, torch.nan), known)

    def _in_order(self, identifiers: dict[str, Tensor]) -> dict[str, Tensor]:
        """As they were when it was trained: a file has them in another order than a dict may."""
        return {name: identifiers[name] for name in self.names}

    def pairs(self, problem: Problem, rows: Tensor, z: Tensor, y: Tensor) -> tuple[Features, Tensor]:
        """What it would see, and should answer, had F given y (b, *y_shape) at z (b, d) for the rows (b,)."""
        z0 = problem.coordinates.to_solver(problem.x0[rows])
        return self.simulated(problem, rows, y), ((z - self.origin(z0)) / self.scale).float()

    def solutions(self, features: Features, z0: Tensor, *, by: nn.Module | None = None) -> Tensor:
        """z (b, d) from features of b examples and their starts z0 (b, d); bounds are not looked at.

        `by` is what the network became in a crew.
        """
        output: Tensor = (by or self.network)(features)
        return self.origin(z0) + self.scale * output.to(z0.dtype)

    def origin(self, z0: Tensor) -> Tensor:
        """What the network's output is added to, for examples that start at z0 (b, d)."""
        return z0 if self.start is None else self.start.expand_as(z0)

    @torch.no_grad()
    def all_solutions(self, examples: Examples, z0: Tensor, *, together: int = 4096) -> Tensor:
        """z (n, d) of all examples, inside the bounds."""
        z = torch.zeros_like(z0)
        for window in examples.windows():
            features = self.features(window)
            for rows in torch.split(torch.arange(len(window.examples), device=z0.device), together):
                which = window.examples[rows]
                z[which] = self.solutions(features[rows], z0[which])
            del window, features  # before the next one is loaded
        return examples.crew.sum_(z).clamp(examples.coordinates.lower, examples.coordinates.upper)


class NetworkMethod(JointMethod):
    """A joint method that trains one `SolverNetwork`, which can be saved afterwards, and begun from a saved one.

    Its `train` takes the network from `begin_network`; that is all it has to do for it.
    """

    options: NetworkOptions

    def __init__(self, options: Mapping[str, Any] | None = None, *, seed: int = 0) -> None:
        super().__init__(options, seed=seed)
        self.saved: SavedNetwork | None = None
        self.network: SolverNetwork | None = None
        self._at_first: dict[str, Tensor] = {}

    def begin_from(self, saved: SavedNetwork) -> None:
        """Begin from this network instead of one that knows nothing.

        Raises:
            OptionError: an option is set to another size than it has.
        """
        sizes = {name: getattr(saved.about, name) for name in SIZES}
        for name, size in sizes.items():
            given = getattr(self.options, name)
            if name in self.options.model_fields_set and given not in (size, "auto"):
                raise OptionError(
                    f"option '{name}' is {given}, but the network of {saved.path} has {name} {size}; "
                    f"leave the option out, or begin without that network"
                )
        self.saved, self.options = saved, self.options.model_copy(update=sizes)

    def begin_network(self, examples: Examples) -> SolverNetwork:
        """The network to train."""
        self.network = SolverNetwork(self.options, examples, self.saved)
        self._at_first = copy.deepcopy(self.network.network.state_dict())
        weights = sum(w.numel() for w in self.network.network.parameters())
        self.chosen["network"] = {"kind": KINDS[len(self.network.standard.spatial)], "weights": weights}
        return self.network

    def take(self, trained: SolverNetwork | None) -> None:
        """Have what the method has trained in another process."""
        self.network, self._at_first = trained, {}

    @property
    def trained(self) -> SolverNetwork | None:
        """The network as it stands; None where there is none, or one that has learned nothing."""
        if self.network is None or self.saved is not None:
            return self.network
        now = self.network.network.state_dict()
        unchanged = bool(self._at_first) and all(torch.equal(t, now[name]) for name, t in self._at_first.items())
        return None if unchanged else self.network


SIZES = ("network", "width", "depth", "channels", "scale")
"""Options that say what a network is, rather than how it is trained."""


def restored(saved: SavedNetwork) -> tuple[VectorNetwork, Standard, Tensor | None]:
    """The network, the moments and z0 (d,), where it is one for all, of a file, on the CPU.

    The sizes that it tells are seen to be those of its tensors before anything is made of them.

    Raises:
        DataError: they are not.
    """
    about, tensors = saved.about, saved.tensors
    shapes = [about.y_shape, *(known.shape for known in about.identifiers)]
    spatial = grid_shape(about.network, about.y_shape)
    try:
        if about.network != "mlp" and not spatial:
            raise ValueError(f"'{about.network}' does not fit targets of shape {about.y_shape}")
        if about.depth > len(tensors):
            raise ValueError(f"{len(tensors)} tensors are too few for depth {about.depth}")
        with torch.device("meta"):
            like, moments = outline(shapes, spatial, about.gaps)
            sizes = {"width": about.width, "depth": about.depth, "channels": about.channels}
            network = VectorNetwork(like, math.prod(about.x_shape), **sizes)
        names = _moment_names(tuple(known.name for known in about.identifiers))
        if len(set(names)) < len(names):
            raise ValueError("two arrays of identifiers have one name")
        wanted: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            f"network.{name}": (tuple(t.shape), np.float32) for name, t in network.state_dict().items()
        }
        for name, shape in zip(names, moments, strict=True):
            wanted |= {f"{name}.{part}": (shape, dtype) for part, dtype in _MOMENTS.items()}
        if about.x0 == "one":
            wanted["start"] = ((math.prod(about.x_shape),), np.float64)
        _check_tensors(tensors, wanted)
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:  # torch's own of sizes that cannot be
        raise DataError(f"network {saved.path} is not usable: {first_line(error)}") from None
    found = {name: torch.from_numpy(np.array(t)) for name, t in tensors.items()}
    network.load_state_dict({name: found[f"network.{name}"] for name in network.state_dict()}, assign=True)
    parts = (Moments(*(found[f"{name}.{part}"] for part in _MOMENTS)) for name in names)
    return network, Standard(spatial, about.gaps, tuple(parts)), found.get("start")


_MOMENTS: dict[str, type[np.generic]] = {"count": np.int64, "mean": np.float64, "deviation": np.float64}


def _moment_names(identifiers: tuple[str, ...]) -> tuple[str, ...]:
    return ("targets", *(f"identifiers.{name}" for name in identifiers))


def _check_tensors(
    tensors: dict[str, np.ndarray], wanted: Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
) -> None:
    """See that the tensors are those wanted, and that moments are what moments can be."""
    for name, (shape, dtype) in wanted.items():
        if name not in tensors:
            raise ValueError(f"tensor '{name}' is missing")
        found = tensors[name]
        if found.shape != shape or found.dtype != dtype:
            expected = f"{shape} {np.dtype(dtype)} is needed"
            raise ValueError(f"tensor '{name}' is {found.shape} {found.dtype}, {expected}")
        if name.endswith((".count", ".deviation")) and not name.startswith("network.") and (found < 0).any():
            raise ValueError(f"tensor '{name}' holds numbers below zero")
    if more := sorted(set(tensors) - set(wanted)):
        raise ValueError(f"tensor '{more[0]}' is none of this network's")


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
