"""What a diagnosis measures, on problems whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.diagnosis.result import Diagnosis


def bowl(x: Tensor, identifiers: Tensor) -> Tensor:
    """A quadratic without a preferred direction: its gradient points to the solution."""
    return 2 * x


def skewed(x: Tensor, identifiers: Tensor) -> Tensor:
    """y = Aᵢ x with a random Aᵢ for each example: its own gradient is Aᵢᵀ Aᵢ (x − x*), aligned only in the mean."""
    return torch.einsum("bij,bj->bi", identifiers, x)


def fit(model: Any, d: int = 8, n: int = 64, spread: float = 1.0) -> Dataset:
    """Solutions around one common point away from x0 = 0."""
    rng = np.random.default_rng(0)
    x = 3 + spread * rng.standard_normal((n, d))
    A = rng.standard_normal((n, 1, d)) if model is skewed else np.zeros((n, 1))
    y = model(torch.from_numpy(x), torch.from_numpy(A)).numpy()
    return Dataset(targets=y, identifiers=A, x0=np.zeros(d), x_true=x)


def test_of_a_round_bowl_the_plain_gradient_is_aligned_and_bfgs_is_enough() -> None:
    found = invsolve.diagnose(fit(bowl), bowl)
    assert found.alignment is not None
    assert found.alignment.plain == pytest.approx(1, abs=1e-9)
    assert found.minima.several == 0
    assert found.minima.mean == 1
    assert found.minima.solved_x0 == 1
    assert found.minima.barrier == 0
    assert found.recommendation == "bfgs"
    assert [v.verdict for v in found.verdicts] == ["enough", "not needed", "not needed", "not needed"]


def test_alignment_grows_with_the_examples_where_each_gradient_sees_one_direction() -> None:
    """With one number measured of 8 unknowns, a gradient is along a random direction: cosine about 0.3; the mean over
    many examples of equal solutions is along the way to them."""
    found = invsolve.diagnose(fit(skewed, spread=0.1), skewed, examples=64)
    assert found.alignment is not None
    joint = found.alignment.joint
    assert found.alignment.plain < 0.4
    assert joint[0] == pytest.approx(found.alignment.plain, abs=0.1)  # of one example alone it is its own gradient
    assert joint[-1] > found.alignment.plain + 0.3
    assert found.alignment.sizes == [1, 2, 4, 8, 16, 32, 64]


def test_billiards_misses_have_no_gradient_and_jpo_is_recommended() -> None:
    data = invsolve.generate("billiards", 48, seed=0)
    found = invsolve.diagnose(data, examples=48)
    gradients = invsolve.solve(data, method="bfgs", max_evaluations=3).grad_norm
    assert found.flatness.at_x0 == pytest.approx(float((gradients == 0).mean()), abs=1e-9)
    assert found.flatness.at_drawn is not None
    assert found.flatness.at_drawn > 0.6
    assert found.alignment is not None
    assert found.alignment.joint_flat is not None
    assert found.alignment.joint_flat > 0.3
    assert found.recommendation == "jpo"
    assert "vanishes at x0" in found.summary


def test_wave_packets_have_local_minima_and_more_starts_are_recommended() -> None:
    found = invsolve.diagnose("sample_data/wave-packet.h5", examples=32)
    minima = found.minima
    assert minima.several is not None
    assert minima.mean is not None
    assert minima.x0_worse is not None
    assert minima.several > 0.9
    assert 2.5 < minima.mean < 6
    assert minima.x0_worse == pytest.approx(0.6, abs=0.2)
    assert found.recommendation == "multistart"


def test_the_best_found_stands_in_for_solutions_that_are_not_known() -> None:
    data = fit(bowl, n=12)
    data.x_true = None
    data.x0 = np.zeros((12, 8))
    found = invsolve.diagnose(data, bowl)
    assert found.alignment is not None
    assert found.alignment.reference == "best found"
    assert found.alignment.plain == pytest.approx(1, abs=1e-6)
    assert found.minima.solved_x0 is None


def test_a_sample_is_drawn_by_its_seed() -> None:
    data = fit(bowl, n=40)
    one, same, other = (invsolve.diagnose(data, bowl, examples=5, seed=seed) for seed in (1, 1, 2))
    assert one.examples.tolist() == same.examples.tolist() == sorted(one.examples)
    assert one.examples.tolist() != other.examples.tolist()
    assert one.to_json() | {"seconds": 0} == same.to_json() | {"seconds": 0}


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_examples_can_be_looked_at(n: int) -> None:
    found = invsolve.diagnose(invsolve.generate("wave-packet", n, seed=1), slices=True)
    assert found.alignment is not None
    assert found.alignment.sizes == [1, 2][:n]
    assert len(found.slices) == n


def test_rows_that_fail_are_left_out() -> None:
    data = invsolve.generate("wave-packet", 6, seed=1)
    data.targets = np.array(data.targets)
    data.targets[2] = np.nan
    found = invsolve.diagnose(data)
    assert found.nonfinite == 1
    assert found.examples.tolist() == [0, 1, 3, 4, 5]
    with pytest.raises(invsolve.ModelError, match="for all 2 examples drawn"):
        invsolve.diagnose(Dataset(targets=np.full((2, 128), np.nan)), "wave-packet")


def test_a_start_at_the_solution_breaks_nothing() -> None:
    data = fit(bowl, n=4)
    data.x0 = np.asarray(data.x_true)
    found = invsolve.diagnose(data, bowl, slices=True)
    assert found.alignment is None
    assert found.recommendation == "bfgs"


def test_an_interruption_leaves_what_is_known() -> None:
    control = Control()
    control.interrupted = True
    found = invsolve.diagnose(fit(bowl), bowl, control=control)
    assert found.cut_short
    assert found.minima.examples == 0
    assert found.verdicts[0].verdict == "unknown"
    assert found.alignment is not None
    assert found.alignment.networks == 1


def test_a_slow_model_is_looked_at_less(monkeypatch: pytest.MonkeyPatch) -> None:
    found = invsolve.diagnose(invsolve.generate("navier-stokes", 8, seed=0), time_limit=2.0)
    assert found.cut_short
    assert found.seconds < 30  # on a busy machine; 2 s is what it plans for
    assert found.minima.starts == 4


def test_every_evaluation_is_counted() -> None:
    calls = []

    def counted(x: Tensor, identifiers: Tensor) -> Tensor:
        calls.append(len(x))
        return bowl(x, identifiers)

    found = invsolve.diagnose(fit(bowl, n=8), counted)
    told = found.evaluations
    # Not counted: four rows whose memory is asked for, and places of the engine whose row has ended.
    assert told <= sum(calls) <= 1.02 * told + 4


def test_slices_have_the_shapes_that_pictures_need() -> None:
    one: Diagnosis = invsolve.diagnose(invsolve.generate("wave-packet", 3, seed=1), slices=True)
    assert [s.axes for s in one.slices] == [("t0 (s)",)] * 3
    assert all(s.loss.shape == s.coordinates[0].shape == (401,) for s in one.slices)
    assert all(s.coordinates[0][0] == 0 and s.coordinates[0][-1] == 20 for s in one.slices)
    two = invsolve.diagnose(invsolve.generate("billiards", 3, seed=1), slices=True)
    assert [len(s.axes) for s in two.slices] == [1, 1, 1, 2, 2, 2]
    assert two.slices[-1].axes == ("vx (1/s)", "vy (1/s)")
    assert two.slices[-1].loss.shape == tuple(len(c) for c in two.slices[-1].coordinates)
    many = invsolve.diagnose(fit(bowl, n=3), bowl, slices=True)
    assert [len(s.axes) for s in many.slices] == [1, 1, 1, 2, 2, 2]
    line = many.slices[0]
    assert line.loss[np.searchsorted(line.coordinates[0], 1.0)] == pytest.approx(0, abs=1e-3 * line.loss.max())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"examples": 0}, "examples must be from 1"),
        ({"seed": -1}, "seed must be from 0"),
        ({"time_limit": 0.0}, "time_limit must be > 0"),
        ({"device": "tpu"}, "no device is called 'tpu'"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(invsolve.OptionError, match=told):
        invsolve.diagnose(fit(bowl, n=2), bowl, **wrong)
