"""What a network sees of an example: targets and identifiers, standardized, with gaps as zeros and a mask."""

from __future__ import annotations

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

    def blurred(self, amount: float) -> Features:
        """With Gaussian noise of this standard deviation added, drawn from torch's global generator."""
        if amount == 0:
            return self
        return Features(*(t + amount * torch.randn_like(t) for t in (self.grid, self.flat)))


def make_features(targets: Tensor, identifiers: dict[str, Tensor], spatial: tuple[int, ...]) -> Features:
    """Arrange targets (n, *y_shape; NaN = gap) and identifiers (n, ...) for a network on a grid of shape `spatial`.

    Arrays of that shape, or with one more axis in front of it, become channels of the grid; all others are
    flattened. `spatial = ()` flattens everything. Channels are standardized as a whole, which keeps their
    translation symmetry; flat features one by one.
    """
    n = len(targets)
    channels, features = [], []
    observed = ~torch.isnan(targets)
    arrays = [targets, *identifiers.values()]
    if not bool(observed.all()):
        arrays.insert(1, observed)
    for array in arrays:
        on_grid = bool(spatial) and tuple(array.shape[-len(spatial) :]) == spatial and array.ndim <= len(spatial) + 2
        if on_grid:
            image = array.reshape(n, -1, *spatial)
            channels.append(_standardized(image, over=tuple(d for d in range(image.ndim) if d != 1)))
        else:
            features.append(_standardized(array.reshape(n, -1), over=(0,)))
    empty_grid = torch.zeros(n, 0, *spatial, device=targets.device)
    empty_flat = torch.zeros(n, 0, device=targets.device)
    return Features(
        torch.cat(channels, dim=1) if channels else empty_grid, torch.cat(features, dim=1) if features else empty_flat
    )


_ABSURD = 1e100  # beyond, a square overflows soon, and one example would flatten all others


def _standardized(array: Tensor, over: tuple[int, ...]) -> Tensor:
    """Zero mean and unit spread over the entries that are numbers along the dimensions `over`; all others zero."""
    if array.dtype == torch.bool:  # a mask: 1 = observed
        return array.float()
    values = array.double()
    finite = torch.isfinite(values) & (values.abs() < _ABSURD)
    values = values.masked_fill(~finite, 0.0)
    count = finite.sum(over, keepdim=True).clamp(min=1)
    mean = values.sum(over, keepdim=True) / count
    centred = (values - mean).masked_fill(~finite, 0.0)
    spread = (centred.square().sum(over, keepdim=True) / count).sqrt()
    return (centred / torch.where(spread > 0, spread, 1.0)).float()
