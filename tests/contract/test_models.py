"""What every registered forward model must keep; a new one is tested here unasked."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from invsolve.checks.model import check_model
from invsolve.checks.report import Verdict
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.pipeline import generate
from invsolve.registry import load_model, registered
from tests.conftest import VECTORS

# Relative L2 error of a row: (median, maximum). Closed forms differ by rounding alone; the Kuramoto–Sivashinsky
# vectors were made by a finer integration of a flow that is chaotic in some rows (contract, section 4).
TOLERANCES = {"kuramoto-sivashinsky": (1e-4, 1e-2), "navier-stokes": (1e-3, 1e-3)}
CLOSED_FORM = (1e-10, 1e-10)

# Of many outputs after many time steps, finite differences get a projection, and a compiler few steps to unroll.
LONG = {"kuramoto-sivashinsky", "navier-stokes"}
FEW_STEPS = {"kuramoto-sivashinsky": {"steps": 50}, "navier-stokes": {"steps": 8}}

NAMES = sorted(registered("models"))


def sample(model: ForwardModel, n: int, seed: int = 0) -> tuple[Tensor, Identifiers]:
    generator = torch.Generator().manual_seed(seed)
    identifiers = model.draw_identifiers(n, generator)
    return model.draw_parameters(n, identifiers, generator), identifiers


@pytest.mark.parametrize("name", NAMES)
def test_independent_vectors(name: str) -> None:
    with h5py.File(VECTORS / f"{name}.h5") as file:
        x, y = torch.from_numpy(file["x_true"][:]), torch.from_numpy(file["targets"][:])
        identifiers = torch.from_numpy(file["identifiers"][:]) if "identifiers" in file else None
        options = json.loads(file.attrs.get("model_options", "{}"))
    found = load_model(name, **options)(x, identifiers)
    error = (found - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)
    median, most = TOLERANCES.get(name, CLOSED_FORM)
    assert error.median() <= median
    assert error.max() <= most


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_shapes_and_dtypes(name: str, dtype: torch.dtype) -> None:
    model = load_model(name)
    x, identifiers = sample(model, 5)
    y = model(x.to(dtype), None if identifiers is None else identifiers.to(dtype))
    assert x.shape == (5, *model.x_shape)
    assert y.shape == (5, *model.y_shape)
    assert y.dtype == dtype
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    model = load_model(name)
    x, identifiers = sample(model, 3 if name != "navier-stokes" else 1, seed=1)

    def project(z: Tensor) -> Tensor:
        y = model(z, identifiers)
        return y.flatten(1) @ torch.linspace(-1, 1, y[0].numel(), dtype=y.dtype) if name in LONG else y

    assert torch.autograd.gradcheck(project, x.requires_grad_(), atol=1e-4 if name in LONG else 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_forward_derivatives(name: str) -> None:
    model = load_model(name)
    x, identifiers = sample(model, 3, seed=1)
    generator = torch.Generator().manual_seed(2)
    direction, weight = (torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in (x, model(x, identifiers)))
    _, change = torch.func.jvp(lambda z: model(z, identifiers), (x,), (direction,))
    (gradient,) = torch.func.vjp(lambda z: model(z, identifiers), x)[1](weight)
    torch.testing.assert_close((change * weight).flatten(1).sum(1), (gradient * direction).sum(1))


@pytest.mark.parametrize("name", NAMES)
def test_torch_compile(name: str) -> None:
    model = load_model(name, **FEW_STEPS.get(name, {}))
    x, identifiers = sample(model, 3)
    x0 = model.initial_guess(model(x, identifiers), identifiers)
    x = (x0 + 0.1 * (x - x0)).requires_grad_()  # where a few steps are enough
    torch.compiler.reset()
    y = torch.compile(model.forward, fullgraph=True, backend="aot_eager")(x, identifiers)
    expected = load_model(name, **FEW_STEPS.get(name, {}))(x, identifiers)
    torch.testing.assert_close(y, expected)
    found, known = (torch.autograd.grad(z.square().sum(), x)[0] for z in (y, expected))
    torch.testing.assert_close(found, known)


@pytest.mark.parametrize("name", NAMES)
def test_what_every_model_must_keep(name: str) -> None:
    report = check_model(load_model(name), generate(name, 8), torch.device("cpu"), speed=False)
    for finding in report.findings:
        # A shot may miss: that its gradient is zero there is what the model is for.
        known = name == "billiards" and finding.check == "gradient at x0"
        expected = {Verdict.OK, Verdict.SKIPPED} | ({Verdict.WARNING} if known else set())
        assert finding.verdict in expected, f"{finding.check}: {finding.found}"


@pytest.mark.parametrize("name", NAMES)
def test_generate_is_reproducible_and_scatters_by_the_noise(name: str) -> None:
    one, again, other = (np.asarray(generate(name, 64, seed=s).targets) for s in (7, 7, 8))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    quiet, loud = (np.asarray(generate(name, 64, seed=7, noise=s).targets) for s in (0.0, 0.5))
    assert np.std(loud - quiet) == pytest.approx(0.5, rel=0.2)
