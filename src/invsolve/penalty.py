"""What is known of x before any measurement, as a term beside the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invsolve.models.parameters import Normal, Parameter


class Penalty:
    """½ Σ_j ((x_j − mean_j) / std_j)² over the parameters with a Gaussian prior: −log of its density, up to a constant.

    A uniform prior has the same density wherever it allows x; it is kept by bounds, see `Parameter.within_prior`.
    """

    def __init__(self, parameters: Sequence[Parameter], device: torch.device, dtype: torch.dtype) -> None:
        priors = [p.prior if isinstance(p.prior, Normal) else None for p in parameters]
        self.mean = torch.tensor([0.0 if q is None else q.mean for q in priors], device=device, dtype=dtype)
        self.std = torch.tensor([torch.inf if q is None else q.std for q in priors], device=device, dtype=dtype)

    def loss(self, x: Tensor) -> Tensor:
        """(b,) of x (b, d)."""
        return 0.5 * ((x - self.mean) / self.std).square().sum(1)

    def gradient(self, x: Tensor, slope: Tensor | float = 1.0) -> Tensor:
        """∂/∂x (b, d) at x (b, d), times the slope ∂x/∂z (b, d) or (d,) of other coordinates.

        In units of the standard deviation as long as may be: its square may be beyond the numbers of float32.
        """
        return (x - self.mean) / self.std * (slope / self.std)
