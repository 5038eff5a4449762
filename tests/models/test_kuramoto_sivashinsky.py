"""The flow in place, for few and for many rows, is the one written down; its derivatives of all kinds and orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import invsolve
from invsolve.models import etdrk4, kuramoto_sivashinsky
from invsolve.models.etdrk4 import differentiable_flow, flow
from invsolve.models.kuramoto_sivashinsky import KuramotoSivashinsky

STEPS = 50
MODEL = KuramotoSivashinsky(steps=STEPS)


def sample(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = MODEL.draw_identifiers(n, generator)
    return MODEL.draw_parameters(n, start, generator), start


def plain(x: Tensor, start: Tensor) -> Tensor:
    return differentiable_flow(x, start, STEPS, MODEL.constants(x))


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(2, b, 64), of rows that are apart."""
    return torch.stack([jvp(function, (x,), (e.expand_as(x),))[1] for e in torch.eye(2, dtype=x.dtype)])  # type: ignore[misc]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Layers of the flows that are computed; 0 where it is one that is differentiated."""
    calls: list[int] = []
    fast, slow = kuramoto_sivashinsky.flow, kuramoto_sivashinsky._layers
    monkeypatch.setattr(kuramoto_sivashinsky, "flow", lambda *a: (calls.append(a[-1]), fast(*a))[1])
    monkeypatch.setattr(kuramoto_sivashinsky, "_layers", lambda *a: (calls.append(0), slow(*a))[1])
    return calls


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-4)])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("way", ["_few_rows", "_many_rows"])
def test_both_ways_are_the_steps_as_they_are_defined(
    way: str, layers: int, dtype: torch.dtype, tolerance: float
) -> None:
    x, start = (t.to(dtype) for t in sample(40))
    x[0, 1] = 0
    c = MODEL.constants(x)
    found = getattr(etdrk4, way)(x, start @ c["to_modes"], STEPS, c, layers) @ c["to_grid"]
    expected = torch.cat([plain(x, start)[None], jacobian(lambda z: plain(z, start), x)])[:layers]
    error = (found - expected).norm(dim=2) / expected.norm(dim=2)
    assert error.max() < tolerance


def test_rounding_is_no_more_than_that_of_the_steps_as_they_are_defined() -> None:
    x, start = sample(64)
    exact, model = plain(x, start), KuramotoSivashinsky(steps=STEPS)
    x, start = x.float(), start.float()
    c = model.constants(x)
    defined = (differentiable_flow(x, start, STEPS, c) - exact).norm(dim=1).median()
    for way in (etdrk4._few_rows, etdrk4._many_rows):
        found = (way(x, start @ c["to_modes"], STEPS, c, 1) @ c["to_grid"])[0]
        assert (found - exact).norm(dim=1).median() < 2 * defined


def test_a_large_batch_is_the_same_as_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, start = sample(23)
    whole = flow(x, start, STEPS, MODEL.constants(x), 3)
    monkeypatch.setattr(etdrk4, "ROWS", 10)
    torch.testing.assert_close(flow(x, start, STEPS, MODEL.constants(x), 3), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [4, 30])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e200])
def test_a_row_that_fails_harms_no_other(n: int, bad: float) -> None:
    x, start = sample(n)
    known = MODEL(x, start)
    x[2, 1] = bad
    x.requires_grad_()
    y = MODEL(x, start)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    others = torch.arange(n) != 2
    assert not torch.isfinite(y[2]).any()
    assert not torch.isfinite(gradient[2]).any()
    assert torch.isfinite(gradient[others]).all()
    torch.testing.assert_close(y[others], known[others], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [2, 12])
def test_a_gradient_and_a_jacobian_take_one_flow(n: int, asked: list[int]) -> None:
    x, start = sample(n)
    with torch.no_grad():
        MODEL(x, start)
    torch.autograd.grad(MODEL(x.requires_grad_(), start).sum(), x)
    with torch.no_grad():
        vmap(lambda v: jvp(lambda z: MODEL(z, start), (x,), (v.expand_as(x),)))(torch.eye(2, dtype=x.dtype))  # type: ignore[misc]
    assert asked == [1, 3, 3]


def test_numerical_derivatives_agree() -> None:
    x, start = sample(2)

    def some(z: Tensor, s: Tensor) -> Tensor:
        return MODEL(z, s)[:, ::16]

    checks: dict[str, Any] = {"atol": 1e-4, "check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(lambda z: some(z, start), x.requires_grad_(), **checks)
    both = {**checks, "fast_mode": True, "check_batched_grad": False}
    assert torch.autograd.gradcheck(some, (x, start.requires_grad_()), **both)
    assert torch.autograd.gradgradcheck(lambda z: some(z, start.detach()).sum(), x, atol=1e-3, fast_mode=True)


DERIVATIVES: dict[str, Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]] = {
    "forward": jacfwd,
    "reverse": jacrev,
    "forward over reverse": lambda f: hessian(lambda z: f(z).sum()),
    "forward over forward": lambda f: jacfwd(jacfwd(lambda z: f(z).sum())),
    "reverse over reverse": lambda f: jacrev(jacrev(lambda z: f(z).sum())),
    "reverse over forward": lambda f: jacrev(jacfwd(lambda z: f(z).sum())),
    "vmap": lambda f: lambda z: vmap(f)(torch.stack([z, 0.9 * z])),
    "vmap over reverse": lambda f: lambda z: vmap(grad(lambda v: f(v).sum()))(torch.stack([z, 0.9 * z])),
    "reverse over vmap": lambda f: lambda z: grad(lambda v: vmap(f)(v).sum())(torch.stack([z, 0.9 * z])),
    "forward over vmap": lambda f: lambda z: jvp(vmap(f), (z[None],), (torch.ones_like(z[None]),))[1],  # type: ignore[misc]
}


@pytest.mark.parametrize("kind", DERIVATIVES)
def test_derivatives_of_torch_func_agree(kind: str) -> None:
    (x, start), weight = sample(1), torch.linspace(-1, 1, 64, dtype=torch.float64)
    found, expected = (
        DERIVATIVES[kind](lambda z, f=f: (f(z, start) * weight)[:, :8])(x) for f in (MODEL.forward, plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_conjugate_gradients_agree_with_the_matrix() -> None:
    data = invsolve.generate("kuramoto-sivashinsky", 3, seed=1, model_options={"steps": STEPS})
    matrix, products = (
        invsolve.solve(data, method="lm", options={"solver": s}, max_evaluations=6) for s in ("dense", "cg")
    )
    assert (products.loss < products.loss_initial).all()
    assert (matrix.loss < matrix.loss_initial).all()
