"""Multi-start: which minima it finds, when it ends, what it costs, and that examples do not know of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve import ranges
from invsolve.control import Control, Progress
from invsolve.data.dataset import Dataset
from invsolve.data.solution import FoundBy, Status
from invsolve.methods import search
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Normal, Parameter, Uniform

LEVELS = np.array([[0.1], [0.3], [0.5]])


class TwoWells(ForwardModel):
    """y = (x² − 1, x/10): minima near −1 and 1, of which the targets say which one is the lower."""

    parameters = (Parameter("x", prior=Uniform(-3, 3), initial=0.5),)

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.cat([x**2 - 1, x / 10], dim=1)


class Wave(ForwardModel):
    """y = sin(x) with x in [0, 6π]: six solutions of any y in (−1, 1), and no other minimum."""

    parameters = (Parameter("x", lower=0.0, upper=6 * np.pi, initial=1.0),)

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.sin(x)


def wells(n: int = 6) -> Dataset:
    """Half of them are lowest at −1, which x0 does not lead to. Nothing fits perfectly."""
    return Dataset(targets=np.tile([[0.0, -0.5], [0.0, 0.5]], (n // 2, 1)))


def solve(data: Dataset, model: Any = TwoWells, options: dict[str, Any] | None = None, **more: Any) -> Any:
    return invsolve.solve(data, model, "multistart", options=options or {}, **more)


def test_it_finds_the_lower_of_two_minima_and_tells_by_which_start() -> None:
    alone, many = invsolve.solve(wells(), TwoWells), solve(wells())
    assert (alone.x > 0).all()
    np.testing.assert_allclose(many.x[:, 0], [-1.0, 1.0] * 3, atol=0.02)
    assert many.found_by.tolist() == [FoundBy.MULTISTART, FoundBy.LOCAL] * 3
    assert many.minima.tolist() == [2] * 6
    assert set(many.starts.tolist()) <= {16, 24}  # of 16 starts some 8 end in either
    assert (many.loss <= alone.loss * (1 + 1e-9)).all()
    assert (many.status == Status.CONVERGED).all()


@pytest.mark.parametrize("local", ["bfgs", "lm", "lbfgs", "gd"])
def test_minima_are_counted(local: str) -> None:
    """sin(x) = 2 cannot be had: sin(x) = 1 can, thrice in [0, 6π]; and 6π is a minimum for its bound, 0 is none."""
    data = Dataset(targets=np.full((4, 1), 2.0))
    solution = solve(data, Wave, {"starts": 32, "agree": 32, "local": local})
    assert solution.minima.tolist() == [4] * 4
    np.testing.assert_allclose(np.sin(solution.x), 1, atol=1e-4)
    assert solution.starts.tolist() == [32] * 4


def test_a_perfect_fit_ends_the_search() -> None:
    solution = solve(Dataset(targets=LEVELS), Wave)
    assert (solution.loss < 1e-12).all()
    assert solution.starts.tolist() == [1] * 3
    assert solution.minima.tolist() == [1] * 3
    assert solution.found_by.tolist() == [FoundBy.LOCAL] * 3


@pytest.mark.parametrize(("agree", "starts"), [(1, {8}), (3, {8}), (6, {16}), (12, {24, 32}), (99, {50})])
def test_agreement_ends_the_search(agree: int, starts: set[int]) -> None:
    """Either well catches about half of the starts: 3 of 8, 6 of 16, 12 of 24 or a few more."""
    solution = solve(wells(8), options={"agree": agree, "starts": 50})
    assert set(solution.starts.tolist()) <= starts


def test_waves_grow_slowly() -> None:
    """8 at a time, then a quarter of those made: what agreement saves is not spent by the last wave."""
    ends = [set(solve(wells(2), options={"agree": a, "starts": 200}).starts.tolist()) for a in (2, 10, 24)]
    assert {s for end in ends for s in end} <= {8, 16, 24, 32, 40, 50, 62, 77, 96, 120}


def test_one_start_is_the_local_method() -> None:
    data = invsolve.generate("billiards", 8, seed=1)
    one, local = solve(data, None, {"starts": 1}), invsolve.solve(data)
    np.testing.assert_array_equal(one.x, local.x)
    np.testing.assert_array_equal(one.evaluations, local.evaluations)
    assert one.starts.tolist() == [1] * 8


def test_examples_know_nothing_of_batches_or_ranges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = invsolve.generate("wave-packet", 11, seed=4)
    whole = solve(data, None)
    monkeypatch.setattr(search, "_MEMORY", 3 * 64 * 80)  # some examples at a time
    monkeypatch.setattr(ranges, "RANGE", 5)
    monkeypatch.setattr(ranges, "PATIENCE", 0)
    pieces = solve(data, None, batch_size=7, out=tmp_path / "out.h5")
    for name in ("x", "evaluations", "starts", "minima", "found_by"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))


def test_processes_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invsolve.run.WORTH_FORKING", 0.0)
    data = invsolve.generate("wave-packet", 20, seed=4)
    one, two = (solve(data, None, {"starts": 16}, threads=t, compile="off") for t in (1, 2))
    np.testing.assert_array_equal(two.x, one.x)
    np.testing.assert_array_equal(two.found_by, one.found_by)


@pytest.mark.parametrize("most", [3, 10, 30, 100])
def test_a_budget_is_kept_and_used(most: int) -> None:
    data = invsolve.generate("wave-packet", 16, seed=2)
    solution, local = solve(data, None, max_evaluations=most), invsolve.solve(data, max_evaluations=most)
    assert solution.evaluations.max() <= most
    # What a budget suffices for is begun with x0: it is no worse than the local method.
    assert (solution.loss <= local.loss * (1 + 1e-9)).all()
    if most == 100:
        assert (solution.loss < 2).mean() > (local.loss < 2).mean() + 0.2
    # Of what is left, no more remains unused than another start would have taken, unless it was settled before.
    unsettled = solution.starts < 8
    assert (solution.evaluations[unsettled] >= most - 2).all()


def test_a_dear_start_leaves_the_others_what_remains() -> None:
    """A start takes some 8 evaluations: within 20 there are two or three, not eight of two that lead nowhere."""
    solution, local = solve(wells(4), max_evaluations=20), invsolve.solve(wells(4), TwoWells)
    assert local.evaluations.min() > 2 + 20 // 8
    assert ((solution.starts >= 2) & (solution.starts <= 4)).all()
    assert (solution.loss <= local.loss * (1 + 1e-9)).all()
    assert (solution.evaluations > 15).all()


def failing(x: Tensor, identifiers: Tensor) -> Tensor:
    if bool((identifiers == 5).any()):
        raise ValueError("five")
    return torch.where(identifiers == 3, torch.nan, torch.sin(x))


def test_a_failing_row_is_told_by_its_number_and_harms_no_other() -> None:
    targets = np.full((8, 1), 0.5)
    targets[6] = np.nan
    data = Dataset(targets=targets, identifiers=np.arange(8.0)[:, None], x0=np.ones(1))
    from invsolve.run import Run
    from invsolve.settings import Settings

    run = Run(data, failing, {}, Settings(method="multistart"))
    solution = run.solve(None, False, False, None)
    assert run.conduct.first_error is not None
    assert run.conduct.first_error[0] == 5
    lost = np.isin(np.arange(8), [3, 5, 6])
    assert (solution.status[lost] == Status.NONFINITE).all()
    assert (solution.found_by[lost] == FoundBy.START).all()
    assert solution.starts[6] == 1  # of which nothing was observed
    assert (solution.loss[~lost] < 1e-9).all()


def test_another_start_saves_a_row_that_fails_at_x0() -> None:
    def root(x: Tensor, identifiers: Identifiers) -> Tensor:
        return torch.where(x > 1.5, x, torch.nan)

    solution = solve(Dataset(targets=np.full((2, 1), 2.0), x0=np.ones(1)), root)
    np.testing.assert_allclose(solution.x, 2, atol=1e-5)
    assert solution.status.tolist() == [Status.CONVERGED] * 2
    assert solution.found_by.tolist() == [FoundBy.MULTISTART] * 2


class Held(ForwardModel):
    """y = x with a Gaussian prior on one unknown and a uniform one on the other."""

    parameters = (Parameter("a", prior=Normal(0, 1)), Parameter("b", prior=Uniform(0, 2), initial=1))

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return x


def test_priors_are_kept_where_they_are_asked_for() -> None:
    data = Dataset(targets=np.array([[2.0, 5.0]]), sigma=np.ones((1, 2)))
    solution = solve(data, Held, prior=True, covariance=True)
    np.testing.assert_allclose(solution.x, [[1, 2]], atol=1e-4)  # half of the way, and on the bound
    assert solution.minima.tolist() == [1]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gaps_and_sigma(dtype: str) -> None:
    data = invsolve.generate("wave-packet", 8, seed=3)
    targets = np.array(data.targets)
    targets[:, ::5] = np.nan
    data = replace(data, targets=targets, sigma=np.full(8, 0.1))
    solution = solve(data, None, dtype=dtype)
    assert data.x_true is not None
    np.testing.assert_allclose(solution.x, data.x_true, atol=0.2)


def test_far_offsets_do_not_pass_for_one_minimum() -> None:
    """Nor do they make every fit a perfect one."""

    class Far(ForwardModel):
        parameters = (Parameter("x", prior=Normal(500, 1), initial=500.5),)

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            near = x - 500
            return 300 + 0.01 * torch.cat([near**2 - 1, near / 10], dim=1)

    solution = solve(Dataset(targets=300 + 0.01 * np.array([[0.0, -0.5]])), Far)
    assert solution.minima.tolist() == [2]
    np.testing.assert_allclose(solution.x, [[499]], atol=0.05)


def test_an_interrupted_run_keeps_its_best_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE", 4)
    monkeypatch.setattr(ranges, "PATIENCE", 0)
    data, control, calls = wells(12), Control(), [0]

    class Interrupting(TwoWells):
        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            calls[0] += 1
            control.interrupted = control.interrupted or calls[0] == 25
            return super().forward(x, identifiers)

    out = tmp_path / "out.h5"
    model = Interrupting()
    part = solve(data, model, out=out, control=control)
    assert 0 < part.status_counts()["not_run"] < 12
    not_run = part.status == Status.NOT_RUN
    assert (part.starts[not_run] == 0).all()
    assert np.isfinite(part.loss[~not_run]).all()
    again = solve(data, model, out=out, resume=True)
    np.testing.assert_array_equal(again.x, solve(data).x)


def test_a_time_limit_gives_every_example_its_own_start_first() -> None:
    """The clock runs out in the second wave: what x0 led to is there for all."""
    ticks = [0]

    def clock() -> float:
        ticks[0] += 1
        return ticks[0] / 100  # so that the time for scoring after a stop suffices

    solution = solve(wells(), batch_size=2, time_limit=0.6, control=Control(clock=clock))
    assert (solution.starts >= 1).all()
    assert solution.starts.max() < 8
    assert np.isfinite(solution.loss).all()


def test_progress_goes_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_MEMORY", 3 * 64 * 10)
    seen: list[Progress] = []
    ticks = [0.0]

    def clock() -> float:
        ticks[0] += 1
        return ticks[0]

    solve(wells(8), control=Control(seen.append, clock))
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1
    assert {p.total for p in seen} == {8}
    evaluations = [p.evaluations for p in seen]
    assert evaluations == sorted(evaluations)


def test_compiled_rounds_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from invsolve import compilation

    def recorded(function: Any, inputs: list[Tensor], affordable: float = 0.0) -> Callable[..., Any]:
        return function  # type: ignore[no-any-return]

    monkeypatch.setattr(compilation, "record_and_compile", recorded)
    data = invsolve.generate("wave-packet", 6, seed=1)
    plain, compiled = (solve(data, None, compile=c) for c in ("off", "on"))
    assert compiled.attributes["compiled"]
    np.testing.assert_allclose(compiled.loss, plain.loss, rtol=1e-9)
    with pytest.raises(invsolve.OptionError, match="method 'lbfgs' cannot be compiled"):
        solve(data, None, {"local": "lbfgs"}, compile="on")


def test_many_unknowns_take_little_memory_and_a_method_that_can() -> None:
    d = 20_000
    data = Dataset(targets=np.ones((2, d)), x0=np.full(d, 2.0))
    with pytest.raises(invsolve.OptionError, match="add -O local=lbfgs"):
        solve(data, lambda x, identifiers: x**2)
    solution = solve(data, lambda x, identifiers: x**2, {"local": "lbfgs", "starts": 8})
    assert (solution.loss < 1e-6).all()
