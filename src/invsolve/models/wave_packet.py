"""Arrival time of a wave packet: one unknown, many local minima."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter, Uniform
from invsolve.options import Options as BaseOptions


class WavePacket(ForwardModel):
    """Arrival time x = (t0) of a wave packet in a noisy signal.

    y_j = A sin(ω(t_j − t0)) exp(−(t_j − t0)² / (2 width²)), t_j = j·duration/(samples − 1).

    After the wave packet experiment of Holl and Thuerey 2024 (arXiv 2408.08119).
    """

    class Options(BaseOptions):
        samples: int = Field(128, ge=2, le=10**6, description="number of times t_j at which the signal is recorded")
        duration: float = Field(20.0, gt=0, description="end of the recording, in s; t0 is within [0, duration]")
        amplitude: float = Field(1.0, gt=0, description="A, height of the envelope")
        frequency: float = Field(1.0, gt=0, description="ω, angular frequency in rad/s")
        width: float = Field(2.0, gt=0, description="standard deviation of the envelope, in s")

    options: Options
    noise = 0.1

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        end = self.options.duration
        return (Parameter("t0", unit="s", lower=0, upper=end, initial=end / 2, prior=Uniform(0.1 * end, 0.9 * end)),)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.options.samples,)

    @property
    def identifier_shape(self) -> tuple[int, ...]:
        return ()

    def make_constants(self) -> Mapping[str, Tensor]:
        return {"t": torch.linspace(0, self.options.duration, self.options.samples, dtype=torch.float64)}

    def forward(self, x: Tensor, identifiers: Identifiers = None) -> Tensor:
        """y (b, samples) from x (b, 1)."""
        o = self.options
        since = self.constants(x)["t"] - x
        return o.amplitude * torch.sin(o.frequency * since) * torch.exp(since.square() * (-0.5 / o.width**2))
