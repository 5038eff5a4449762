"""Sums of squares near a point: the loss, its gradient and the Gauss–Newton matrix, also of robust losses."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from invsolve.errors import InvsolveError
from invsolve.jacobian import BACKWARD, columns, linearized
from invsolve.problem import Batch, Problem

LossName = Literal["linear", "huber", "soft_l1", "cauchy"]
_LEAST_CURVATURE = 0.1  # of a residual's weight in the gradient: what keeps the matrix definite far from a minimum


class RobustLoss:
    """½ Σ_j C² ρ((r_j / C)²), with ρ and the scale C as in `scipy.optimize.least_squares`; ρ(s) = s is least squares.

    huber: s up to 1, then 2√s − 1; soft_l1: 2(√(1 + s) − 1); cauchy: ln(1 + s).
    """

    def __init__(self, name: LossName, scale: float) -> None:
        self.name, self.scale = name, scale

    def __call__(self, residual: Tensor) -> Tensor:
        """Loss (b,) of residuals (b, m)."""
        return self.weigh(residual)[0]

    def weigh(self, residual: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss (b,) of residuals r (b, m), and the weights (b, m) of r in its gradient and of JᵀJ in its curvature.

        No weights are ones.
        """
        if self.name == "linear":
            return 0.5 * residual.square().sum(1), None, None
        s = (residual / self.scale).square()
        if self.name == "huber":
            outside = s > 1
            root = torch.where(outside, s, 1.0).sqrt()
            rho, first = torch.where(outside, 2 * root - 1, s), 1 / root
            second = torch.where(outside, -0.5 / root**3, 0.0)
        elif self.name == "soft_l1":
            root = (1 + s).sqrt()
            rho, first, second = 2 * (root - 1), 1 / root, -0.5 / root**3
        else:
            rho, first, second = torch.log1p(s), 1 / (1 + s), -1 / (1 + s).square()
        # The second derivative of the loss by r, where it is not too small (Triggs et al. 2000, section 4.3).
        curvature = torch.maximum(first + 2 * s * second, _LEAST_CURVATURE * first)
        return 0.5 * self.scale**2 * rho.sum(1), first, curvature


def normal_equations(problem: Problem, batch: Batch, z: Tensor, robust: RobustLoss) -> tuple[Tensor, ...]:
    """Loss (b,), gradient (b, d), Gauss–Newton matrix (b, d, d), its factor, and evaluations and gradients (b,) made.

    All at z (b, d) in the solver's coordinates, the penalty of a prior included. The factor (b, d, d + 1) is [R | c] by
    a QR decomposition, RᵀR the matrix and Rᵀc the gradient, for rows whose matrix is ill-conditioned; elsewhere 0.
    Where F or a derivative fails, or nothing was observed, the loss is +inf and all else 0.
    """
    x = problem.coordinates.to_user(z)
    residual, jacobian, evaluations, gradients = linearized(problem, batch, x)
    loss, first, second = robust.weigh(residual)
    pulled = residual if first is None else first * residual
    bent = jacobian if second is None else second[:, :, None] * jacobian
    gradient = (pulled[:, None, :] @ jacobian).squeeze(1)
    loss, gradient, matrix = _in_solver_units(problem, batch, x, loss, gradient, jacobian.mT @ bent)
    factor = matrix.new_zeros(1, 1, 1).expand(*x.shape, problem.d + 1)
    # A step from the matrix is wrong by about rounding / pivot of itself.
    ill = (_least_pivot(matrix) < torch.finfo(matrix.dtype).eps ** 0.5).nonzero().squeeze(1)
    if len(ill):
        parts = (None if t is None else t[ill] for t in (x, jacobian, pulled, second))
        factor = factor.index_copy(0, ill, _factor(problem, *parts))  # type: ignore[arg-type]
    return loss, gradient, matrix, factor, evaluations, gradients


def _factor(problem: Problem, x: Tensor, jacobian: Tensor, pulled: Tensor, second: Tensor | None) -> Tensor:
    """[R | c] (b, d, d + 1): R (b, d, d) of J = QR, and c = Qᵀr.

    By the decomposition of [J | r], in which Q is not made (Björck 1996, Numerical Methods for Least Squares Problems,
    chapter 2). With weights w₁ of r in the gradient and w₂ in the curvature, it is that of [√w₂ J | w₁/√w₂ r].
    """
    slope = problem.coordinates.slope(x).expand_as(x)
    if second is not None:
        root = second.clamp(min=torch.finfo(x.dtype).tiny).sqrt()
        jacobian, pulled = root[:, :, None] * jacobian, pulled / root
    stacked = torch.cat([jacobian * slope[:, None, :], pulled[:, :, None]], dim=2)
    if problem.penalty is not None:
        residual = (x - problem.penalty.mean) / problem.penalty.std
        prior = torch.cat([torch.diag_embed(slope / problem.penalty.std), residual[:, :, None]], dim=2)
        stacked = torch.cat([stacked, prior], dim=1)
    upper = torch.linalg.qr(stacked, mode="r").R[:, : problem.d]
    # What overflows is left to the matrix, for nothing that is not finite can be decomposed any further.
    upper = torch.where(torch.isfinite(upper).all(2).all(1)[:, None, None], upper, 0.0)
    # With fewer targets than unknowns, R has fewer rows.
    return torch.nn.functional.pad(upper, (0, 0, 0, problem.d - upper.shape[1]))


