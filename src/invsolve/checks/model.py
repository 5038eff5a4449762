"""Is a forward model what the solvers take it for? Looked at with the rows of a dataset."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invsolve.analysis.uncertainty import MOST_UNKNOWNS
from invsolve.checks.report import Finding, Report, Speed, Verdict, examine, verdict_of_share
from invsolve.checks.speed import measure_speed
from invsolve.data.dataset import Dataset
from invsolve.errors import InvsolveError, first_line
from invsolve.jacobian import BACKWARD, weighted_jacobian
from invsolve.models.base import ForwardModel
from invsolve.models.parameters import Parameter
from invsolve.problem import Conduct, Problem
from invsolve.shapes import solution_shape

_ROWS = 64  # examples that are looked at
_STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of finite differences, in typical changes
_GRADIENT = 1e-5  # relative error of a right gradient: central differences of a smooth F in float64 do better
_LIKE_X = "make constants like x: torch.linspace(..., dtype=x.dtype, device=x.device)"
_NOWHERE = "no row has a finite y"
_ROUNDING = 1e-9  # change of a row by rounding alone: products of another batch size, amplified a little by chaos


@dataclass
class ModelUnderCheck:
    """A model with up to 64 rows of data; x flat (b, d), in the user's units."""

    model: ForwardModel
    data: Dataset
    device: torch.device
    seed: int = 0
    problem: Problem = field(init=False)
    drawn: Tensor = field(init=False)
    speed: list[Speed] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        shape = solution_shape(self.model, self.data)
        rows = self.data.rows(0, min(len(self.data), _ROWS), shape)
        conduct = Conduct(rows_apart=True)  # as far as evaluations go: whether it is so is a check of its own
        self.problem = Problem(self.model, rows, shape, self.device, torch.float64, conduct)
        self.drawn = _draw(self.problem, torch.Generator().manual_seed(self.seed))

    @property
    def rows(self) -> Tensor:
        """Indices (b,) of all rows looked at."""
        return torch.arange(self.problem.n, device=self.device)

    def sound(self, x: Tensor) -> Tensor:
        """Those of them where F is finite at x (b, d): what is wrong with the others is another check's affair."""
        loss, _ = self.problem.evaluate_user(self.rows, x, differentiate=False)
        return self.rows[torch.isfinite(loss)]

    @torch.no_grad()
    def y(self, rows: Tensor, x: Tensor) -> Tensor:
        """y (b, m), flat."""
        return self.problem.predict(self.problem.batch(rows), x).reshape(len(rows), -1)


def check_model(
    model: ForwardModel, data: Dataset, device: torch.device, *, seed: int = 0, speed: bool = True
) -> Report:
    """Everything that solvers rely on, and what F costs.

    Raises:
        InvsolveError: model and data do not fit, so that there is nothing to look at.
    """
    subject = ModelUnderCheck(model, data, device, seed)
    report = Report(f"model '{model.name}' with {len(data)} examples", examine(_FIRST, subject))
    if report.ok:  # else nothing can be evaluated
        report.findings += examine(_CHECKS + ((("speed", _speed),) if speed else ()), subject)
        report.speed = subject.speed
    return report


def _draw(problem: Problem, generator: torch.Generator) -> Tensor:
    """x (b, d) as the model simulates it, else from bounds or about x0 by a typical change."""
    known = problem.identifiers
    cpu = {k: t.cpu() for k, t in known.items()} if isinstance(known, dict) else None if known is None else known.cpu()
    try:
        drawn = problem.model.draw_parameters(problem.n, cpu, generator).reshape(problem.n, problem.d).to(problem.x0)
    except (Exception, SystemExit):  # it cannot be simulated
        drawn = problem.x0.clone()
        for j in range(problem.d):
            drawn[:, j] = _draw_nearby(problem, j, generator).to(drawn)
    return drawn.clamp(problem.coordinates.x_lower, problem.coordinates.x_upper)


def _draw_nearby(problem: Problem, j: int, generator: torch.Generator) -> Tensor:
    p = problem.parameters[j] if problem.parameters else Parameter("x")
    start = problem.x0[:, j].cpu()
    if p.prior is not None:
        return p.draw(problem.n, generator)
    if math.isfinite(p.lower) and math.isfinite(p.upper):
        return p.lower + (p.upper - p.lower) * torch.rand(problem.n, dtype=torch.float64, generator=generator)
    noise = torch.randn(problem.n, dtype=torch.float64, generator=generator)
    return start * noise.exp() if p.scale == "log" else start + p.typical * noise


