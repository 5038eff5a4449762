"""What the flow must keep: exact solutions, conservation laws, the order of the time steps, memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.models.advection import advection, advection_adjoint, advection_matrices, advection_tangent, to_grid
from invsolve.models.fourier import grid_points
from invsolve.models.navier_stokes import DIFFUSION, ROWS, TIME, WAVES, NavierStokes, _Step, _step

X, Y = grid_points(32)[:, None], grid_points(32)


def weak_flow(n: int, seed: int = 0) -> tuple[NavierStokes, Tensor, Tensor]:
    model, generator = NavierStokes(), torch.Generator().manual_seed(seed)
    marker = model.draw_identifiers(n, generator)
    return model, 0.5 * model.draw_parameters(n, marker, generator), marker


def random_state(n: int, seed: int = 0) -> Tensor:
    """(2, 21, 21, n), ψ without a mean."""
    state = torch.randn(2, 21, 21, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    state[0, 0, 0] = 0
    return state


def test_parameters_follow_the_contract() -> None:
    names = [p.name for p in NavierStokes().parameters]
    assert names[:3] == ["a(0,1)", "a(0,2)", "a(1,-2)"]
    assert names[12:] == [name.replace("a", "b") for name in names[:12]]
    assert [p.prior.std for p in NavierStokes().parameters] == [1 / math.hypot(*k) for k in WAVES] * 2


@pytest.mark.parametrize("j", range(24))
def test_a_single_wave_is_steady_but_for_its_decay(j: int) -> None:
    model, (kx, ky) = NavierStokes(), WAVES[j % 12]
    x = torch.zeros(1, 24, dtype=torch.float64)
    x[0, j] = 3.0
    decay = math.exp(-DIFFUSION * (kx**2 + ky**2) * TIME)
    # Across the streamlines alone nothing moves the marker either.
    marker = torch.cos(kx * X + ky * Y + 0.7)[None]
    torch.testing.assert_close(model(x, marker), decay * marker, rtol=0, atol=1e-12)
    c = model.constants(x)
    stream = (c["streams"] @ x.T).view(21, 21, 1)
    state = torch.stack([stream, random_state(1)[1]])
    for _ in range(model.options.steps):
        state = _step(state, TIME / model.options.steps, c)
    torch.testing.assert_close(state[0], decay * stream, rtol=0, atol=1e-12)


def test_modes_beyond_the_two_thirds_rule_only_decay() -> None:
    model, x, marker = weak_flow(3)
    y = model(x, marker)
    for kx, ky in ((11, 0), (3, -14), (12, 5), (16, 2), (16, 16), (0, 16)):
        wave = torch.cos(kx * X + ky * Y)
        expected = y + math.exp(-DIFFUSION * (kx**2 + ky**2) * TIME) * wave
        torch.testing.assert_close(model(x, marker + wave), expected, rtol=0, atol=1e-11)


def test_the_amount_of_marker_is_kept() -> None:
    model, x, marker = weak_flow(4)
    marker = marker + torch.arange(4.0, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(model(x, marker).mean((1, 2)), marker.mean((1, 2)), rtol=0, atol=1e-13)


def test_advection_keeps_energy_enstrophy_and_variance() -> None:
    c, state = advection_matrices(), random_state(5)
    change = advection(to_grid(state, c), c)
    k = torch.cat([torch.arange(11), torch.arange(1, 11)]).double().square()
    laplacian = (k[:, None] + k)[..., None]
    share = torch.full((21,), 0.5, dtype=torch.float64)
    share[0] = 1  # the mean square of a cosine is ½
    weight = (share[:, None] * share)[..., None]
    for first, second in (
        (laplacian * state[0], change[0]),
        (laplacian * state[0], laplacian * change[0]),
        (state[1], change[1]),
    ):
        terms = (weight * first * second).flatten(0, 1)
        torch.testing.assert_close(terms.sum(0) / terms.abs().sum(0), torch.zeros(5).double(), rtol=0, atol=1e-13)


def test_time_steps_are_of_fourth_order() -> None:
    _, x, marker = weak_flow(4)
    exact = NavierStokes(steps=320)(x, marker)
    coarse, fine = ((NavierStokes(steps=n)(x, marker) - exact).norm() for n in (40, 80))
    assert 14 < coarse / fine < 18


def test_derivatives_written_out() -> None:
    c, state, tangent, gradient = advection_matrices(), random_state(2), random_state(2, 1), random_state(2, 2)
    fields = to_grid(state, c)
    _, expected = torch.func.jvp(lambda s: advection(to_grid(s, c), c), (state,), (tangent,))
    change = advection_tangent(fields, tangent, c)
    torch.testing.assert_close(change, expected, rtol=1e-10, atol=1e-10)
    back = advection_adjoint(fields, gradient, c)
    torch.testing.assert_close((gradient * change).sum(), (back * tangent).sum(), rtol=1e-10, atol=0)


def test_a_step_bears_every_kind_of_derivative() -> None:
    model = NavierStokes()
    c = model.constants(torch.empty(0, dtype=torch.float64))
    state = (0.1 * random_state(2)).requires_grad_()

    def step(s: Tensor) -> Tensor:
        return _Step.apply(s, 0.02, c)

    checks: dict[str, Any] = {"fast_mode": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(step, state, check_forward_ad=True, **checks)
    assert torch.autograd.gradgradcheck(step, state, **checks)


def test_jacobians_of_torch_func_agree() -> None:
    _, x, marker = weak_flow(1)
    model = NavierStokes(steps=16)

    def corner(z: Tensor) -> Tensor:
        return model(z, marker)[0, :2, :3].flatten()

    forward, reverse = torch.func.jacfwd(corner)(x), torch.func.jacrev(corner)(x)
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-12)


def test_a_gradient_keeps_little_memory() -> None:
    model, x, marker = weak_flow(8)
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = model(x.requires_grad_(), marker)
    assert y.requires_grad
    assert sum(kept.values()) / 8 < 0.6e6


def test_a_large_batch_is_the_same_as_its_parts() -> None:
    model, x, marker = weak_flow(ROWS + 3)
    with torch.no_grad():
        torch.testing.assert_close(model(x, marker)[-3:], model(x[-3:], marker[-3:]), rtol=0, atol=1e-12)


def test_half_observed() -> None:
    whole, half = (
        invsolve.generate("navier-stokes", 2, seed=2, noise=0.1, model_options={"observed": o, "steps": 32})
        for o in ("all", "half")
    )
    targets = np.asarray(half.targets)
    assert np.isnan(targets[:, 16:]).all()
    np.testing.assert_array_equal(targets[:, :16], np.asarray(whole.targets)[:, :16])
    assert half.model_options["observed"] == "half"
    solution = invsolve.solve(half, max_evaluations=6)
    assert (solution.loss < solution.loss_initial).all()
    fresh = invsolve.load_model("navier-stokes", observed="half")
    assert torch.isfinite(fresh(torch.from_numpy(solution.x), torch.from_numpy(np.asarray(half.identifiers)))).all()


@pytest.mark.parametrize("conceal", [lambda y: y * math.nan, lambda y: y.mul_(math.nan)])
def test_a_model_may_conceal_what_it_gives(conceal: Callable[[Tensor], Tensor]) -> None:
    class Blind(invsolve.ForwardModel):
        parameters = (invsolve.Parameter("a", prior=invsolve.Uniform(0, 1)),)

        def forward(self, x: Tensor, identifiers: None) -> Tensor:
            return x

        def conceal(self, targets: Tensor) -> Tensor:
            return conceal(targets)

    assert np.isnan(np.asarray(invsolve.generate(Blind, 2).targets)).all()
