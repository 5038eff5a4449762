"""Whether row i of y depends on row i of x alone, as its gradients tell."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_apart(y: Tensor, x: Tensor) -> tuple[bool, int | None]:
    """Whether no row of y (b, ...) depends on another row of x (b, d); and if one does, a row of x that it depends on.

    Neither the y of one part of the rows may depend on an x of the other part, nor the other way round: then that
    gradient is exactly zero. A part in a thousand passes: adaptive steps that all rows share bring less. One row, which
    bisection may leave where others raise, tells nothing, nor does a model without this gradient.
    """
    if len(x) < 2:
        return False, None
    # Weights without a symmetry, in which the parts of a normalization could cancel.
    weight = torch.cos(torch.arange(y[0].numel(), device=y.device, dtype=y.dtype)).reshape(y[0].shape)
    height = (y * weight).flatten(1).sum(1)
    one = (0.618034 * torch.arange(len(x), device=x.device, dtype=torch.float64)).frac() < 0.5
    apart = True
    for part in (one, ~one):
        try:
            (gradient,) = torch.autograd.grad(height[part].sum(), x, retain_graph=part is one)
        except Exception:  # a model without this gradient has its say where the gradient is needed
            return False, None
        size = gradient.abs().amax(1)
        other = torch.where(part, 0.0, size)
        if bool(other.max() > 1e-3 * size[part].max()):
            return False, int(other.argmax())
        apart = apart and bool(torch.isfinite(size).all())
    return apart, None
