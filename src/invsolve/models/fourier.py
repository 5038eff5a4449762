"""Real Fourier series on a periodic grid, as matrices: at these sizes as fast as an FFT, and cheap to differentiate.

A spectrum is (mean, cosines 1..modes−1, sines 1..modes−1), a column vector; the period is 2π.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def grid_points(n: int) -> Tensor:
    """2πi/n, (n,)."""
    return 2 * math.pi / n * torch.arange(n, dtype=torch.float64)


def wave_numbers(modes: int) -> Tensor:
    """The k of every coefficient, (2·modes − 1,)."""
    k = torch.arange(modes, dtype=torch.float64)
    return torch.cat([k, k[1:]])


def fourier_matrices(n: int, modes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Spectrum to n grid points (n, s), grid points to spectrum (s, n), and the derivative of a spectrum (s, s).

    With s = 2·modes − 1 ≤ n. From the grid, higher modes are dropped.
    """
    k = wave_numbers(modes)
    phase = grid_points(n)[:, None] * k
    to_grid = torch.cat([phase[:, :modes].cos(), phase[:, modes:].sin()], dim=1)
    to_modes = (2 / n * to_grid).T.contiguous()
    to_modes[0] /= 2
    derivative = torch.zeros(len(k), len(k), dtype=torch.float64)  # c' = k s, s' = −k c
    derivative[1:modes, modes:], derivative[modes:, 1:modes] = torch.diag(k[modes:]), -torch.diag(k[modes:])
    return to_grid, to_modes, derivative
