"""What a network sees of an example: targets and identifiers, standardized, with gaps as zeros and a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Inputs of n examples, float32 and standardized: `grid` (n, channels, *spatial) and `flat` (n, features).

    Either may be empty: zero channels, or zero features.
    """

    grid: Tensor
    flat: Tensor

    def __getitem__(self, rows: Tensor) -> Features:
        return Features(self.grid[rows], self.flat[rows])

    def blurred(self, amount: float, among: int | None = None, places: Tensor | slice = slice(None)) -> Features:
        """With Gaussian noise of this standard deviation added, drawn from torch's global generator.

        It is drawn for all `among` whom these are at some `places`, if they are but a part.
        """
        if amount == 0:
            return self
        drawn = (
            torch.randn(among or len(t), *t.shape[1:], dtype=t.dtype, device=t.device) for t in (self.grid, self.flat)
        )
        return Features(*(t + amount * d[places] for t, d in zip((self.grid, self.flat), drawn, strict=True)))


@dataclass(frozen=True)
class Moments:
    """Of the entries of an array that are numbers: how many, their mean and sum of squared deviations, (1, ...) each.

    The dimensions that are standardized together have length one.
    """

    count: Tensor
    mean: Tensor
    deviation: Tensor

    @classmethod
    def measured(cls, array: Tensor, over: tuple[int, ...]) -> Moments:
        """The moments along the dimensions `over`."""
        values, usable = _numbers(array)
        count = usable.sum(over, keepdim=True)
        mean = values.sum(over, keepdim=True) / count.clamp(min=1)
        centred = (values - mean).masked_fill_(~usable, 0.0)
        return cls(count, mean, centred.square_().sum(over, keepdim=True))

    def joined(self, other: Moments) -> Moments:
        """The moments of both arrays together (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count = self.count + other.count
        whole = count.clamp(min=1)
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / whole)
        deviation = self.deviation + other.deviation + gap.square() * (self.count * (other.count / whole))
        return Moments(count, mean, deviation)

    def standardized(self, array: Tensor) -> Tensor:
        """`array` with zero mean and unit spread, float32; zero where it is no number."""
        values, usable = _numbers(array)
        centred = (values - self.mean).masked_fill_(~usable, 0.0)
        return centred.div_(self.spread).float()

    def restored(self, standardized: Tensor) -> Tensor:
        """The array, float64, that `standardized` made these numbers from."""
        return standardized.double() * self.spread + self.mean

    @property
    def spread(self) -> Tensor:
        """Standard deviations (1, ...), 1 for what never varies."""
        spread = (self.deviation / self.count.clamp(min=1)).sqrt()
        return torch.where(spread > 0, spread, 1.0)


@dataclass(frozen=True)
class Standard:
    """How examples become features: standardized by the moments of all of them, which some at a time may bring.

    Arrays of shape `spatial`, or with one more axis in front of it, become channels of a grid; all others are
    flattened. `spatial = ()` flattens everything. Channels are standardized as a whole, which keeps their translation
    symmetry; flat features one by one.
    """

    spatial: tuple[int, ...]
    gaps: bool  # whether some target is not observed, so that the network is shown which
    moments: tuple[Moments, ...]  # of the targets, then of each array of identifiers

    @classmethod
    def measured(cls, targets: Tensor, identifiers: dict[str, Tensor], spatial: tuple[int, ...]) -> Standard:
        """From targets (n, *y_shape; NaN = gap) and identifiers (n, ...)."""
        gaps = bool(torch.isnan(targets).any())
        images = (arranged(array, spatial) for array in (targets, *identifiers.values()))
        return cls(spatial, gaps, tuple(Moments.measured(array, together(array)) for array in images))

    def joined(self, other: Standard) -> Standard:
        """The standard of both sets of examples together."""
        pairs = zip(self.moments, other.moments, strict=True)
        return Standard(self.spatial, self.gaps or other.gaps, tuple(a.joined(b) for a, b in pairs))

    def to(self, device: torch.device) -> Standard:
        """The same on a device."""
        moved = (Moments(*(t.to(device) for t in vars(m).values())) for m in self.moments)
        return Standard(self.spatial, self.gaps, tuple(moved))

    def features(self, targets: Tensor, identifiers: dict[str, Tensor]) -> Features:
        """What the network sees of targets (b, *y_shape; NaN = gap) and identifiers (b, ...)."""
        arrays = [arranged(array, self.spatial) for array in (targets, *identifiers.values())]
        seen = [m.standardized(array) for m, array in zip(self.moments, arrays, strict=True)]
        if self.gaps:
            seen.insert(1, (~torch.isnan(arrays[0])).float())
        return _side_by_side(seen, self.spatial)


def outline(
    shapes: Sequence[tuple[int, ...]], spatial: tuple[int, ...], gaps: bool
) -> tuple[Features, tuple[tuple[int, ...], ...]]:
    """What one example's features, and the moments of each array, look like; nothing is allocated.

    `shapes` are those of one example's target and of its identifiers. The features are on torch's meta device.

    Raises:
        RuntimeError: they cannot be, for their size.
    """
    arrays = [arranged(torch.empty(1, *shape, device="meta"), spatial) for shape in shapes]
    moments = tuple(tuple(1 if i in together(a) else size for i, size in enumerate(a.shape)) for a in arrays)
    return _side_by_side([*arrays[:1], *arrays[: int(gaps)], *arrays[1:]], spatial), moments


def _side_by_side(seen: list[Tensor], spatial: tuple[int, ...]) -> Features:
    """Arranged arrays of the same examples as features."""
    empty = torch.zeros(len(seen[0]), 0, device=seen[0].device)
    channels = [image for image in seen if image.ndim > 2] or [empty.reshape(len(empty), 0, *spatial)]
    return Features(torch.cat(channels, dim=1), torch.cat([empty, *(f for f in seen if f.ndim == 2)], dim=1))


def arranged(array: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """As an image (n, channels, *spatial) where the shape is so, else flat (n, features)."""
    axes = len(spatial)
    # Numbers, one for each of n examples, are no grid, also where n happens to be as long as one.
    on_grid = axes > 0 and tuple(array.shape[-axes:]) == spatial and axes < array.ndim <= axes + 2
    return array.reshape(len(array), -1, *(spatial if on_grid else ()))


def together(array: Tensor) -> tuple[int, ...]:
    """The dimensions along which an arranged array is standardized: all but that of its channels or features."""
    return tuple(dimension for dimension in range(array.ndim) if dimension != 1)


_ABSURD = 1e100  # beyond, a square overflows soon, and one example would flatten all others


def _numbers(array: Tensor) -> tuple[Tensor, Tensor]:
    """The array in float64 with zeros where it holds no usable number, and where it does."""
    values = array.double()
    usable = values.abs() < _ABSURD  # NaN is not
    return (values if bool(usable.all()) else values.masked_fill(~usable, 0.0)), usable