def _shapes(s: ModelUnderCheck) -> Finding:
    p = s.problem
    try:
        p.evaluate_user(s.rows, p.x0)
    except InvsolveError as error:
        return Finding("shapes", Verdict.FAULT, str(error))
    known = "none"
    if isinstance(p.identifiers, dict):
        known = ", ".join(f"{k} {tuple(v.shape[1:])}" for k, v in p.identifiers.items())
    elif p.identifiers is not None:
        known = str(tuple(p.identifiers.shape[1:]))
    return Finding("shapes", Verdict.OK, f"x {p.x_shape}, identifiers {known}, y {tuple(p.y_shape)}, float64")


def _single_precision(s: ModelUnderCheck) -> Finding:
    p = s.problem
    rows = s.sound(p.x0)
    if not len(rows):
        return Finding("float32", Verdict.SKIPPED, _NOWHERE)
    single = Problem(s.model, s.data.rows(0, p.n, p.x_shape), p.x_shape, s.device, torch.float32)
    try:
        with torch.no_grad():
            rounded = single.predict(single.batch(rows), single.x0[rows]).reshape(len(rows), -1).double()
    except Exception as error:
        return Finding("float32", Verdict.WARNING, f"--dtype float32 cannot be used: {first_line(error)}", _LIKE_X)
    return Finding(
        "float32", Verdict.OK, f"y at x0 differs by {_relative(rounded, s.y(rows, p.x0[rows])):.1g} of itself"
    )


def _finite(s: ModelUnderCheck, name: str, x: Tensor, advice: str) -> Finding:
    loss, gradient = s.problem.evaluate_user(s.rows, x)
    slopes = torch.isfinite(gradient).all(1)
    good = torch.isfinite(loss) & slopes
    n, count = len(good), int(good.sum())
    if count == n:
        return Finding(name, Verdict.OK, f"loss and gradient are so in {n} of {n} rows")
    i = int((~good).nonzero()[0])
    what = "gradient" if bool(torch.isfinite(loss[i])) else "loss"
    found = f"finite in {count} of {n} rows; first not: {what} of example {i} at x = {_numbers(x[i])}"
    if s.problem.conduct.first_error is not None:
        found += f"; F raises {s.problem.conduct.first_error[1]}"
    return Finding(name, verdict_of_share(count, n), found, advice)


def _finite_at_start(s: ModelUnderCheck) -> Finding:
    return _finite(s, "finite at x0", s.problem.x0, "such rows end as nonfinite: mend x0, the data or F there")


def _finite_elsewhere(s: ModelUnderCheck) -> Finding:
    advice = "solvers step back from there, but bounds that leave it out are better"
    return _finite(s, "finite elsewhere", s.drawn, advice)


def _finite_at_bounds(s: ModelUnderCheck) -> Finding:
    x, some = s.problem.x0.clone(), False
    for j, p in enumerate(s.problem.parameters):
        ends = [b for b in (p.lower, p.upper) if math.isfinite(b) and not (p.scale == "log" and b == 0)]
        for k, end in enumerate(ends):
            x[k :: len(ends), j], some = end, True
    if not some:
        return Finding("finite at the bounds", Verdict.SKIPPED, "there are none")
    finding = _finite(s, "finite at the bounds", x, "solvers may step onto a bound: move it to where F is finite")
    lost = finding.verdict is Verdict.FAULT
    return Finding(finding.check, Verdict.WARNING, finding.found, finding.advice) if lost else finding


