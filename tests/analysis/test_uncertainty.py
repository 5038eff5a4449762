"""Covariances are SciPy's; what the data cannot tell is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from scipy.optimize import curve_fit
from torch import Tensor

import invsolve
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.solution import Identifiability
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter, Uniform

T = np.linspace(0, 3, 20)


class Decay(ForwardModel):
    """Amplitude and rate of a decay."""

    parameters = (
        Parameter("a", initial=1.0, prior=Uniform(0.5, 3)),
        Parameter("k", unit="1/s", lower=0, scale="log", initial=1.0, prior=Uniform(0.1, 5)),
    )

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return x[:, :1] * torch.exp(-x[:, 1:] * torch.from_numpy(T).to(x.dtype))


def product(x: Tensor, identifiers: Any) -> Tensor:
    """Tells only the product of the first two, and nothing of the last."""
    return x[:, :1] * x[:, 1:2] * torch.ones(4, dtype=x.dtype) + torch.arange(4) * x[:, 2:3] + 0 * x[:, 3:]


@pytest.fixture
def decays() -> Dataset:
    data = invsolve.generate(Decay, 6, noise=0.05, seed=1)
    gaps = np.array(data.targets)
    gaps[2, 5:9] = np.nan
    data.targets = gaps
    return data


@pytest.mark.parametrize("sigma", [None, 0.05])
def test_as_scipy_has_it(decays: Dataset, sigma: float | None) -> None:
    decays.sigma = None if sigma is None else np.full(6, sigma)
    solution = invsolve.solve(decays, Decay, covariance=True, options={"grad_tolerance": 1e-9})
    assert solution.covariance is not None
    for i in range(6):
        seen = np.isfinite(decays.targets[i])
        weights = None if sigma is None else np.full(seen.sum(), sigma)
        known = {"sigma": weights, "absolute_sigma": sigma is not None}
        x, covariance = curve_fit(
            lambda t, a, k: a * np.exp(-k * t), T[seen], decays.targets[i, seen], solution.x[i], **known
        )
        np.testing.assert_allclose(solution.x[i], x, rtol=1e-5)
        np.testing.assert_allclose(solution.covariance[i], covariance, rtol=1e-5)
        np.testing.assert_allclose(solution.std_error[i], np.sqrt(np.diag(covariance)), rtol=1e-5)
    if sigma is None:
        assert solution.reduced_chi2 is None
    else:
        freedom = np.isfinite(decays.targets).sum(1) - 2
        np.testing.assert_allclose(solution.reduced_chi2, 2 * solution.loss / freedom)
    assert (solution.identifiability == Identifiability.DETERMINED).all()


def test_standard_errors_cover_the_truth() -> None:
    data = invsolve.generate(Decay, 400, noise=0.02, seed=5)
    data.sigma = np.full(400, 0.02)
    solution = invsolve.solve(data, Decay, covariance=True)
    pull = (solution.x - np.asarray(data.x_true)) / solution.std_error
    assert pull.std(axis=0) == pytest.approx(1.0, abs=0.1)
    assert solution.reduced_chi2.mean() == pytest.approx(1.0, abs=0.05)


def test_parameters_that_the_data_cannot_tell_are_flagged() -> None:
    data = Dataset(targets=np.array([[2.0, 3.0, 4.0, 5.0]]), sigma=np.array(0.1), x0=np.array([1.0, 1.5, 0.5, 7.0]))
    solution = invsolve.solve(data, product, covariance=True)
    kinds = [Identifiability(k) for k in solution.identifiability[0]]
    singular, determined = Identifiability.SINGULAR, Identifiability.DETERMINED
    assert kinds == [singular, singular, determined, singular]
    assert np.isinf(solution.std_error[0, [0, 1, 3]]).all()
    assert solution.std_error[0, 2] == pytest.approx(0.1 / np.sqrt(5))  # slope of a line through four points
    assert solution.condition_number[0] > 1e12


def test_bounds_weak_and_nonfinite_rows_are_flagged() -> None:
    class Wall(ForwardModel):
        parameters = (Parameter("a", lower=0, upper=2, initial=1), Parameter("b", lower=0, upper=2, initial=1))

        def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
            assert isinstance(identifiers, Tensor)
            return x * identifiers

    known = np.array([[1.0, 1.0], [1.0, 0.01], [1.0, np.nan]])
    data = Dataset(targets=np.array([[5.0, 1.0], [1.0, 0.01], [1.0, 1.0]]), identifiers=known, sigma=np.array(0.1))
    solution = invsolve.solve(data, Wall, covariance=True)
    names = [[Identifiability(k).name for k in row] for row in solution.identifiability]
    assert names == [["AT_BOUND", "DETERMINED"], ["DETERMINED", "WEAK"], ["UNKNOWN", "UNKNOWN"]]
    assert np.isnan(solution.std_error[2]).all()
    assert np.isnan(solution.reduced_chi2[0])  # two targets, two unknowns


def test_without_sigma_and_freedom_the_error_is_unknown() -> None:
    data = invsolve.generate("billiards", 3)
    data.x0 = data.x_true
    solution = invsolve.solve(data, covariance=True)
    assert np.isnan(solution.std_error).all()
    assert (solution.identifiability == Identifiability.DETERMINED).all()


def test_is_counted_within_the_budget(decays: Dataset) -> None:
    plain, more = (invsolve.solve(decays, Decay, covariance=c, max_evaluations=9) for c in (False, True))
    assert plain.evaluations.max() == 9
    assert more.evaluations.max() == 8  # two are kept for a model that cannot be vectorized over directions
    assert more.iterations.max() < plain.iterations.max()
    with pytest.raises(invsolve.OptionError, match="must be at least 5 here"):
        invsolve.solve(decays, Decay, covariance=True, max_evaluations=4)


def test_too_many_unknowns_are_refused() -> None:
    data = Dataset(targets=np.zeros((1, 200)), x0=np.zeros(200))
    with pytest.raises(invsolve.OptionError, match="200 unknowns"):
        invsolve.solve(data, lambda x, identifiers: 1.0 * x, covariance=True)


def test_columns_in_the_file_and_back(decays: Dataset, tmp_path: Path) -> None:
    decays.sigma = np.full(6, 0.05)
    out = tmp_path / "s.h5"
    solution = invsolve.solve(decays, Decay, covariance=True, prior=True, out=out)
    for name, values in solution.columns().items():
        np.testing.assert_array_equal(getattr(invsolve.read_solution(out), name), values)
    with xarray.open_dataset(out, engine="h5netcdf") as file:
        assert file["covariance"].dims == ("example", "parameter", "with_parameter")
        assert file["std_error"].dims == ("example", "parameter")
        assert file["identifiability"].attrs["flag_meanings"] == "unknown determined weak singular at_bound"
        assert float(file["std_error"].sel(parameter="k")[0]) == solution.std_error[0, 1]
        assert file["unit"].values.tolist() == ["", "1/s"]


def test_examples_not_run_have_the_same_columns(decays: Dataset, tmp_path: Path) -> None:
    decays.sigma = np.full(6, 0.05)
    control = Control()
    control.interrupted = True
    solution = invsolve.solve(decays, Decay, covariance=True, prior=True, control=control, out=tmp_path / "s.h5")
    assert solution.covariance.shape == (6, 2, 2)
    assert np.isnan(solution.covariance).all()
    assert np.isnan(solution.loss_prior).all()
    assert (solution.identifiability == Identifiability.UNKNOWN).all()
