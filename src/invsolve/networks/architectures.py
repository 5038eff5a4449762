"""Small networks from features of an example to a vector or an array, chosen from the shapes at hand."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from invsolve.networks.features import Features

KINDS = ("mlp", "conv1d", "conv2d")
_COARSEST = 8  # a convolutional encoder halves the grid until no side is longer


def choose_kind(y_shape: tuple[int, ...]) -> str:
    """Convolutions for signals and fields long enough to have a structure, else a plain perceptron.

    A leading axis of at most 8 before one or two longer ones is read as channels.
    """
    spatial = grid_shape("conv2d", y_shape)
    if spatial and min(spatial) >= 8:
        return "conv2d"
    spatial = grid_shape("conv1d", y_shape)
    return "conv1d" if spatial and spatial[0] >= 16 else "mlp"


def grid_shape(kind: str, y_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of y that a network of this kind convolves over; () where y does not have them."""
    rank = {"mlp": 0, "conv1d": 1, "conv2d": 2}[kind]
    if rank and (len(y_shape) == rank or (len(y_shape) == rank + 1 and y_shape[0] <= 8)):
        return y_shape[-rank:]
    return ()


class VectorNetwork(nn.Module):
    """Features of b examples → (b, outputs), with a last layer so small that the first outputs are nearly zero."""

    def __init__(self, features: Features, outputs: int, *, width: int, depth: int, channels: int) -> None:
        super().__init__()
        spatial = tuple(features.grid.shape[2:])
        encoded = features.flat.shape[1]
        self.encoder: nn.Module | None = None
        if features.grid.shape[1]:
            self.encoder, size = _encoder(features.grid.shape[1], spatial, channels)
            encoded += size
        self.trunk, last = _perceptron(encoded, width, depth)
        self.head = nn.Linear(last, outputs)
        with torch.no_grad():
            self.head.weight.mul_(1e-2)
            self.head.bias.zero_()

    def forward(self, features: Features) -> Tensor:
        parts = [features.flat]
        if self.encoder is not None:
            parts.append(self.encoder(features.grid))
        out: Tensor = self.head(self.trunk(torch.cat(parts, dim=1)))
        return out


class ArrayNetwork(nn.Module):
    """Features of b examples → arrays of the shape (channels, *spatial), flattened to (b, outputs).

    Without axes to convolve over, a perceptron. Else what is flat becomes a coarse grid, which is refined by steps of
    two; what is a grid already joins at each of its steps (Ronneberger, Fischer and Brox 2015, arXiv 1505.04597).
    """

    def __init__(self, features: Features, outputs: int, *, width: int, depth: int, channels: int) -> None:
        super().__init__()
        self.spatial = tuple(features.grid.shape[2:])
        self.trunk, last = _perceptron(features.flat.shape[1], width, depth)
        self.coarse = self._make_steps(features.grid.shape[1], outputs, channels) if self.spatial else (outputs,)
        self.head = nn.Linear(last, math.prod(self.coarse))

    def _make_steps(self, given: int, outputs: int, channels: int) -> tuple[int, ...]:
        """The convolutions between the coarsest grid, whose shape is returned, and the finest."""
        convolution: type[nn.Module] = nn.Conv1d if len(self.spatial) == 1 else nn.Conv2d
        self.sizes = [self.spatial]
        while max(self.sizes[-1]) > _COARSEST:
            self.sizes.append(tuple(math.ceil(s / 2) for s in self.sizes[-1]))
        widths = [channels * min(2**level, 4) for level in range(len(self.sizes))]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, wide in enumerate(widths if given else []):
            before, stride = (widths[level - 1], 2) if level else (given, 1)
            self.down.append(convolution(before, wide, kernel_size=5, stride=stride, padding=2))
        for coarser, wide in zip([widths[-1], *reversed(widths[1:])], reversed(widths), strict=True):
            self.up.append(convolution(coarser + (wide if given else 0), wide, kernel_size=5, padding=2))
        self.last = convolution(widths[0], outputs // math.prod(self.spatial), kernel_size=5, padding=2)
        return (widths[-1], *self.sizes[-1])

    def forward(self, features: Features) -> Tensor:
        out: Tensor = self.head(self.trunk(features.flat))
        if not self.spatial:
            return out
        grid, given = features.grid, []
        for layer in self.down:
            grid = nn.functional.silu(layer(grid))
            given.append(grid)
        out = out.reshape(len(out), *self.coarse)
        for size, layer in zip(reversed(self.sizes), self.up, strict=True):
            out = nn.functional.interpolate(out, size)
            out = nn.functional.silu(layer(torch.cat([out, given.pop()], dim=1) if given else out))
        arrays: Tensor = self.last(out)
        return arrays.flatten(1)


def _perceptron(inputs: int, width: int, depth: int) -> tuple[nn.Module, int]:
    """Hidden layers, and how many numbers come out."""
    sizes = [inputs] + [width] * depth
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers), sizes[-1]


def _encoder(inputs: int, spatial: tuple[int, ...], channels: int) -> tuple[nn.Module, int]:
    """Strided convolutions down to a coarse grid, flattened; and how many features that makes."""
    convolution: type[nn.Module] = nn.Conv1d if len(spatial) == 1 else nn.Conv2d
    layers: list[nn.Module] = []
    before, after = inputs, channels
    while max(spatial) > _COARSEST:
        layers += [convolution(before, after, kernel_size=5, stride=2, padding=2), nn.SiLU()]
        spatial = tuple(math.ceil(s / 2) for s in spatial)
        before, after = after, min(2 * after, 4 * channels)
    return nn.Sequential(*layers, nn.Flatten()), before * math.prod(spatial)
