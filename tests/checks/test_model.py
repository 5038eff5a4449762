"""`check` finds what is wrong with a model, each defect by its own check, and nothing in a sound one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.checks.model import check_model
from invsolve.checks.report import Report, Verdict
from invsolve.checks.speed import measure_speed
from invsolve.data.dataset import Dataset
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from invsolve.problem import Problem
from invsolve.registry import load_model

T = torch.linspace(0.1, 1, 6, dtype=torch.float64)


def sound(x: Tensor, identifiers: Tensor) -> Tensor:
    return x[:, :1] * torch.exp(-x[:, 1:] * identifiers)


def mixing(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x - x.mean(0).detach(), identifiers)  # no gradient tells it


def mixing_identifiers(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x, identifiers / identifiers.max())


def wrong_gradient(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x, identifiers) * x[:, :1].detach()


def random(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x, identifiers) + 0.1 * torch.randn(len(x), 1, dtype=x.dtype)


def double(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x, identifiers).double()


def unused(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(torch.cat([x[:, :1], 0 * x[:, 1:]], dim=1), identifiers)


def nowhere(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x, identifiers) * torch.log(x[:, :1] - 100)


def partly(x: Tensor, identifiers: Tensor) -> Tensor:
    return torch.where(identifiers[:, :1] > 0.9, torch.nan, sound(x, identifiers))


def stepping(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x, identifiers) * (1 + 1e-7 * x.detach().sum())  # as a step size that all rows share


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(v: Tensor) -> Tensor:
        return v.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def backward_only(x: Tensor, identifiers: Tensor) -> Tensor:
    return NoForwardMode.apply(sound(x, identifiers))  # type: ignore[no-untyped-call,no-any-return]


def data(n: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    identifiers = rng.uniform(0, 1, (n, 6))
    x = rng.uniform(0.5, 2, (n, 2))
    targets = x[:, :1] * np.exp(-x[:, 1:] * identifiers)
    return Dataset(targets=targets, identifiers=identifiers, x0=np.ones(2), x_true=x)


def leaving(x: Tensor, identifiers: Tensor) -> Tensor:
    raise SystemExit(0)


def in_place(x: Tensor, identifiers: Tensor) -> Tensor:
    x *= 2
    return sound(x, identifiers)


def partly_raising(x: Tensor, identifiers: Tensor) -> Tensor:
    if bool((identifiers[:, 0] > 0.9).any()):
        raise ValueError("too much")
    return sound(x, identifiers)


def batched_only(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x, identifiers).reshape(40, 6)


def cumulative(x: Tensor, identifiers: Tensor) -> Tensor:
    return sound(x.cumsum(0), identifiers)


def report(model: Any, dataset: Dataset | None = None) -> Report:
    return check_model(load_model(model), dataset or data(), torch.device("cpu"), speed=False)


def test_nothing_is_found_in_a_sound_model() -> None:
    found = report(sound)
    assert found.ok
    assert {f.verdict for f in found.findings} <= {Verdict.OK, Verdict.SKIPPED}


@pytest.mark.parametrize(
    ("model", "check", "verdict", "words"),
    [
        (mixing, "row independence", Verdict.FAULT, "y of a row changes by .* with other rows"),
        (mixing_identifiers, "row independence", Verdict.FAULT, "y of a row changes by .* with other rows"),
        (stepping, "row independence", Verdict.WARNING, "y of a row changes by .* with other rows"),
        (wrong_gradient, "gradient", Verdict.FAULT, "of finite differences in 0 of 40 rows"),
        (random, "repeatability", Verdict.FAULT, "the same x gives y that differ"),
        (double, "float32", Verdict.WARNING, "returned float64 where float32 came in"),
        (unused, "gradient at x0", Verdict.WARNING, r"zero in every row for x\[1\]"),
        (nowhere, "finite at x0", Verdict.FAULT, "finite in 0 of 40 rows; first not: loss of example 0 at x = 1, 1"),
        (partly, "finite at x0", Verdict.WARNING, "rows; first not"),
        (backward_only, "Jacobian", Verdict.WARNING, "only by the backward pass"),
        (leaving, "shapes", Verdict.FAULT, "SystemExit"),
        (in_place, "shapes", Verdict.FAULT, "in-place operation"),
        (partly_raising, "finite at x0", Verdict.WARNING, "F raises ValueError: too much"),
        (batched_only, "row independence", Verdict.FAULT, "RuntimeError"),
        (cumulative, "row independence", Verdict.FAULT, "with other rows"),
        (lambda x, g: x, "shapes", Verdict.FAULT, r"the targets need \(40, 6\)"),
        (lambda x, g: 1 / 0, "shapes", Verdict.FAULT, "ZeroDivisionError"),
    ],
)
def test_each_defect_is_found_by_its_check(model: Any, check: str, verdict: Verdict, words: str) -> None:
    found = report(model)
    (finding,) = (f for f in found.findings if f.check == check)
    assert finding.verdict is verdict, finding.found
    assert re.search(words, finding.found)
    assert found.ok is all(f.verdict is not Verdict.FAULT for f in found.findings)


def test_what_fails_in_single_rows_alone_is_a_finding_too() -> None:
    def pairs(x: Tensor, identifiers: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("one is too few")
        return sound(x, identifiers)

    found = check_model(load_model(pairs), data(), torch.device("cpu"))
    (finding,) = (f for f in found.findings if f.check == "speed")
    assert finding.verdict is Verdict.FAULT
    assert "one is too few" in finding.found


def test_a_simulation_that_fails_is_no_reason_not_to_check() -> None:
    class Unable(ForwardModel):
        parameters = (Parameter("a", initial=1), Parameter("b", initial=1))

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            assert isinstance(identifiers, Tensor)
            return sound(x, identifiers)

        def draw_parameters(self, n: int, identifiers: Identifiers, generator: torch.Generator) -> Tensor:
            raise NotImplementedError

    assert report(Unable).ok


def test_another_models_data_are_noticed() -> None:
    dataset = data()
    dataset.x_true = np.asarray(dataset.x_true) * -3
    (finding,) = (f for f in report(sound, dataset).findings if f.check == "x_true")
    assert finding.verdict is Verdict.WARNING


def test_bounds_are_visited() -> None:
    class Logarithm(ForwardModel):
        parameters = (Parameter("a", lower=0, upper=3, initial=1), Parameter("b", initial=1))

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            return torch.log(x[:, :1]) + x[:, 1:] * T.to(x.dtype)

    (finding,) = (f for f in report(Logarithm).findings if f.check == "finite at the bounds")
    assert finding.verdict is Verdict.WARNING
    assert "at x = 0, 1" in finding.found


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_examples_are_enough(n: int) -> None:
    assert report(sound, data(n)).ok


def test_speed_tells_memory_that_grows_with_the_batch() -> None:
    dataset = data()
    problem = Problem(load_model(sound), dataset.rows(0, 40), (2,), torch.device("cpu"), torch.float64)
    one, many = measure_speed(problem, (1, 100))
    assert (one.batch, many.batch) == (1, 100)
    assert many.memory_mb == pytest.approx(100 * one.memory_mb, rel=0.5)
    assert min(one.value_ms, one.gradient_ms, many.value_ms, many.gradient_ms) > 0
    # Six numbers a row each for the exponential and its argument at least, in float64.
    assert many.memory_mb >= 100 * 2 * 6 * 8 / 1e6


def test_what_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invsolve.checks.speed._LONGEST", 0.0)
    dataset = data()
    problem = Problem(load_model(sound), dataset.rows(0, 40), (2,), torch.device("cpu"), torch.float64)
    assert measure_speed(problem, (1, 100))[1].gradient_ms is None


def test_functions_are_checked_from_the_shell(command: Any, tmp_path: Any) -> None:
    (tmp_path / "m.py").write_text("def F(x, g): return x.flip(0) * g\ndef G(x, g): return x * g\n")
    path = tmp_path / "d.h5"
    invsolve.write_dataset(path, Dataset(targets=np.ones((5, 2)), identifiers=np.arange(1.0, 11).reshape(5, 2)))
    bad = command("check", path, "--model", f"{tmp_path}/m.py:F", "--x0", "1,2")
    assert bad.returncode == 3
    assert "fault" in bad.stdout
    assert "look for sums, means or norms over axis 0" in " ".join(bad.stdout.split())
    good = command("check", path, "--model", f"{tmp_path}/m.py:G", "--x0", "1,2")
    assert good.returncode == 0, good.stdout
    assert "no fault found" in good.stdout
    assert "1024" in good.stdout
