"""Features and architectures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from invsolve.networks.architectures import ArrayNetwork, VectorNetwork, choose_kind, grid_shape
from invsolve.networks.features import Features, Moments, Standard


def make_features(targets: Tensor, identifiers: dict[str, Tensor], spatial: tuple[int, ...]) -> Features:
    return Standard.measured(targets, identifiers, spatial).features(targets, identifiers)


@pytest.mark.parametrize(
    ("y_shape", "kind"),
    [
        ((), "mlp"),
        ((2,), "mlp"),
        ((15,), "mlp"),
        ((16,), "conv1d"),
        ((128,), "conv1d"),
        ((3, 128), "conv1d"),
        ((15, 15), "conv2d"),
        ((32, 32), "conv2d"),
        ((3, 32, 32), "conv2d"),
        ((9, 4), "mlp"),
        ((20, 20, 20), "mlp"),
    ],
)
def test_the_shape_chooses_the_network(y_shape: tuple[int, ...], kind: str) -> None:
    assert choose_kind(y_shape) == kind


def test_grid_shapes() -> None:
    assert grid_shape("conv1d", (3, 128)) == (128,)
    assert grid_shape("conv2d", (128,)) == ()
    assert grid_shape("mlp", (128,)) == ()


def test_features_are_standardized_and_gaps_masked() -> None:
    targets = torch.randn(40, 20, dtype=torch.float64) * 7 + 100
    targets[3, 5] = torch.nan
    identifiers = {"field": torch.randn(40, 20) * 1e-9, "setting": torch.rand(40), "same": torch.ones(40, 2)}
    features = make_features(targets, identifiers, (20,))
    assert features.grid.shape == (40, 3, 20)  # targets, mask, field
    assert features.flat.shape == (40, 3)
    assert torch.isfinite(features.grid).all()
    assert features.grid[3, 0, 5] == 0
    assert features.grid[3, 1, 5] == 0
    assert features.grid[:, 1].sum() == 799
    for channel in (0, 2):
        values = features.grid[:, channel]
        assert values.mean().abs() < 1e-3
        assert values.std() == pytest.approx(1, abs=2e-2)
    assert features.flat[:, 0].std() == pytest.approx(1, abs=2e-2)
    assert (features.flat[:, 1:] == 0).all()  # what never varies tells nothing


def test_the_standard_of_parts_is_that_of_the_whole() -> None:
    torch.manual_seed(1)
    targets = torch.randn(50, 20, dtype=torch.float64) * 3 + 1e4
    targets[40, 2] = torch.nan
    targets[:30, 7] = torch.inf  # no usable number in the first part
    identifiers = {"setting": torch.rand(50, 2), "field": torch.randn(50, 3, 20) + torch.arange(50)[:, None, None]}
    parts = [slice(0, 30), slice(30, 31), slice(31, 50)]
    standards = [Standard.measured(targets[p], {k: v[p] for k, v in identifiers.items()}, (20,)) for p in parts]
    standard = standards[0].joined(standards[1]).joined(standards[2])
    whole, pieced = make_features(targets, identifiers, (20,)), standard.features(targets, identifiers)
    torch.testing.assert_close(pieced.grid, whole.grid)
    torch.testing.assert_close(pieced.flat, whole.flat)


@pytest.mark.parametrize("absurd", [torch.inf, 1e300])
def test_an_absurd_value_neither_reaches_the_network_nor_flattens_the_others(absurd: float) -> None:
    targets = torch.randn(5, 4, dtype=torch.float64)
    clean = make_features(targets, {}, ()).flat
    targets[2, 1] = absurd
    flat = make_features(targets, {}, ()).flat
    assert torch.isfinite(flat).all()
    assert flat[2, 1] == 0
    torch.testing.assert_close(flat[:, 2:], clean[:, 2:])
    assert flat[[0, 1, 3, 4], 1].std() > 0.5


@pytest.mark.parametrize("shape", [(2,), (40,), (3, 40), (20, 33), (2, 16, 16)])
def test_outputs_start_small_and_depend_on_every_example(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kind = choose_kind(shape)
    features = make_features(torch.randn(6, *shape), {"a": torch.randn(6, 3)}, grid_shape(kind, shape))
    network = VectorNetwork(features, outputs=5, width=16, depth=2, channels=4)
    out = network(features)
    assert out.shape == (6, 5)
    assert out.abs().max() < 0.02
    assert len(out.unique(dim=0)) == 6


@pytest.mark.parametrize("shape", [(2,), (40,), (3, 40), (20, 33), (2, 16, 16), (7, 5)])
@pytest.mark.parametrize("field", [False, True])
def test_an_array_is_made_of_settings_and_of_fields(shape: tuple[int, ...], field: bool) -> None:
    torch.manual_seed(0)
    kind = choose_kind(shape)
    spatial = grid_shape(kind, shape)
    identifiers = {"field": torch.randn(6, *shape)} if field else {}
    features = make_features(torch.randn(6, 3, 1), identifiers, spatial)
    network = ArrayNetwork(features, outputs=torch.Size(shape).numel(), width=16, depth=2, channels=4)
    out = network(features)
    assert out.shape == (6, torch.Size(shape).numel())
    assert features.grid.shape[1] == (field and bool(spatial)) * (shape[0] if len(shape) > len(spatial) else 1)
    for name in ("flat", "grid"):
        changed = getattr(features, name).clone()
        changed[2] += 1
        differs = (network(replace(features, **{name: changed})) != out).any(1)
        assert differs.tolist() == [i == 2 and changed.numel() > 0 for i in range(6)]


def test_a_field_acts_where_it_is() -> None:
    torch.manual_seed(0)
    features = make_features(torch.randn(2, 3, 1), {"field": torch.randn(2, 64)}, (64,))
    network = ArrayNetwork(features, outputs=64, width=8, depth=1, channels=4)
    grid = features.grid.clone()
    grid[:, :, 5] += 1
    change = (network(Features(grid, features.flat)) - network(features)).abs().mean(0)
    assert change[:16].mean() > 10 * change[48:].mean()


def test_moments_restore_what_they_standardized() -> None:
    array = torch.randn(30, 4, dtype=torch.float64) * 7 + 100
    moments = Moments.measured(array, (0,))
    torch.testing.assert_close(moments.restored(moments.standardized(array)), array, rtol=1e-6, atol=1e-5)


def test_blurring_leaves_the_original() -> None:
    features = make_features(torch.randn(6, 3), {}, ())
    before = features.flat.clone()
    assert features.blurred(0) is features
    blurred = features.blurred(0.5)
    assert torch.equal(features.flat, before)
    assert 0.1 < (blurred.flat - before).std() < 1
