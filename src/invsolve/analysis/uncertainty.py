"""How well the data determine x: Gauss–Newton covariance, condition, and parameters that the data cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from invsolve.analysis.evaluate import in_time
from invsolve.control import Control
from invsolve.data.solution import Identifiability
from invsolve.jacobian import weighted_jacobian
from invsolve.problem import Problem

MOST_UNKNOWNS = 128  # of an x whose covariance is computed: it is a d × d matrix for every example
_RANK = 1e-9  # singular values below this part of the largest are directions in which the data tell nothing
_TAKES_PART = 1e-6  # of a parameter in such a direction, a unit vector


@dataclass(frozen=True)
class Uncertainty:
    """Of b examples at their solutions; NaN or UNKNOWN in rows whose Jacobian is not finite."""

    covariance: Tensor  # (b, d, d) in the user's units; a singular parameter has inf on the diagonal, NaN beside it
    std_error: Tensor  # (b, d) square roots of its diagonal
    condition_number: Tensor  # (b,) of the Jacobian per typical change of each parameter, so that units do not matter
    identifiability: Tensor  # (b, d) int8, see Identifiability

    @classmethod
    def unknown(cls, n: int, d: int) -> Uncertainty:
        """Of n examples of which nothing is known."""
        square = torch.full((n, d, d), torch.nan, dtype=torch.float64)
        flags = torch.full((n, d), int(Identifiability.UNKNOWN), dtype=torch.int8)
        return cls(square, square[:, :, 0], square[:, 0, 0], flags)


def uncertainty(
    problem: Problem, x: Tensor, loss: Tensor, batch_size: int, control: Control | None = None
) -> Uncertainty:
    """Uncertainty of x (n, d), in the user's units and with data losses (n,), `batch_size` rows of F at a time.

    C = s² (JᵀJ)⁻¹ with J the Jacobian of the weighted residuals (Nocedal and Wright 2006, section 10.3; with the
    precision of Gaussian priors added where they are used). Where the data bring σ or priors are used, s² = 1; else
    it is estimated from the residuals, s² = 2L/(m − d) for m observed targets, and NaN where m ≤ d. Of rows that
    `control` leaves no time for it is unknown.
    """
    rows_at_once = max(1, batch_size // problem.d)
    found = Uncertainty(*(t.clone().to(x.device) for t in vars(Uncertainty.unknown(problem.n, problem.d)).values()))
    for rows in in_time((~torch.isnan(loss)).nonzero().squeeze(1), rows_at_once, control):
        part = _of_rows(problem, rows, x[rows], loss[rows])
        for field in fields(Uncertainty):
            getattr(found, field.name)[rows] = getattr(part, field.name)
    return found


def reduced_chi2(problem: Problem, loss: Tensor) -> Tensor:
    """2L/(m − d), (n,), for m observed targets; NaN where m ≤ d. About 1 where model and σ are right."""
    freedom = (_observed(problem, slice(None)) - problem.d).to(loss.dtype)
    return torch.where(freedom > 0, 2 * loss / freedom, torch.nan)


def _observed(problem: Problem, rows: slice | Tensor) -> Tensor:
    """Number (b,) of observed targets."""
    if problem.observed is None:
        return torch.full_like(problem.evaluations[rows], problem.targets.shape[1])
    return problem.observed[rows].sum(1)


def _of_rows(problem: Problem, rows: Tensor, x: Tensor, loss: Tensor) -> Uncertainty:
    slope = problem.coordinates.slope(x).expand_as(x)
    scaled = weighted_jacobian(problem, rows, x) * slope[:, None, :]
    known = torch.isfinite(loss) & torch.isfinite(scaled).flatten(1).all(1)
    scaled = torch.where(known[:, None, None], scaled, 0.0)
    variance = torch.ones_like(loss)
    if not problem.has_sigma and problem.penalty is None:
        freedom = _observed(problem, rows) - problem.d
        variance = torch.where(freedom > 0, 2 * loss / freedom, torch.nan)
    inverse, singular, condition = _inverse_normal(scaled)
    flags = _flags(problem, x, (variance[:, None] * inverse.diagonal(dim1=1, dim2=2)).sqrt(), singular)
    if problem.penalty is not None:
        prior = torch.diag_embed(slope / problem.penalty.std)
        inverse, singular, _ = _inverse_normal(torch.cat([scaled, prior], dim=1))
    covariance = variance[:, None, None] * inverse * slope[:, :, None] * slope[:, None, :]
    beside = singular[:, :, None] | singular[:, None, :] | ~known[:, None, None]
    covariance = covariance.masked_fill(beside, torch.nan)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    diagonal.masked_fill_(singular & known[:, None], torch.inf)
    return Uncertainty(
        covariance,
        diagonal.sqrt(),
        condition.masked_fill(~known, torch.nan),
        flags.masked_fill(~known[:, None], int(Identifiability.UNKNOWN)),
    )


def _inverse_normal(jacobian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(JᵀJ)⁺ (b, d, d), which parameters (b, d) take part in a singular direction, and the condition of J (b,)."""
    b, m, d = jacobian.shape
    if m < d:  # rows of zeros, so that all d directions have a singular value
        jacobian = torch.cat([jacobian, jacobian.new_zeros(b, d - m, d)], dim=1)
    _, s, directions = torch.linalg.svd(jacobian, full_matrices=False)
    lost = s <= _RANK * s[:, :1]
    singular = (lost[:, :, None] & (directions.abs() > _TAKES_PART)).any(1)
    inverse_square = torch.where(lost, 0.0, torch.where(lost, 1.0, s) ** -2)
    inverse = directions.mT @ (inverse_square[:, :, None] * directions)
    return inverse, singular, torch.where(s[:, -1] > 0, s[:, 0] / s[:, -1], torch.inf)


def _flags(problem: Problem, x: Tensor, error: Tensor, singular: Tensor) -> Tensor:
    """(b, d) int8 from x and its standard errors (b, d) in typical changes, by the data alone."""
    flags = torch.full(x.shape, int(Identifiability.DETERMINED), dtype=torch.int8, device=x.device)
    for j, p in enumerate(problem.parameters):
        if p.scale == "log" or p.spread is not None:  # else nothing says what a large error is
            flags[:, j].masked_fill_(error[:, j] > 1, int(Identifiability.WEAK))
    c = problem.coordinates
    flags.masked_fill_((x <= c.x_lower) | (x >= c.x_upper), int(Identifiability.AT_BOUND))
    return flags.masked_fill_(singular, int(Identifiability.SINGULAR))
