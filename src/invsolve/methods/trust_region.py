"""Steps of a quadratic model within a trust region (Moré 1978): from normal equations, or from a triangular factor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invsolve.tracing import is_traced

_Damped = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From λ (b,): q = −(A + λ)⁻¹ h (b, d), and qᵀ(A + λ)⁻¹ q (b,), by which its length falls with λ."""

_LEAST_DAMPING = 1e-15  # relative to a matrix of unit diagonal
_NEWTON_STEPS = 3
_UNROLLED = 8  # unknowns, up to which a Cholesky decomposition is written out

_Unrolled = list[list[Tensor]]
"""L by its rows, each entry (b,)."""


def by_normal_equations(
    matrix: Tensor, gradient: Tensor, size: Tensor, fixed: Tensor, radius: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """The minimizer p (b, d) of gᵀp + ½ pᵀHp with ‖D p‖ ≤ radius, its `fixed` components 0, and its λ (b,).

    H (b, d, d), g (b, d), D = `size` (b, d), λ of the step before (b,). The condition of H is the square of that of J.
    """
    eye = torch.eye(size.shape[1], dtype=size.dtype, device=size.device)
    scaled = matrix / (size[:, :, None] * size[:, None, :])
    scaled = torch.where(fixed[:, :, None] | fixed[:, None, :], 0.0, scaled)
    # Where a component is fixed, its row is that of the identity.
    scaled = torch.where(fixed[:, :, None], eye, scaled)
    uphill = torch.where(fixed, 0.0, gradient / size)

    def damped(damping: Tensor) -> tuple[Tensor, Tensor]:
        return _solve_definite(scaled + damping[:, None, None] * eye, -uphill)

    p, damping = _within(damped, _LEAST_DAMPING, uphill.norm(dim=1), radius, damping)
    return p / size, damping


def by_factor(
    factor: Tensor, size: Tensor, fixed: Tensor, shift: Tensor, radius: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """The minimizer p (b, d) of ½ ‖R p + c‖² with ‖D p‖ ≤ radius, `fixed` components at `shift`, and its λ (b,).

    `factor` (b, d, d + 1) is [R | c], see `normal_equations`; R has the condition of J, not its square. With
    R D⁻¹ = U S Vᵀ one decomposition serves all λ: D p = −V (S² + λ)⁻¹ S Uᵀc (Björck 1996, Numerical Methods for Least
    Squares Problems, chapter 2). Directions without effect, to rounding, are left out.
    """
    right = factor[:, :, -1] + (factor[:, :, :-1] * shift[:, None, :]).sum(2)
    u, s, vt = torch.linalg.svd(torch.where(fixed[:, None, :], 0.0, factor[:, :, :-1] / size[:, None, :]))
    least = torch.finfo(s.dtype).eps * s.shape[1] * s[:, :1]
    s = torch.where(s > least, s, 0.0)
    pulled = (u * right[:, :, None]).sum(1)

    def damped(damping: Tensor) -> tuple[Tensor, Tensor]:
        curvature = torch.where(s > 0, s.square() + damping[:, None], torch.inf)
        along = -s * pulled / curvature
        return (vt * along[:, :, None]).sum(1), (along.square() / curvature).sum(1)

    p, damping = _within(damped, 0.0, (s * pulled).norm(dim=1), radius, damping)
    return torch.where(fixed, shift, p / size), damping


def _within(damped: _Damped, least: float, slope: Tensor, radius: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """q (b, d) with ‖q‖ ≤ radius and its λ (b,), 0 where the region does not limit it; `slope` is ‖h‖ (b,).

    Newton's iteration for λ as in Moré 1978, section 5, on ‖q‖⁻¹, from that of the last step.
    """
    undamped = torch.full_like(damping, least)
    p, _ = damped(undamped)
    inside = p.norm(dim=1) <= 1.1 * radius
    most = slope / radius
    damping = torch.minimum(torch.maximum(damping, 1e-3 * most), most)
    for _ in range(_NEWTON_STEPS):
        q, bend = damped(damping)
        length = q.norm(dim=1)
        newton = damping + (length / radius - 1) * length.square() / bend
        damping = torch.where(inside, undamped, torch.minimum(torch.maximum(newton, 1e-3 * damping), most))
    q, _ = damped(damping)
    q = q * (radius / q.norm(dim=1)).clamp(max=1.0)[:, None]
    return torch.where(inside[:, None], p, q), torch.where(inside, 0.0, damping)


def _solve_definite(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """y = A⁻¹ b and yᵀA⁻¹y (b,) for positive definite A (b, d, d) of unit size and b (b, d), by Cholesky.

    Few unknowns one entry after the other, for all rows at once in each operation: so a compiler makes one loop of it,
    and it is faster than a batch of LAPACK calls also where none does. A pivot below rounding is lifted to it; where
    LAPACK finds one, the result is that of the diagonal alone.
    """
    if right.shape[1] > _UNROLLED and not is_traced():
        lower, info = torch.linalg.cholesky_ex(matrix)
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        lower = torch.where((info == 0)[:, None, None], lower, torch.diag_embed(diagonal.sqrt()))
        solution = torch.cholesky_solve(right[:, :, None], lower)
        root = torch.linalg.solve_triangular(lower, solution, upper=False)
        return solution.squeeze(2), root.square().sum((1, 2))
    factor = _unrolled(matrix)
    y = _backward(factor, _forward(factor, list(right.unbind(1))))
    half = _forward(factor, y)
    return torch.stack(y, dim=1), torch.stack(half, dim=1).square().sum(1)


def _unrolled(matrix: Tensor) -> _Unrolled:
    d = matrix.shape[1]
    entries = matrix.permute(1, 2, 0).contiguous()
    least = torch.finfo(matrix.dtype).eps
    factor: _Unrolled = [[] for _ in range(d)]
    for i in range(d):
        for j in range(i):
            entry = entries[i, j]
            for k in range(j):
                entry = entry - factor[i][k] * factor[j][k]
            factor[i].append(entry / factor[j][j])
        pivot = entries[i, i]
        for k in range(i):
            pivot = pivot - factor[i][k].square()
        factor[i].append(pivot.clamp(min=least).sqrt())
    return factor


def _forward(factor: _Unrolled, right: list[Tensor]) -> list[Tensor]:
    """L⁻¹ b for lists of (b,)."""
    solved: list[Tensor] = []
    for i, row in enumerate(factor):
        value = right[i]
        for k in range(i):
            value = value - row[k] * solved[k]
        solved.append(value / row[i])
    return solved


def _backward(factor: _Unrolled, right: list[Tensor]) -> list[Tensor]:
    """L⁻ᵀ b for lists of (b,)."""
    solved = list(right)
    for i in reversed(range(len(right))):
        for k in range(i + 1, len(right)):
            solved[i] = solved[i] - factor[k][i] * solved[k]
        solved[i] = solved[i] / factor[i][i]
    return solved