def _least_pivot(matrix: Tensor) -> Tensor:
    """The least pivot (b,) that Cholesky's decomposition of A (b, d, d) meets, A scaled to a unit diagonal.

    Of A = JᵀJ it is 1 − R² of the column of J that those before it explain best: at least κ(A)⁻¹, and usually not much
    more. A column of zeros troubles no other, and does not count.
    """
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    if bool((diagonal == 0).any()):
        matrix = matrix + torch.diag_embed((diagonal == 0).to(matrix))
        diagonal = matrix.diagonal(dim1=1, dim2=2)
    # The scale of the columns changes pivots by itself alone: it need not be taken out before.
    lower, info = torch.linalg.cholesky_ex(matrix)
    pivots = lower.diagonal(dim1=1, dim2=2).square() / diagonal
    return torch.where(info == 0, pivots.amin(1), 0.0)


def fused_normal_equations(problem: Problem, batch: Batch, z: Tensor, robust: RobustLoss) -> tuple[Tensor, ...]:
    """The same written as single sums over targets, in which a compiler need not store the Jacobian."""
    x = problem.coordinates.to_user(z)
    residual, derivatives = columns(problem, batch, x)
    loss, first, second = robust.weigh(residual)
    pulled = residual if first is None else first * residual
    d = len(derivatives)
    gradient = torch.stack([(c * pulled).sum(1) for c in derivatives], dim=1)
    bent = derivatives if second is None else [second * c for c in derivatives]
    half = {(i, j): (derivatives[i] * bent[j]).sum(1) for i in range(d) for j in range(i + 1)}
    matrix = torch.stack([half[max(i, j), min(i, j)] for i in range(d) for j in range(d)], dim=1).reshape(-1, d, d)
    one = torch.ones_like(batch.rows)
    return *_in_solver_units(problem, batch, x, loss, gradient, matrix), one, d * one


def nowhere(z: Tensor) -> tuple[Tensor, ...]:
    """What `normal_equations` gives, each (1, ...), for a row where F fails."""
    d, one = z.shape[1], torch.ones(1, dtype=torch.int64, device=z.device)
    loss, gradient = z.new_full((1,), torch.inf), z.new_zeros(1, d)
    return loss, gradient, z.new_zeros(1, d, d), z.new_zeros(1, d, d + 1), one, 0 * one


def _in_solver_units(
    problem: Problem, batch: Batch, x: Tensor, loss: Tensor, gradient: Tensor, matrix: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    slope = problem.coordinates.slope(x).expand_as(x)
    gradient, matrix = gradient * slope, matrix * (slope[:, :, None] * slope[:, None, :])
    if problem.penalty is not None:
        loss, gradient = loss + problem.penalty.loss(x), gradient + problem.penalty.gradient(x, slope)
        matrix = matrix + torch.diag_embed((slope / problem.penalty.std).square())
    if batch.blank is not None:
        loss = loss.masked_fill(batch.blank, torch.inf)
    finite = torch.isfinite(loss + (gradient * 0).sum(1) + (matrix * 0).sum((1, 2)))
    return (
        loss.masked_fill(~finite, torch.inf),
        gradient.masked_fill(~finite[:, None], 0.0),
        matrix.masked_fill(~finite[:, None, None], 0.0),
    )


def gauss_newton_product(
    problem: Problem, batch: Batch, z: Tensor, direction: Tensor, robust: RobustLoss
) -> tuple[Tensor, ...]:
    """The Gauss–Newton matrix at z (b, d) times a direction (b, d), and the evaluations and gradients (b,) made.

    By a derivative along the direction and a backward pass, so that neither matrix nor Jacobian are ever there. NaN
    where F or a derivative fails.
    """
    x = problem.coordinates.to_user(z)
    slope = problem.coordinates.slope(x)
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        residual, along = _along(problem, batch, at, slope * direction)
        curvature = robust.weigh(residual.detach())[2]
        along = along if curvature is None else curvature * along
        (product,) = torch.autograd.grad(residual, at, along)
    product = product * slope
    if problem.penalty is not None:
        product = product + direction * (slope / problem.penalty.std).square()
    one = torch.ones_like(batch.rows)
    return product, one, 2 * one


def _along(problem: Problem, batch: Batch, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The residuals (b, m), differentiable to x, and their derivative along a direction, by one evaluation of F.

    Forward, or where the model cannot, twice backward; that is kept in `Conduct.jacobian_by`, not to be tried again.
    """
    if problem.conduct.jacobian_by != BACKWARD:
        try:
            residual, derivative = torch.func.jvp(  # type: ignore[misc]
                lambda v: problem.residual(batch, v), (x,), (direction,)
            )
            return residual, derivative.detach()
        except InvsolveError:
            raise
        except (Exception, SystemExit):  # an operation without such a derivative, or rows that raise: then below, too
            pass
    residual = problem.residual(batch, x)
    weight = torch.zeros_like(residual, requires_grad=True)
    (pulled,) = torch.autograd.grad(residual, x, weight, create_graph=True)
    (derivative,) = torch.autograd.grad(pulled, weight, direction, retain_graph=True)
    problem.conduct.jacobian_by = BACKWARD
    return residual, derivative
