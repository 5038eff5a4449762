"""Advection of vorticity and of a marker by a two-dimensional flow, with its derivatives written out.

The state is (ψ, m), stream function and marker, as real Fourier coefficients (2, 21, 21, b): along x, along y, example.
Velocity is u = (ψ_y, −ψ_x), vorticity ω = −∆ψ. With modes 0..10 on 32 × 32 points of [0, 2π)² (the 2/3 rule) products
of two fields are exact, so any form of the equations will do. This one needs seven transforms where u·∇ needs eight;
with p = ψ_x ψ_y and q = ψ_y² − ψ_x²,

    ω_t = p_xx − p_yy + q_xy  (after Basdevant 1983, J. Comput. Phys. 50, 209),  m_t = (ψ_x m)_y − (ψ_y m)_x.

Transforms are matrices of at most 32 × 21 along one axis; with the examples last, nothing has to be transposed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from invsolve.models.fourier import fourier_matrices, wave_numbers

GRID, MODES = 32, 11
SPECTRUM = 2 * MODES - 1

Matrices = Mapping[str, Tensor]
"""`advection_matrices()` on the device and in the dtype of the state."""

Fields = tuple[Tensor, Tensor, Tensor]
"""ψ_x, ψ_y and m on the grid, each (32, 32, b)."""


def advection_matrices() -> dict[str, Tensor]:
    """Transforms along one axis, and factors (21, 21, 1) that turn p and q_xy into ψ_t."""
    to_grid, to_modes, derivative = fourier_matrices(GRID, MODES)
    k = wave_numbers(MODES).square()
    x, y = k[:, None, None], k[:, None]
    inverse = torch.where(x + y > 0, 1 / (x + y), 0.0)  # of −∆; the mean of ω is 0 and stays so
    return {
        "to_grid": to_grid,
        "slope_to_grid": to_grid @ derivative,
        "to_modes": to_modes,
        "slope_to_modes": derivative @ to_modes,
        "p_to_stream": (y - x) * inverse,
        "q_to_stream": inverse,
    }


def along_x(matrix: Tensor, field: Tensor) -> Tensor:
    """`matrix` (i, x) applied to the first axis of a field (x, y, b)."""
    x, y, b = field.shape
    return (matrix @ field.reshape(x, y * b)).view(len(matrix), y, b)


def along_y(matrix: Tensor, field: Tensor) -> Tensor:
    """`matrix` (i, y) applied to the second axis of a field (x, y, b)."""
    return torch.bmm(matrix.expand(len(field), -1, -1), field)


def to_grid(state: Tensor, c: Matrices) -> Fields:
    """The fields of a state (2, 21, 21, b)."""
    (stream, marker), value, slope = state.unbind(), c["to_grid"], c["slope_to_grid"]
    # y first, and back x first: the larger half of the work is then one matrix product instead of a batch of them.
    x, y = along_x(slope, along_y(value, stream)), along_x(value, along_y(slope, stream))
    return x, y, along_x(value, along_y(value, marker))


def advection(fields: Fields, c: Matrices) -> Tensor:
    """(ψ_t, m_t) (2, 21, 21, b) by advection alone."""
    x, y, m = fields
    return _from_products(x * y, (y * y).addcmul(x, x, value=-1), y * m, x * m, c)


def advection_tangent(fields: Fields, tangent: Tensor, c: Matrices) -> Tensor:
    """Change of (ψ_t, m_t) at some fields by a small change of the state, both (2, 21, 21, b)."""
    (x, y, m), (dx, dy, dm) = fields, to_grid(tangent, c)
    p, q = (y * dx).addcmul(x, dy), 2 * (y * dy).addcmul(x, dx, value=-1)
    return _from_products(p, q, (m * dy).addcmul(y, dm), (m * dx).addcmul(x, dm), c)


def advection_adjoint(fields: Fields, gradient: Tensor, c: Matrices) -> Tensor:
    """Gradient to the state, at some fields, from that to (ψ_t, m_t), both (2, 21, 21, b).

    It is `advection_tangent` transposed, the last operation first.
    """
    (x, y, m), (stream, marker) = fields, gradient.unbind()
    value, slope = c["to_modes"].T, c["slope_to_modes"].T
    p = along_x(value, along_y(value, c["p_to_stream"] * stream))
    q = along_x(slope, along_y(slope, 2 * c["q_to_stream"] * stream))
    f, g = along_x(-slope, along_y(value, marker)), along_x(value, along_y(slope, marker))
    to_x = (y * p).addcmul(x, q, value=-1).addcmul(m, g)
    to_y = (x * p).addcmul(y, q).addcmul(m, f)
    to_m = (y * f).addcmul(x, g)
    value, slope = c["to_grid"].T, c["slope_to_grid"].T
    to_stream = along_y(value, along_x(slope, to_x)) + along_y(slope, along_x(value, to_y))
    return torch.stack([to_stream, along_y(value, along_x(value, to_m))])


def _from_products(p: Tensor, q: Tensor, f: Tensor, g: Tensor, c: Matrices) -> Tensor:
    """(ψ_t, m_t) (2, 21, 21, b) from p, q, f = ψ_y m and g = ψ_x m on the grid."""
    value, slope = c["to_modes"], c["slope_to_modes"]
    from_p, from_q = along_y(value, along_x(value, p)), along_y(slope, along_x(slope, q))
    stream = (c["p_to_stream"] * from_p).addcmul(c["q_to_stream"], from_q)
    return torch.stack([stream, along_y(slope, along_x(value, g)) - along_y(value, along_x(slope, f))])
