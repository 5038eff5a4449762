"""The models in JAX, of one example each, for peers that batch by `jax.vmap`: y from x (d,) and the identifiers.

Written as a JAX user would write the contract's equations, with the same discretization as ours, so that losses agree
to rounding: see `Arrays.check` in `child`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Model = Callable[[Any, Any], Any]


def make_model(name: str, dtype: Any, **options: Any) -> Model:
    """F(x, γ) of one example, in the dtype of x."""
    makers = {
        "gaussian-2d": _gaussian,
        "wave-packet": _wave_packet,
        "billiards": _billiards,
        "kuramoto-sivashinsky": _kuramoto_sivashinsky,
    }
    return makers[name](dtype, **options)


def _gaussian(dtype: Any, shape: str, size: int = 15) -> Model:
    assert shape == "symmetric"
    axis = jnp.arange(size, dtype=dtype)

    def model(x: Any, _: Any) -> Any:
        amplitude, x0, y0, width, offset = x
        along, across = jnp.exp(-0.5 * ((axis - x0) / width) ** 2), jnp.exp(-0.5 * ((axis - y0) / width) ** 2)
        return offset + amplitude * across[:, None] * along

    return model


def _wave_packet(
    dtype: Any, samples: int = 128, duration: float = 20, amplitude: float = 1, frequency: float = 1, width: float = 2
) -> Model:
    t = jnp.linspace(0, duration, samples, dtype=dtype)

    def model(x: Any, _: Any) -> Any:
        since = t - x[0]
        return amplitude * jnp.sin(frequency * since) * jnp.exp(-(since**2) / (2 * width**2))

    return model


def _billiards(dtype: Any, radius: float = 0.05, restitution: float = 0.8, drag: float = 1.0) -> Model:
    def model(x: Any, known: Any) -> Any:
        cue, ball = known[:2], known[2:]
        squared = jnp.sum(x**2)
        # Each `where` before a root or a division keeps the gradient finite where the other branch is taken.
        speed = jnp.sqrt(jnp.where(squared > 0, squared, 1))
        d, r = x / speed, ball - cue
        b = r @ d
        half_chord = (2 * radius) ** 2 - (r @ r - b**2)
        meets = (squared > 0) & (b > 0) & (half_chord > 0)
        s = b - jnp.sqrt(jnp.where(meets, half_chord, 1))
        n = (ball - (cue + d * s)) / (2 * radius)
        u = 0.5 * (1 + restitution) * (speed - drag * s) * (d @ n)
        return ball + jnp.where(meets & (s < speed / drag), u / drag * n, 0)

    return model


LENGTH, TIME, GRID, MODES = 22.0, 25.0, 64, 22


def _kuramoto_sivashinsky(dtype: Any, steps: int = 125) -> Model:
    """ETDRK4 (Kassam and Trefethen 2005) with real matrices in place of FFTs, as ours: the fairest to the solvers."""
    to_grid, to_modes, advect = (m.astype(dtype) for m in _real_fourier())
    full, half, q, f1, f2, f3 = (c.astype(dtype) for c in _etdrk4(TIME / steps))
    forcing = jnp.zeros(2 * MODES - 1, dtype).at[1].set(1)

    def model(x: Any, initial: Any) -> Any:
        alpha, beta = x

        def nonlinear(v: Any) -> Any:
            return alpha * forcing + beta * (advect @ (to_grid @ v) ** 2)

        def step(v: Any, _: Any) -> tuple[Any, None]:
            n_v = nonlinear(v)
            a = half * v + q * n_v
            n_a = nonlinear(a)
            n_b = nonlinear(half * v + q * n_a)
            n_c = nonlinear(half * a + q * (2 * n_b - n_v))
            return full * v + f1 * n_v + f2 * (n_a + n_b) + f3 * n_c, None

        return to_grid @ jax.lax.scan(step, to_modes @ initial, None, length=steps)[0]

    return model


def _wave_numbers() -> Any:
    k = jnp.arange(MODES, dtype=jnp.float64)
    return jnp.concatenate([k, k[1:]])


def _real_fourier() -> tuple[Any, Any, Any]:
    """Spectrum (mean, cosines, sines) to grid, grid to spectrum, and u² on the grid to the spectrum of −½ ∂x u²."""
    k = _wave_numbers()
    phase = 2 * math.pi / GRID * jnp.arange(GRID)[:, None] * k
    to_grid = jnp.concatenate([jnp.cos(phase[:, :MODES]), jnp.sin(phase[:, MODES:])], axis=1)
    to_modes = (2 / GRID * to_grid.T).at[0].divide(2)
    waves = jnp.diag(2 * math.pi / LENGTH * jnp.arange(1, MODES))
    derivative = jnp.zeros((len(k), len(k))).at[1:MODES, MODES:].set(waves).at[MODES:, 1:MODES].set(-waves)
    return to_grid, to_modes, -0.5 * derivative @ to_modes


def _etdrk4(dt: float) -> tuple[Any, ...]:
    """Kassam and Trefethen 2005, eqs. 26 to 29: φ functions as means over a circle, free of cancellation."""
    wave = 2 * math.pi / LENGTH * _wave_numbers()
    linear = (wave**2 - wave**4) * dt
    z = linear[:, None] + jnp.exp(1j * math.pi * (jnp.arange(1, 65) - 0.5) / 64)
    e = jnp.exp(z)

    def mean(of: Any) -> Any:
        return dt * of.real.mean(1)

    return (
        jnp.exp(linear),
        jnp.exp(linear / 2),
        mean((jnp.exp(z / 2) - 1) / z),
        mean((-4 - z + e * (4 - 3 * z + z**2)) / z**3),
        2 * mean((2 + z + e * (z - 2)) / z**3),
        mean((-4 - 3 * z - z**2 + e * (4 - z)) / z**3),
    )
