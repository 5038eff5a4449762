"""A forward model to start from: a damped oscillation, recorded at times that differ from example to example.

Runs as it is, with MODEL.py the name of this file:

    invsolve check --model MODEL.py:Model
    invsolve generate MODEL.py:Model --n 1000 --noise 0.05 --out data.h5
    invsolve solve data.h5 --model MODEL.py:Model --covariance
"""

import torch
from pydantic import Field
from torch import Tensor

import invsolve
from invsolve import ForwardModel, Parameter, Uniform


class Model(ForwardModel):
    """Amplitude, decay rate and frequency of a damped oscillation y(t) = a exp(−r t) cos(f t)."""

    # What is fixed for a whole run and may be set by -M key=value. Text is converted, wrong values are refused.
    class Options(invsolve.Options):
        samples: int = Field(40, ge=2, description="times t at which each example is recorded")
        duration: float = Field(10.0, gt=0, description="end of the recording, in s")

    options: Options

    # The unknowns x, in order. Solvers start from `initial` (unless the data bring x0), stay within the bounds, and
    # take steps in units of the prior's spread, or of the logarithm where scale="log".
    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("amplitude", unit="V", initial=1.0, prior=Uniform(0.5, 2.0)),
            Parameter("rate", unit="1/s", lower=0.0, scale="log", initial=0.2, prior=Uniform(0.05, 0.5)),
            Parameter("frequency", unit="rad/s", lower=0.0, upper=4.0, initial=1.0, prior=Uniform(0.7, 1.3)),
        )

    # F: x (b, 3) and identifiers (b, samples) → y (b, samples), for b examples at once. Row i of y must come from row i
    # of x and identifiers alone. Only differentiable torch operations; constants in the dtype and on the device of x.
    def forward(self, x: Tensor, identifiers: Tensor) -> Tensor:  # type: ignore[override]
        amplitude, rate, frequency = x[:, 0:1], x[:, 1:2], x[:, 2:3]
        return amplitude * torch.exp(-rate * identifiers) * torch.cos(frequency * identifiers)

    # The rest is optional. Shapes, for clear messages where data do not fit:
    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.options.samples,)

    @property
    def identifier_shape(self) -> tuple[int, ...]:
        return (self.options.samples,)

    # What is known of each example, where `generate` simulates some. Without identifiers, leave it out.
    def draw_identifiers(self, n: int, generator: torch.Generator) -> Tensor:
        times = torch.rand(n, self.options.samples, dtype=torch.float64, generator=generator)
        return self.options.duration * times.sort(dim=1).values