def _gradient(s: ModelUnderCheck) -> Finding:
    """Along a random direction of each row: the derivative by autograd against the best central difference."""
    c, generator = s.problem.coordinates, torch.Generator().manual_seed(s.seed)
    direction = torch.randn(s.drawn.shape, dtype=torch.float64, generator=generator).to(s.drawn)
    direction = direction / direction.norm(dim=1, keepdim=True)
    # A little aside: what is drawn may be the very solution, where there is no gradient to compare.
    aside = torch.randn(s.drawn.shape, dtype=torch.float64, generator=generator).to(s.drawn)
    z = (c.to_solver(s.drawn) + 0.1 * aside).clamp(c.lower, c.upper)
    loss, gradient = s.problem.evaluate(s.rows, z)
    slope = (gradient * direction).sum(1)
    error = torch.full_like(slope, torch.inf)
    for step in _STEPS:
        up, down = (s.problem.evaluate(s.rows, z + sign * step * direction)[0] for sign in (1, -1))
        difference = (up - down) / (2 * step)
        noise = 1e-12 * loss / step  # what rounding of the loss may do to the difference
        size = torch.maximum(slope.abs(), difference.abs()).clamp(min=1e-300)
        here = ((difference - slope).abs() - noise).clamp(min=0) / size
        error = torch.minimum(error, torch.where(torch.isfinite(here), here, torch.inf))
    inside = ((z - c.lower).abs() > 2 * _STEPS[0]).all(1) & ((c.upper - z).abs() > 2 * _STEPS[0]).all(1)
    seen = torch.isfinite(loss) & torch.isfinite(error) & inside
    n, good = int(seen.sum()), int((error[seen] <= _GRADIENT).sum())
    if n == 0:
        return Finding("gradient", Verdict.SKIPPED, "no row is finite on both sides of a point inside the bounds")
    found = f"that of finite differences in {good} of {n} rows"
    if good < n:
        found += f"; worst off by {float(error[seen].max()):.1g} of itself"
    verdict = Verdict.OK if good >= 0.9 * n else Verdict.WARNING if good >= 0.5 * n else Verdict.FAULT
    advice = "look for .detach(), in-place changes or a custom backward; jumps and kinks of F show here too"
    return Finding("gradient", verdict, found, "" if verdict is Verdict.OK else advice)


def _gradient_at_start(s: ModelUnderCheck) -> Finding:
    name, p = "gradient at x0", s.problem
    _, gradient = p.evaluate_user(s.rows, p.x0)
    if flat := int((gradient == 0).all(1).sum()):
        advice = "methods that go row by row cannot leave such a start: choose another x0, or use --method jpo"
        return Finding(name, Verdict.WARNING, f"zero in {flat} of {p.n} rows", advice)
    if bool((dead := (gradient == 0).all(0)).any()):
        names = [q.name for q in p.parameters] or [f"x[{j}]" for j in range(p.d)]
        which = ", ".join(n for n, is_dead in zip(names, dead.tolist(), strict=True) if is_dead)
        return Finding(name, Verdict.WARNING, f"zero in every row for {which}", "start elsewhere, or leave it out")
    return Finding(name, Verdict.OK, "nonzero in every row")


def _rows_apart(s: ModelUnderCheck) -> Finding:
    rows, name = s.sound(s.drawn), "row independence"
    if len(rows) < 2:
        return Finding(name, Verdict.SKIPPED, "needs two examples with finite y")
    x = s.drawn[rows]
    whole = s.y(rows, x)
    # The first place of the batch is given to the last example, at another x.
    changed = torch.cat([rows[-1:], rows[1:]])
    effect = _relative(s.y(changed, torch.cat([s.problem.x0[rows[-1:]], x[1:]]))[1:], whole[1:])
    split = _relative(torch.cat([s.y(r, s.drawn[r]) for r in rows.chunk(2)]), whole)
    worst = max(effect, split)
    if worst <= _ROUNDING:
        return Finding(name, Verdict.OK, "changing one row changes no other, nor does splitting the batch")
    if worst <= 1e-5:
        found = f"y of a row changes by {worst:.1g} of itself with other rows"
        advice = "steps of a solver that all rows share, or chaos: tighten its tolerance, or fix its steps"
        return Finding(name, Verdict.WARNING, found, advice)
    advice = (
        "row i of y must come from row i of x and identifiers alone: look for sums, means or norms over axis 0, or a "
        "solver with steps that all rows share"
    )
    return Finding(name, Verdict.FAULT, f"y of a row changes by {worst:.1g} of itself with other rows", advice)


def _relative(a: Tensor, b: Tensor) -> float:
    """Largest difference of the finite numbers in a and b (b, m), as a part of the largest of them in the row."""
    both = torch.isfinite(a) & torch.isfinite(b)
    if not bool(both.any()):
        return 0.0
    scale = torch.where(both, b.abs(), 0.0).amax(1, keepdim=True).clamp(min=1e-300)
    return float((torch.where(both, (a - b).abs(), 0.0) / scale).max())


def _repeatable(s: ModelUnderCheck) -> Finding:
    rows, name = s.sound(s.drawn), "repeatability"
    if not len(rows):
        return Finding(name, Verdict.SKIPPED, _NOWHERE)
    one, again = (s.y(rows, s.drawn[rows]) for _ in range(2))
    difference = _relative(one, again)
    if difference == 0:
        return Finding(name, Verdict.OK, "the same x gives the same y")
    verdict = Verdict.WARNING if difference < _ROUNDING else Verdict.FAULT
    advice = "seed what is random in F, and switch dropout off (.eval())"
    return Finding(name, verdict, f"the same x gives y that differ by {difference:.1g} of themselves", advice)


