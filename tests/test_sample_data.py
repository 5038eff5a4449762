"""The Hubble sources: made by their script, what README says of them, and solved well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import invsolve
from invsolve.data.solution import Status

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "sample_data" / "hubble_sources.h5"


@pytest.fixture(scope="module")
def data() -> invsolve.Dataset:
    return invsolve.read_dataset(SOURCES)


@pytest.fixture(scope="module")
def solution(data: invsolve.Dataset) -> invsolve.Solution:
    return invsolve.solve(data)


def run(script: str, out: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / script, "--out", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_script_makes_the_same_file_again(data: invsolve.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    run("sample_data/hubble_sources.py", tmp_path / "again.h5")
    again = invsolve.read_dataset(tmp_path / "again.h5")
    for name in ("targets", "sigma", "names"):
        np.testing.assert_array_equal(np.asarray(getattr(again, name)), np.asarray(getattr(data, name)))
    assert (again.model, again.model_options) == (data.model, data.model_options)


def test_the_figure_can_be_drawn_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("docs/hubble_figure.py", tmp_path / "again.png")
    for picture in (tmp_path / "again.png", ROOT / "docs" / "hubble_sources.png"):
        assert 50_000 < picture.stat().st_size < 250_000
        assert int.from_bytes(picture.read_bytes()[16:20], "big") == 1200  # px wide


def test_what_is_in_the_file(data: invsolve.Dataset) -> None:
    targets = np.asarray(data.targets)
    assert SOURCES.stat().st_size < 300_000
    assert len(data) >= 150
    assert targets.shape == (len(data), 15, 15)
    assert targets.dtype == np.float32
    assert (data.model, data.model_options) == ("gaussian-2d", {"shape": "rotated"})
    assert (np.asarray(data.sigma) > 0).all()
    assert len(set(data.names)) == len(data)
    assert np.nanmin(targets) >= 0
    assert np.nanmax(targets) < 255  # saturated pixels are gaps
    assert (np.isfinite(targets).mean(axis=(1, 2)) >= 0.8).all()
    assert np.isnan(targets[:, 6:9, 6:9]).any(axis=(1, 2)).sum() > 20  # also in the middle of sources


def test_every_source_is_fitted(data: invsolve.Dataset, solution: invsolve.Solution) -> None:
    assert (solution.status == Status.CONVERGED).mean() > 0.98
    assert (solution.grad_norm < 1e-3).all()
    for j, parameter in enumerate(invsolve.load_model(data.model, **data.model_options).parameters):
        assert (solution.x[:, j] > parameter.lower).all(), parameter.name
        assert (solution.x[:, j] < parameter.upper).all(), parameter.name
    assert (np.abs(solution.x[:, 1:3] - 7) < 2).all()  # the source in the middle, not another one


def test_reduced_chi_square_is_as_told(solution: invsolve.Solution) -> None:
    assert solution.reduced_chi2 is not None
    assert np.quantile(solution.reduced_chi2, 0.1) == pytest.approx(0.95, abs=0.05)
    assert np.median(solution.reduced_chi2) == pytest.approx(1.68, abs=0.05)
    assert solution.reduced_chi2.max() < 15
