"""Will joint optimization help with these data, or is it enough to start more often, or once?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invsolve.analysis.alignment import cosines, group_sizes, joint_alignment
from invsolve.analysis.landscape import along, has_barrier, is_flat, losses
from invsolve.analysis.slices import COARSE, COARSE_LINE, FINE, GRID, LINES, PLANES, Seen, Slice, lines, planes
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.store import read_dataset
from invsolve.diagnosis.result import Alignment, Diagnosis, Flatness, Minima
from invsolve.diagnosis.sample import Sample, draw_sample
from invsolve.diagnosis.starts import STARTS, Starts, local_method, run_starts
from invsolve.diagnosis.tangent import joint_update
from invsolve.diagnosis.verdict import judge
from invsolve.errors import OptionError
from invsolve.registry import model_of
from invsolve.sampling import Sampler
from invsolve.settings import MANY, check_seed, choose_device

EXAMPLES = 64
TIME_LIMIT = 90.0  # seconds, about
NETWORKS = 8  # random ones, over which the alignment is averaged
_ROUNDS, _ROUNDS_EACH = 60, 4  # evaluations of a start of BFGS, and more of them for each unknown, to plan by
_SHARE = 0.7  # of the time, for the starts
_SHARE_SEEN = 0.2  # of the time, for slices to be looked at
_WAY = 65  # points on the way from x0 to the solution, in which barriers are looked for


def diagnose(
    dataset: Dataset | str | Path,
    model: Any = None,
    *,
    model_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    seed: int = 0,
    examples: int = EXAMPLES,
    slices: bool = False,
    time_limit: float | None = None,
    control: Control | None = None,
) -> Diagnosis:
    """Find out whether JPO will help with a dataset: from some of its examples, in a minute or so.

    Args:
        dataset, model, model_options, device: as for `solve`.
        seed: of the sample, the starts and the random networks.
        examples: how many to look at; all, where there are fewer.
        slices: compute slices of the loss of a few of them, for pictures.
        time_limit: in seconds, 90 by default. Where F is slow, fewer examples and starts are taken to keep it.
        control: to watch it, or to end it early.

    Raises:
        InvsolveError: something asked for is not possible; its text says what, and what to do.
    """
    began = time.monotonic()
    control, limit = control or Control(), TIME_LIMIT if time_limit is None else time_limit
    _check(examples, limit, seed)
    chosen_device = choose_device(device)
    data = dataset if isinstance(dataset, Dataset) else read_dataset(dataset)
    loaded = model_of(data, model, dict(model_options or {}))
    sample = draw_sample(data, loaded, examples, seed, chosen_device)
    if refusal := local_method(sample.problem.d).refusal(sample.problem.d, torch.float64):
        raise OptionError(refusal)
    rows, count = _affordable(sample, limit)
    control.start(_SHARE * limit)
    starts = run_starts(sample.problem, rows, count, sample.batch_size, seed, control)
    control.start(max(limit - (time.monotonic() - began), 0.1 * limit))
    known = best_known(sample, starts)
    alignment = measure_alignment(sample, known, seed, control)
    minima, flatness = _minima(sample, starts, known), _flatness(sample, starts)
    shown = (
        _slices(sample, starts, known, data, seed, _SHARE_SEEN * limit) if slices and not control.interrupted else []
    )
    recommendation, summary, verdicts = judge(alignment, flatness, minima)
    return Diagnosis(
        model=loaded.name,
        n=len(data),
        examples=sample.numbers,
        nonfinite=sample.nonfinite,
        unknowns=sample.problem.d,
        alignment=alignment,
        flatness=flatness,
        minima=minima,
        recommendation=recommendation,
        summary=summary,
        verdicts=verdicts,
        evaluations=int(sample.problem.evaluations.sum()) + sample.evaluations,
        gradients=int(sample.problem.gradients.sum()) + sample.gradients,
        seconds=time.monotonic() - began,
        cut_short=len(rows) < sample.problem.n or count < STARTS or control.interrupted,
        slices=shown,
    )


def _check(examples: int, limit: float, seed: int) -> None:
    if not 1 <= examples <= MANY:
        raise OptionError(f"examples must be from 1 to {MANY}, found {examples}")
    if not limit > 0:
        raise OptionError(f"time_limit must be > 0 seconds, found {limit}")
    check_seed(seed)


def _affordable(sample: Sample, limit: float) -> tuple[Tensor, int]:
    """Which rows (b,) to start from how many points, by what an evaluation was seen to take."""
    n = sample.problem.n
    most = _SHARE * limit / (sample.seconds * (_ROUNDS + _ROUNDS_EACH * sample.problem.d))
    count = STARTS if most >= 4 * STARTS else STARTS // 2
    number = min(n, max(2, int(most) // count))
    # Evenly over the sample, which is in the order of the data.
    rows = torch.linspace(0, n - 1, number, dtype=torch.float64).round().long()
    return rows.to(sample.problem.device), count


def best_known(sample: Sample, starts: Starts) -> Tensor:
    """z (N, d) of the best known solution of each example: x_true, else the best end of its starts; NaN without any."""
    if sample.z_true is not None:
        return sample.z_true
    known = torch.full_like(sample.z0, torch.nan)
    usable = starts.complete & (starts.loss.amin(1) < sample.loss[starts.rows])
    known[starts.rows[usable]] = starts.best[usable]
    return known


def measure_alignment(sample: Sample, known: Tensor, seed: int, control: Control) -> Alignment | None:
    """How well steps point from x0 to the solutions `known`, z (N, d); None where they are of no example."""
    direction = known - sample.z0
    usable = (torch.isfinite(direction).all(1) & (direction != 0).any(1)).nonzero().squeeze(1)
    if not len(usable):
        return None
    problem, direction, gradient = sample.problem.select(usable), direction[usable], sample.gradient[usable]
    flat = is_flat(sample.loss[usable], gradient, 1.0, 1e-9 * problem.loss_of_nothing())
    sizes, found = group_sizes(len(usable)), []
    for network in range(NETWORKS):
        generator = torch.Generator().manual_seed(network)
        update = joint_update(problem, gradient, (seed + network) % 2**63)
        found.append(joint_alignment(update, direction, sizes, generator))
        if control.stopped:
            break
    each = torch.stack(found)  # (networks, sizes, examples)
    means = each.nanmean(2)
    return Alignment(
        reference="best found" if sample.z_true is None else "x_true",
        examples=len(usable),
        networks=len(found),
        sizes=sizes,
        joint=means.mean(0).tolist(),
        spread=means.std(0, correction=0).tolist(),
        plain=float(cosines(-gradient, direction).mean()),
        joint_flat=float(each[:, -1, flat].nanmean()) if bool(flat.any()) else None,
    )


def _flatness(sample: Sample, starts: Starts) -> Flatness:
    unit = Sampler(sample.problem, 0).units(sample.z0)
    flat = is_flat(sample.loss, sample.gradient, unit, 1e-9 * sample.problem.loss_of_nothing())
    drawn = starts.begun[:, 1:]
    return Flatness(
        at_x0=_share(flat) or 0.0,
        at_drawn=_share(starts.flat[:, 1:].flatten()[torch.isfinite(drawn).flatten()]),
        failing_drawn=_share(torch.isinf(drawn).flatten()),
    )


def _share(which: Tensor) -> float | None:
    """Share of a mask that is true; None of an empty one."""
    return float(which.double().mean()) if which.numel() else None


def _minima(sample: Sample, starts: Starts, known: Tensor) -> Minima:
    told, rows = starts.complete, starts.rows
    is_best = starts.is_best[told]
    solved_x0 = solved_best = barrier = None
    if sample.loss_true is not None and bool(told.any()):
        # The contract's rule, section 1.
        goal = (1.05 * sample.loss_true + 1e-3 * sample.loss)[rows[told]]
        solved_x0, solved_best = _share(starts.loss[told, 0] <= goal), _share(starts.loss[told].amin(1) <= goal)
    way = rows[torch.isfinite(known[rows]).all(1)]
    if len(way):
        t = torch.linspace(0, 1, _WAY, dtype=torch.float64, device=way.device)
        barrier = _share(
            has_barrier(losses(sample.problem, way, along(sample.z0[way], known[way], t), sample.batch_size))
        )
    minima = starts.minima[starts.counted]
    return Minima(
        method=starts.method,
        examples=int(told.sum()),
        starts=starts.points.shape[1],
        unfinished=_share(~starts.finished & torch.isfinite(starts.begun)) or 0.0,
        several=_share(minima > 1),
        mean=float(minima.double().mean()) if len(minima) else None,
        x0_worse=_share(~is_best[:, 0]),
        found_again=_share(is_best.sum(1) >= 2),
        solved_x0=solved_x0,
        solved_best=solved_best,
        barrier=barrier,
    )


def _slices(sample: Sample, starts: Starts, known: Tensor, data: Dataset, seed: int, limit: float) -> list[Slice]:
    """Lines and planes through the first few examples of which something is known, within so many seconds."""
    usable = torch.isfinite(known[starts.rows]).all(1).nonzero().squeeze(1)[:LINES]
    if not len(usable):
        return []
    rows = starts.rows[usable]
    numbers = sample.numbers[rows.cpu().numpy()]
    names = [f"example {i}" if data.names is None else str(data.names[i]) for i in numbers]
    seen = Seen(sample.problem, rows, names, sample.z0[rows], known[rows], starts.z[usable], seed, sample.batch_size)
    most = max(int(limit / (2 * sample.seconds)), 1)  # evaluations for either kind
    shown = lines(seen, min(FINE, max(most // LINES, COARSE_LINE)))
    if sample.problem.d > 1:
        number = min(PLANES, max(most // COARSE**2, 1))
        shown += planes(seen.first(number), min(GRID, max(math.isqrt(most // number), COARSE)))
    return shown
