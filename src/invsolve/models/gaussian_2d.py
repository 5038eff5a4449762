"""A Gaussian spot in a small image: how stars, beads and beams are measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter, Uniform
from invsolve.options import Options as BaseOptions

NARROWEST = 0.3  # px; a narrower spot lights a single pixel, which tells neither width nor height


class Gaussian2d(ForwardModel):
    """Height, place and shape x = (amplitude, x0, y0, width_x, width_y, angle, offset) of a Gaussian spot in an image.

    y[row, column] = offset + A exp(−½((p/width_x)² + (q/width_y)²)), p = cosθ·dx + sinθ·dy, q = −sinθ·dx + cosθ·dy,
    dx = column − x0, dy = row − y0, θ = angle. `shape="elliptic"` is without the angle (θ = 0), `"symmetric"` has one
    `width`. Turned by π, or by π/2 with the widths swapped, a spot is the same: the angle needs no bounds.
    """

    class Options(BaseOptions):
        size: int = Field(15, ge=5, le=4096, description="rows and columns of the image, in px")
        shape: Literal["rotated", "elliptic", "symmetric"] = Field(
            "rotated", description="two widths and an angle, two widths along columns and rows, or one width"
        )

    options: Options
    noise = 3.0

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        # Amplitude on a log scale and widths on a linear one: of the four ways, BFGS needs the fewest evaluations so.
        size, shape, middle = self.options.size, self.options.shape, (self.options.size - 1) / 2
        near_middle, widths = Uniform(middle - 2 * size / 15, middle + 2 * size / 15), Uniform(size / 15, size / 5)

        def place(name: str) -> Parameter:
            return Parameter(name, unit="px", lower=-0.5, upper=size - 0.5, initial=middle, prior=near_middle)

        def width(name: str) -> Parameter:
            return Parameter(name, unit="px", lower=NARROWEST, upper=size, initial=2 * size / 15, prior=widths)

        return (
            Parameter("amplitude", lower=0, scale="log", initial=100, prior=Uniform(50, 150)),
            place("x0"),
            place("y0"),
            *((width("width"),) if shape == "symmetric" else (width("width_x"), width("width_y"))),
            *((Parameter("angle", unit="rad", prior=Uniform(0, math.pi)),) if shape == "rotated" else ()),
            Parameter("offset", prior=Uniform(0, 20)),
        )

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.options.size, self.options.size)

    @property
    def identifier_shape(self) -> tuple[int, ...]:
        return ()

    def make_constants(self) -> Mapping[str, Tensor]:
        """Places of the pixels along an axis, (size,)."""
        return {"axis": torch.arange(self.options.size, dtype=torch.float64)}

    def forward(self, x: Tensor, identifiers: Identifiers = None) -> Tensor:
        """y (b, size, size) from x (b, 5 to 7).

        The exponent is a part of the column, one of the row, and where the spot is rotated one of their product. The
        first two need an exponential per column and per row only.
        """
        axis = self.constants(x)["axis"]
        amplitude, offset = x[:, :1], x[:, -1:]
        dx, dy = axis - x[:, 1:2], axis - x[:, 2:3]  # (b, size)
        along, across = x[:, 3:4] ** -2, x[:, 3 if self.options.shape == "symmetric" else 4][:, None] ** -2
        if self.options.shape != "rotated":
            column = torch.exp(-0.5 * along * dx.square())
            row = amplitude * torch.exp(-0.5 * across * dy.square())
            return row[:, :, None] * column[:, None, :] + offset[:, :, None]
        cos, sin = x[:, 5:6].cos(), x[:, 5:6].sin()
        column = -0.5 * (cos * cos * along + sin * sin * across) * dx.square()
        row = -0.5 * (sin * sin * along + cos * cos * across) * dy.square()
        both = -cos * sin * (along - across) * dy
        exponent = column[:, None, :] + row[:, :, None] + both[:, :, None] * dx[:, None, :]
        return amplitude[:, :, None] * torch.exp(exponent) + offset[:, :, None]

    def initial_guess(self, targets: Tensor, identifiers: Identifiers) -> Tensor:
        """x0 (n, 5 to 7) float64 from the moments of images (n, size, size): inside the bounds for any image.

        Pixels that are NaN, or infinite, count as not observed. An image with nothing above its background starts from
        a spot of the parameters' initial width in the middle.
        """
        images = targets.double()
        images = images.masked_fill(~images.isfinite(), torch.nan)
        background, noise = _background(images)
        flux = (images - background[:, None, None]).nan_to_num(nan=0.0)
        peak = flux.flatten(1).amax(1)
        x0, y0, *covariance = _moments(flux, peak, noise)
        found = peak > 0
        widths = [w.clamp(2 * NARROWEST, self.options.size / 2) for w in self._widths(*covariance)]
        widths = [w.where(found, 2 * self.options.size / 15) for w in widths]
        angle = [0.5 * torch.atan2(2 * covariance[1], covariance[0] - covariance[2])]
        ones = torch.ones_like(peak)
        shape = [*widths, *(angle if self.options.shape == "rotated" else [])]
        spot = self(torch.stack([ones, x0, y0, *shape, 0 * ones], dim=1)).masked_fill(images.isnan(), 0.0)
        amplitude, offset = _regress(images, spot)
        # A line through few pixels, or noise, may say anything: then the peak above the background is better.
        trusted = found & (amplitude > 0.1 * peak) & (amplitude < 10 * peak)
        amplitude, offset = amplitude.where(trusted, peak.where(found, 1.0)), offset.where(trusted, background)
        return torch.stack([amplitude, x0, y0, *shape, offset], dim=1)

    def _widths(self, xx: Tensor, xy: Tensor, yy: Tensor) -> list[Tensor]:
        """Widths (n,) from the covariance: the roots of its eigenvalues, of its diagonal, or of the diagonal's mean."""
        mean = 0.5 * (xx + yy)
        if self.options.shape == "symmetric":
            squares = [mean]
        elif self.options.shape == "elliptic":
            squares = [xx, yy]
        else:
            radius = torch.hypot(0.5 * (xx - yy), xy)
            squares = [mean + radius, mean - radius]
        return [s.clamp(min=0).sqrt() for s in squares]


