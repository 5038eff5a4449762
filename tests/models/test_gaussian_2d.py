"""What is particular to the Gaussian spot: its three shapes, and a first guess that no image can upset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.data.solution import Status
from invsolve.models.base import ForwardModel

SHAPES = ("rotated", "elliptic", "symmetric")
NAN, INF = float("nan"), float("inf")


def model(shape: str = "rotated", size: int = 15) -> ForwardModel:
    return invsolve.load_model("gaussian-2d", shape=shape, size=size)


def spots(n: int, *, noise: float, shape: str = "rotated", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (n, 15, 15) and their x (n, d)."""
    data = invsolve.generate("gaussian-2d", n, noise=noise, seed=seed, model_options={"shape": shape})
    return torch.from_numpy(np.asarray(data.targets)), torch.from_numpy(np.asarray(data.x_true))


def assert_strictly_inside(guess: Tensor, shape: str = "rotated", size: int = 15) -> None:
    assert torch.isfinite(guess).all()
    for j, parameter in enumerate(model(shape, size).parameters):
        assert (guess[:, j] > parameter.lower).all(), parameter.name
        assert (guess[:, j] < parameter.upper).all(), parameter.name


def test_rows_are_y_and_columns_are_x() -> None:
    x = torch.tensor([[10.0, 3.0, 6.0, 1.0, 2.0, 0.0, 5.0]], dtype=torch.float64)
    image = model(size=9)(x)[0]
    assert image.argmax() == 6 * 9 + 3
    assert image[6, 3] == pytest.approx(15)
    assert image[6, 4] == pytest.approx(5 + 10 * np.exp(-1 / 2))  # one pixel along x, width 1
    assert image[7, 3] == pytest.approx(5 + 10 * np.exp(-1 / 8))  # one pixel along y, width 2


def test_names_and_units() -> None:
    names = {shape: [p.name for p in model(shape).parameters] for shape in SHAPES}
    assert names["rotated"] == ["amplitude", "x0", "y0", "width_x", "width_y", "angle", "offset"]
    assert names["elliptic"] == ["amplitude", "x0", "y0", "width_x", "width_y", "offset"]
    assert names["symmetric"] == ["amplitude", "x0", "y0", "width", "offset"]
    assert [p.unit for p in model().parameters] == ["", "px", "px", "px", "px", "rad", ""]


def test_the_simpler_shapes_are_special_cases() -> None:
    _, x = spots(9, noise=0, shape="elliptic")
    upright = torch.cat([x[:, :5], torch.zeros(9, 1), x[:, 5:]], dim=1)
    torch.testing.assert_close(model("elliptic")(x), model()(upright), rtol=1e-13, atol=0)
    _, x = spots(9, noise=0, shape="symmetric")
    equal = torch.cat([x[:, :4], x[:, 3:]], dim=1)
    torch.testing.assert_close(model("symmetric")(x), model("elliptic")(equal), rtol=1e-13, atol=0)


