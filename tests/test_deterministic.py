"""`deterministic`: the bits of a result do not depend on what is solved together, how often, or by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve import ranges, run
from invsolve.control import Control, Event
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Solution
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Normal, Parameter
from invsolve.registry import registered

OPTIONS: dict[str, dict[str, Any]] = {
    "jpo": {"steps": 30},
    "neural-adjoint": {"simulations": 5, "width": 16, "starts": 2},
    "supervised": {"simulations": 5},
    "gd": {"max_iterations": 20},
    "multistart": {"starts": 3},
}


class Neighbourly(ForwardModel):
    """Two waves. y of each example changes a little with its place among those it is computed with, and their number:
    much more than by rounding, so that nothing is the same by chance."""

    parameters = (Parameter("a", prior=Normal(0.0, 1.0)), Parameter("b", lower=-2.0, upper=2.0))

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        assert isinstance(identifiers, Tensor)
        place = torch.arange(len(x), dtype=x.dtype)[:, None]
        t = torch.linspace(0, 1, 9, dtype=x.dtype)
        return (torch.sin(x[:, :1] * t + identifiers) + x[:, 1:] * t) * (1 + 1e-7 * place + 1e-6 * len(x))

    def initial_guess(self, targets: Tensor, identifiers: Identifiers) -> Tensor:
        """Even this looks at its neighbours."""
        return targets[:, :2] * 0.1 + 1e-6 * len(targets)


def waves(n: int = 150) -> Dataset:
    rng = np.random.default_rng(3)
    x_true, phase = rng.uniform(-1.5, 1.5, (n, 2)), rng.uniform(0, 1, (n, 1))
    t = np.linspace(0, 1, 9)
    y = np.sin(x_true[:, :1] * t + phase) + x_true[:, 1:] * t
    y[4, 2:5] = np.nan
    return Dataset(targets=y + rng.normal(0, 0.01, y.shape), identifiers=phase, sigma=np.asarray(0.01))


def solve(method: str, **more: Any) -> Solution:
    settings = {"deterministic": True, "options": OPTIONS.get(method, {}), "max_evaluations": 60} | more
    return invsolve.solve(waves(), Neighbourly, method, **settings)


def assert_same(a: Solution, b: Solution) -> None:
    for (name, before), after in zip(a.columns().items(), b.columns().values(), strict=True):
        np.testing.assert_array_equal(before, after, err_msg=name)


@pytest.mark.parametrize("method", sorted(registered("methods")))
def test_bits_do_not_depend_on_the_batch_size(method: str) -> None:
    """Nor on how many examples are in a range, or on threads; that they otherwise do is seen as well."""
    first = solve(method, batch_size=1000)
    assert first.attributes["deterministic"]
    assert_same(first, solve(method, batch_size=7, threads=2))
    assert (solve(method, batch_size=7, deterministic=False).loss != first.loss).any()


@pytest.mark.parametrize("method", ["lm", "multistart", "jpo"])
def test_bits_do_not_depend_on_ranges_and_workers(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = solve(method, covariance=True, prior=True, threads=1)
    monkeypatch.setattr(ranges, "RANGE", 10)
    assert_same(first, solve(method, covariance=True, prior=True, threads=1))
    monkeypatch.setattr(run, "WORTH_FORKING", 0)
    assert_same(first, solve(method, covariance=True, prior=True, threads=2))


@pytest.mark.parametrize("method", ["bfgs", "lm", "multistart"])
def test_bits_do_not_depend_on_a_stop(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that goes on begins with another group, whose starts it scores first."""
    monkeypatch.setattr(ranges, "RANGE", 64)
    control, out = Control(), tmp_path / "out.h5"

    class Stopping(Neighbourly):
        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            control.interrupted = control.interrupted or any(tmp_path.glob("out.h5.parts/rows-*"))
            return super().forward(x, identifiers)

    settings = {"deterministic": True, "options": OPTIONS.get(method, {}), "max_evaluations": 60, "out": out}
    data, model = waves(), Stopping()
    # By one process: others do not see what this one sets, and whether there are any the clock decides.
    part = invsolve.solve(data, model, method, control=control, threads=1, **settings)
    assert 0 < part.status_counts()["not_run"] < 150
    again = invsolve.solve(data, model, method, resume=True, batch_size=3, **settings)
    assert_same(solve(method), again)


def test_a_run_that_was_not_is_not_resumed(tmp_path: Path) -> None:
    control, out = Control(), tmp_path / "out.h5"
    control.interrupted = True
    invsolve.solve(waves(), Neighbourly, "bfgs", out=out, control=control)
    with pytest.raises(invsolve.InvsolveError, match="deterministic"):
        invsolve.solve(waves(), Neighbourly, "bfgs", out=out, resume=True, deterministic=True)


def test_a_batch_size_that_is_not_followed_is_told() -> None:
    heard: list[Event] = []
    solve("bfgs", batch_size=7, control=Control(listeners=[heard.append]))
    notes = [event.told["text"] for event in heard if event.kind == "note"]
    assert notes == [
        "batch_size 7 was not followed: where results are to be deterministic, 64 examples are solved together"
    ]


def test_compiled_rounds_are_so_too() -> None:
    def F(x: Tensor, identifiers: Tensor) -> Tensor:
        return torch.sin(x * identifiers)

    rng = np.random.default_rng(1)
    data = Dataset(targets=rng.uniform(-0.9, 0.9, (80, 2)), identifiers=rng.uniform(1, 2, (80, 2)), x0=np.zeros(2))
    first, second = (
        invsolve.solve(data, F, "bfgs", compile="on", deterministic=True, batch_size=size) for size in (5, 80)
    )
    assert first.attributes["compiled"]
    assert_same(first, second)


def test_torch_computes_all_the_same_way_twice() -> None:
    """As matters on a GPU, where some sums have no fixed order."""
    seen: list[bool] = []

    def F(x: Tensor, identifiers: Identifiers) -> Tensor:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return x.sin()

    invsolve.solve(Dataset(targets=np.zeros((3, 1)), x0=np.zeros(1)), F, "bfgs", deterministic=True)
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