def _background(images: Tensor) -> tuple[Tensor, Tensor]:
    """Median (n,) of the border pixels of images (n, size, size), else of all; and the border's scatter (n,).

    The scatter is 1.4826 times the median absolute deviation: the standard deviation, of Gaussian noise. NaN is left
    out; both are 0 where nothing is left.
    """
    border = torch.cat([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], dim=1)
    level = border.nanmedian(1).values
    level = level.where(~level.isnan(), images.flatten(1).nanmedian(1).values).nan_to_num(nan=0.0)
    scatter = 1.4826 * (border - level[:, None]).abs().nanmedian(1).values
    return level, scatter.nan_to_num(nan=0.0)


def _moments(flux: Tensor, peak: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Centre x0, y0 and covariance xx, xy, yy, each (n,), of `flux` (n, size, size) above a fifth of the `peak` (n,).

    Or above three times the noise (n,), but never above half of the peak. What a cut at the share f of the peak takes
    off the second moments of a Gaussian is given back: with L = −ln f they are (1 − f − fL − fL²/2)/(1 − f − fL) of
    the whole (polar coordinates: ρ = r²/2σ² weighs e^−ρ − f up to L). Where no peak is > 0, the centre is the middle.
    """
    found, size = peak > 0, flux.shape[-1]
    peak = peak.where(found, 1.0)
    cut = (3 * noise / peak).clamp(0.2, 0.5)
    weight = (flux / peak[:, None, None] - cut[:, None, None]).clamp(min=0.0)
    weight = weight / weight.sum((1, 2), keepdim=True).where(found[:, None, None], 1.0)
    axis = torch.arange(size, dtype=flux.dtype, device=flux.device)
    columns, rows = weight.sum(1), weight.sum(2)
    x0, y0 = ((marginal @ axis).where(found, (size - 1) / 2) for marginal in (columns, rows))
    dx, dy = axis - x0[:, None], axis - y0[:, None]
    log = -cut.log()
    lost = (1 - cut * (1 + log)) / (1 - cut * (1 + log + 0.5 * log.square()))
    xy = torch.einsum("nrc,nr,nc->n", weight, dy, dx)
    return x0, y0, lost * (columns * dx.square()).sum(1), lost * xy, lost * (rows * dy.square()).sum(1)


def _regress(images: Tensor, spot: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude and offset, each (n,), that fit amplitude·spot + offset to images (n, size, size) by least squares.

    `spot` is 0 where an image is NaN. NaN or infinite where an image does not tell.
    """
    seen = ~images.isnan()
    count = seen.sum((1, 2))
    y = images.nan_to_num(nan=0.0)
    mean_spot, mean_y = spot.sum((1, 2)) / count, y.sum((1, 2)) / count
    deviation = (spot - mean_spot[:, None, None]) * seen
    amplitude = (deviation * y).sum((1, 2)) / deviation.square().sum((1, 2))
    return amplitude, mean_y - amplitude * mean_spot
