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
        self.precision = torch.tensor([0.0 if q is None else q.std**-2 for q in priors], device=device, dtype=dtype)

    def loss(self, x: Tensor) -> Tensor:
        """(b,) of x (b, d)."""
        return 0.5 * (self.precision * (x - self.mean).square()).sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        """∂/∂x (b, d) at x (b, d)."""
        return self.precision * (x - self.mean)