def test_turning_by_a_right_angle_swaps_the_widths() -> None:
    _, x = spots(9, noise=0)
    turned = x[:, [0, 1, 2, 4, 3, 5, 6]] + torch.tensor([0, 0, 0, 0, 0, np.pi / 2, 0], dtype=x.dtype)
    torch.testing.assert_close(model()(turned), model()(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [5, 15, 24])
def test_all_shapes_in_all_sizes(shape: str, size: int) -> None:
    m = model(shape, size)
    x = m.draw_parameters(20, None, torch.Generator().manual_seed(0))
    assert m(x).shape == (20, size, size)
    assert_strictly_inside(m.initial_guess(m(x), None), shape, size)
    if size == 5:
        assert torch.autograd.gradcheck(m, x[:3].requires_grad_())


def test_float32_is_as_good_as_its_digits() -> None:
    _, x = spots(64, noise=0)
    x = torch.cat([x, x * torch.tensor([1, 0, 0, 0, 0, 1, 1]) + torch.tensor([0, -0.5, 14.5, 0.3, 0.3, 0, 0])])
    torch.testing.assert_close(model()(x.float()).double(), model()(x.float().double()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_derivatives(shape: str) -> None:
    _, x = spots(4, noise=0, shape=shape)
    m, v = model(shape), torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    y, forward = torch.func.jvp(m, (x,), (v,))
    difference = (m(x + 1e-6 * v) - m(x - 1e-6 * v)) / 2e-6
    torch.testing.assert_close(y, m(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(forward, difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_compiles_as_one_graph(shape: str) -> None:
    _, x = spots(4, noise=0, shape=shape)
    compiled: Any = torch.compile(model(shape), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(shape)(x), rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_stays_on_its_device(shape: str) -> None:
    m = model(shape)
    x = torch.empty(4, len(m.parameters), device="meta", dtype=torch.float32)
    y = m(x)  # tensors of two devices do not mix
    assert y.device.type == m.initial_guess(y, None).device.type == "meta"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_guess_nearly_recovers_clean_spots(shape: str) -> None:
    images, x = spots(1024, noise=0, shape=shape, seed=2)
    guess = model(shape).initial_guess(images, None)
    widths = slice(3, 4 if shape == "symmetric" else 5)
    assert (guess[:, 1:3] - x[:, 1:3]).abs().max() < 0.05
    found, true = (t[:, widths].sort(1).values if shape == "rotated" else t[:, widths] for t in (guess, x))
    assert (found / true - 1).abs().max() < 0.1
    assert (guess[:, 0] / x[:, 0] - 1).abs().max() < 0.1
    assert (guess[:, -1] - x[:, -1]).abs().max() < 2
    if shape == "rotated":
        long = (x[:, 3] / x[:, 4]).log().abs() > 0.3  # a round spot has no angle
        turn = guess[:, 5] - x[:, 5] - torch.where(x[:, 3] > x[:, 4], 0, np.pi / 2)
        assert torch.remainder(turn + np.pi / 2, np.pi).sub(np.pi / 2)[long].abs().max() < 0.1


def test_the_guess_is_of_each_image_alone() -> None:
    images, _ = spots(6, noise=3)
    together = model().initial_guess(images, None)
    alone = torch.cat([model().initial_guess(images[i : i + 1], None) for i in range(6)])
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


def test_the_guess_sees_through_gaps() -> None:
    images, x = spots(256, noise=1, seed=4)
    images[:, :3], images[:, 12:, 12:], images[::2, :, 0] = NAN, NAN, INF
    guess = model().initial_guess(images, None)
    assert_strictly_inside(guess)
    assert (guess[:, 1:3] - x[:, 1:3]).abs().max() < 1
    images[:] = x[:, 6, None, None]
    images[:, 7, 7] = NAN
    assert_strictly_inside(model().initial_guess(images, None))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_image_upsets_the_guess(shape: str) -> None:
    rng = np.random.default_rng(0)
    hot = np.zeros((15, 15))
    hot[0, 14] = 1e3
    one_pixel = np.full((15, 15), NAN)
    one_pixel[14, 0] = 7.0
    no_border = np.full((15, 15), NAN)
    no_border[1:-1, 1:-1] = rng.normal(size=(13, 13))
    images = [
        *(np.full((15, 15), value) for value in (0.0, 5.0, -5.0, NAN, INF, -INF, 1e30, 1e-30)),
        *rng.normal(0, 3, (50, 15, 15)),  # noise
        *rng.normal(-100, 3, (10, 15, 15)),  # negative fluxes
        *-spots(10, noise=1)[0].numpy(),  # holes
        *np.where(rng.random((50, 15, 15)) < 0.95, NAN, rng.normal(10, 3, (50, 15, 15))),  # hardly anything seen
        *np.tile(np.arange(15.0), (1, 15, 1)),  # a slope
        *(hot, -hot, one_pixel, no_border, hot * 1e-300),
    ]
    guess = model(shape).initial_guess(torch.from_numpy(np.array(images)), None)
    assert guess.dtype == torch.float64
    assert_strictly_inside(guess, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_bfgs_solves_noisy_spots_from_the_guess(shape: str) -> None:
    data = invsolve.generate("gaussian-2d", 256, seed=1, model_options={"shape": shape})
    data.sigma = np.full(256, 3.0)
    solution = invsolve.solve(data)
    at_truth = model(shape)(torch.from_numpy(np.asarray(data.x_true))).numpy()
    loss_true = 0.5 * (((at_truth - data.targets) / 3) ** 2).sum((1, 2))
    assert (solution.loss < loss_true).all()  # the minimum of noisy data is below the truth
    assert (np.abs(solution.x[:, 1:3] - np.asarray(data.x_true)[:, 1:3]) < 0.5).all()
    assert solution.evaluations.mean() < 50


def test_images_without_a_spot_end_well() -> None:
    noise = np.random.default_rng(1).normal(10, 3, (64, 15, 15))
    solution = invsolve.solve(invsolve.Dataset(targets=noise, sigma=np.full(64, 3.0)), "gaussian-2d")
    assert np.isin(solution.status, [Status.CONVERGED, Status.STALLED]).all()
    assert (solution.loss < solution.loss_initial).all()