def _forward_mode(s: ModelUnderCheck) -> Finding:
    name, rows = "Jacobian", s.sound(s.problem.x0)[:2]
    if not len(rows):
        return Finding(name, Verdict.SKIPPED, _NOWHERE)
    if s.problem.d > MOST_UNKNOWNS:
        return Finding(name, Verdict.SKIPPED, f"--covariance takes up to {MOST_UNKNOWNS} unknowns, x has {s.problem.d}")
    if not bool(torch.isfinite(weighted_jacobian(s.problem, rows, s.problem.x0[rows])).all()):
        advice = "a backward pass that cannot be repeated, or NaN in it: --covariance would be unknown"
        return Finding(name, Verdict.WARNING, f"not finite at x0 of example {int(rows[0])}", advice)
    if s.problem.d > s.problem.targets.shape[1] or s.problem.conduct.jacobian_by != BACKWARD:
        return Finding(name, Verdict.OK, "--covariance can be used")
    advice = "an operation has no forward derivative: an autograd.Function without jvp, or an adaptive solver"
    return Finding(name, Verdict.WARNING, "only by the backward pass, target by target: --covariance is slow", advice)


def _truth(s: ModelUnderCheck) -> Finding:
    if s.data.x_true is None:
        return Finding("x_true", Verdict.SKIPPED, "the data have none")
    p = s.problem
    x = torch.as_tensor(s.data.x_true[: p.n]).to(p.x0).reshape(p.n, p.d)
    loss = p.evaluate_user(s.rows, x, differentiate=False)[0].median()
    start = p.evaluate_user(s.rows, p.x0, differentiate=False)[0].median()
    found = f"median loss {float(loss):.3g}, at x0 {float(start):.3g}"
    if bool(loss <= 1.5 * start):  # a good guess may be as good as the truth, within the noise
        return Finding("x_true", Verdict.OK, found)
    advice = "the model is not the one that made the data, or its options (-M), units or identifiers differ"
    return Finding("x_true", Verdict.WARNING, found, advice)


def _speed(s: ModelUnderCheck) -> Finding:
    s.speed = measure_speed(s.problem)
    best = min((m for m in s.speed if m.gradient_ms is not None), key=lambda m: m.gradient_ms or 0.0)
    rate = 1000 / (best.gradient_ms or 1.0)
    return Finding("speed", Verdict.OK, f"{rate:,.0f} rows a second with their gradients, at batch size {best.batch}")


def _devices(s: ModelUnderCheck) -> Finding:
    if not torch.cuda.is_available():
        return Finding("devices", Verdict.OK, f"works on {s.device}; no CUDA device is here to try")
    p, name = s.problem, "devices"
    other = torch.device("cpu" if s.device.type == "cuda" else "cuda")
    there = Problem(s.model, s.data.rows(0, p.n, p.x_shape), p.x_shape, other, torch.float64)
    rows = s.sound(s.drawn)
    try:
        with torch.no_grad():
            y = there.predict(there.batch(rows.to(other)), s.drawn[rows].to(other))
            moved = y.reshape(len(rows), -1).to(s.device)
    except Exception as error:
        return Finding(name, Verdict.WARNING, f"works on {s.device}, not on {other}: {first_line(error)}", _LIKE_X)
    difference = _relative(moved, s.y(rows, s.drawn[rows]))
    return Finding(name, Verdict.OK, f"works on cpu and cuda, which differ by {difference:.1g}")


_FIRST = (("shapes", _shapes),)
_CHECKS = (
    ("finite at x0", _finite_at_start),
    ("finite elsewhere", _finite_elsewhere),
    ("finite at the bounds", _finite_at_bounds),
    ("gradient", _gradient),
    ("gradient at x0", _gradient_at_start),
    ("row independence", _rows_apart),
    ("repeatability", _repeatable),
    ("float32", _single_precision),
    ("Jacobian", _forward_mode),
    ("x_true", _truth),
    ("devices", _devices),
)


def _numbers(x: Tensor) -> str:
    values = [f"{v:.3g}" for v in x[:6].tolist()]
    return ", ".join(values) + (", …" if len(x) > 6 else "")
