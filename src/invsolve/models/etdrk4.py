"""The Kuramoto–Sivashinsky flow by ETDRK4, alone or with its derivatives by both unknowns carried along.

u_t = α cos(2πx/L) − u_xx − u_xxxx − β u u_x on [0, L) of 64 points, with the 2/3 rule. Steps of exponential time
differencing are those of Kassam and Trefethen 2005 (SIAM J. Sci. Comput. 26, 1214), eqs. 20 to 25: with a linear part L
and N(v) = α e − ½ β ∂x (v²) of spectra v,

    a = e^{Lh/2} v + Q N(v),  b = e^{Lh/2} v + Q N(a),  c = e^{Lh/2} a + Q (2 N(b) − N(v)),
    v' = e^{Lh} v + f1 N(v) + f2 (N(a) + N(b)) + f3 N(c).

A spectrum is 43 real numbers (mean, cosines, sines), transforms are real matrices: at this size faster than the FFT.

The derivatives of u(T) by α and β obey the same steps, linearized, with N'(v; w) = −β ∂x (v w) for w = ∂v/∂α, ∂v/∂β,
plus e for α and −½ ∂x (v²) for β. So a `flow` of three "layers" (u, ∂u/∂α, ∂u/∂β) gives loss and gradient, and the
Jacobian as well. With two unknowns that costs no more than an adjoint, which does every step twice and keeps all of
them; of few rows, where each operation costs the same whatever its size, it takes half the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from invsolve.models.fourier import fourier_matrices, wave_numbers

LENGTH, TIME, GRID = 22.0, 25.0, 64
MODES = 22  # mode indices 0..21 are kept: the 2/3 rule on 64 points
SPECTRUM = 2 * MODES - 1
FEW = 24  # rows times layers up to which, on a CPU, less operations are worth more arithmetic
ROWS = 512  # on a CPU at once: with more, all is out of the caches

Matrices = Mapping[str, Tensor]


def flow(x: Tensor, start: Tensor, steps: int, c: Matrices, layers: int) -> Tensor:
    """u(T) (layers, b, 64) from x = (α, β) (b, 2) and u(0) (b, 64); of three layers, ∂/∂α and ∂/∂β are the others.

    Written in place, so not to be differentiated; `differentiable_flow` is.
    """
    if len(x) > ROWS and x.device.type == "cpu":
        parts = zip(torch.split(x, ROWS), torch.split(start, ROWS), strict=True)
        return torch.cat([flow(*rows, steps, c, layers) for rows in parts], dim=1)
    # Elsewhere than on a CPU an operation takes as long to launch as this arithmetic, of any number of rows.
    few = layers * len(x) <= FEW or x.device.type != "cpu"
    spectrum = (_few_rows if few else _many_rows)(x, start @ c["to_modes"], steps, c, layers)
    return spectrum @ c["to_grid"]


def differentiable_flow(x: Tensor, start: Tensor, steps: int, c: Matrices) -> Tensor:
    """u(T) (b, 64) by operations that autograd, torch.func and the compiler know: the steps as they are defined.

    Plain ones: of `addcmul`, a forward derivative that is recorded ends in a segmentation fault (torch 2.13).
    """
    to_grid, advect = c["to_grid"], c["advect"]
    full, half, q, f1, f2, f3 = (c[k] for k in ("full", "half", "q", "f1", "f2", "f3"))
    forcing, beta = x[:, :1] * c["forcing"], x[:, 1:]

    def nonlinear(v: Tensor) -> Tensor:
        return forcing + beta * ((v @ to_grid).square() @ advect)

    v = start @ c["to_modes"]
    for _ in range(steps):
        n_v = nonlinear(v)
        a = half * v + q * n_v
        n_a = nonlinear(a)
        n_b = nonlinear(half * v + q * n_a)
        n_c = nonlinear(half * a + q * (2 * n_b - n_v))
        v = full * v + f1 * n_v + f2 * (n_a + n_b) + f3 * n_c
    return v @ to_grid


def _weights(x: Tensor, layers: int) -> Tensor:
    """(layers, b): of v² in N(v) by itself, and of v w in N'(v; w)."""
    return x[:, 1] * x.new_tensor([1.0, 2.0, 2.0])[:layers, None]


# A row of memory of `_few_rows`: βu² of stage 2 | v, α | βu² of stage 1 | of stage 3 | of stage 4 | spare
_STATE, _ALPHA = GRID, GRID + SPECTRUM
_ONE, _THREE, _FOUR, _SPARE, _WIDTH = (_ALPHA + 1 + i * GRID for i in range(5))


def _few_rows(x: Tensor, v: Tensor, steps: int, c: Matrices, layers: int) -> Tensor:
    """Spectra (layers, b, 43) at T from those at 0 (b, 43), by the fewest operations: four matrix products a step.

    All of a step but the squares is linear, so each stage is one matrix: from the state and βu², on the grid at the
    stages before, to u on the grid at the next. A row of memory has these side by side, in an order in which every
    matrix reads one stretch; u itself is written where the memory is free at that time. Steps go from one memory to
    the other and back.
    """
    b, weight = len(x), _weights(x, layers)[..., None]
    memories = [x.new_zeros(layers, b, _WIDTH) for _ in range(2)]
    stages = [_stages(here, there, c) for here, there in (memories, memories[::-1])]
    product = x.new_empty(layers, b, GRID)
    by_beta = product[2:]
    first = memories[0]
    first[0, :, _STATE:_ALPHA], first[0, :, _ALPHA] = v, x[:, 0]
    first[1:2, :, _ALPHA] = 1  # ∂α/∂α
    torch.mm(v, c["to_grid"], out=first[0, :, :_STATE])
    states = [memory[..., _STATE:_ONE] for memory in memories]
    for step in range(steps):
        for u, value, squares, known, matrix, target in stages[step % 2]:
            torch.mul(u, weight, out=product)
            if layers > 1:
                by_beta.add_(value)
            torch.mul(product, value, out=squares)
            torch.mm(known, matrix, out=target)
        # Apart from the products: added to a long sum of small terms, the state would lose digits at every step.
        states[1 - step % 2].addcmul_(c["keep"], states[step % 2])
    return memories[steps % 2][..., _STATE:_ALPHA]


def _stages(here: Tensor, there: Tensor, c: Matrices) -> list[tuple[Tensor, ...]]:
    """Of each stage: all layers of u and u alone, where βu² goes; what the matrix reads, the matrix, and its result."""
    rows, after = here.flatten(0, 1), there.flatten(0, 1)
    two, one = here[..., :_STATE], here[..., _ONE:_THREE]
    three, four, spare = here[..., _THREE:_FOUR], here[..., _FOUR:_SPARE], here[..., _SPARE:]
    return [
        (two, two[:1], one, rows[:, _STATE:_THREE], c["stage_1"], rows[:, _THREE:_FOUR]),
        (three, three[:1], two, rows[:, :_ONE], c["stage_2"], rows[:, _FOUR:_SPARE]),
        (four, four[:1], three, rows[:, _STATE:_FOUR], c["stage_3"], rows[:, _SPARE:]),
        (spare, spare[:1], four, rows[:, :_SPARE], c["stage_4"], after[:, :_ONE]),
    ]


def _many_rows(x: Tensor, v: Tensor, steps: int, c: Matrices, layers: int) -> Tensor:
    """Spectra (layers, b, 43) at T from those at 0 (b, 43), by the least arithmetic; laid out as in `_Nonlinear`."""
    b = len(x)
    full, half, q, f1, f2, f3 = (_halves(c[k])[..., None] for k in ("full", "half", "q", "f1", "f2", "f3"))
    state = x.new_zeros(2, MODES, layers * b)
    state[..., :b] = _halves(v.T)
    nonlinear = _Nonlinear(x, c, layers)
    half_v, a, n_v, n_a, n_b, n_c = (torch.empty_like(state) for _ in range(6))
    for _ in range(steps):
        nonlinear(state, n_v)
        torch.mul(half, state, out=half_v)
        torch.addcmul(half_v, q, n_v, out=a)
        nonlinear(a, n_a)
        nonlinear(half_v.addcmul_(q, n_a), n_b)
        a.mul_(half).addcmul_(q, n_v, value=-1).addcmul_(q, n_b, value=2)
        nonlinear(a, n_c)
        state.mul_(full).addcmul_(f1, n_v).addcmul_(f2, n_a.add_(n_b)).addcmul_(f3, n_c)
    return torch.cat([state[0], state[1, 1:]]).view(SPECTRUM, layers, b).movedim(0, 2)


class _Nonlinear:
    """N(v), and N'(v; w) of the other layers, of cosines and sines apart: (2, 22, layers · b), the sine of mode 0 zero.

    Of u on the grid, the even part e and the odd part o come from the one and the other, and are known from half of the
    points: half of the arithmetic. u² has the even part e² + o² and the odd part 2eo, whose derivatives are the sines
    and the cosines.
    """

    def __init__(self, x: Tensor, c: Matrices, layers: int) -> None:
        b = len(x)
        self.weight = _weights(x, layers).flatten()
        self.forcing = x.new_zeros(2, MODES, layers * b)
        self.forcing[0, 1, :b] = x[:, 0]
        self.forcing[0, 1, b : 2 * b] = 1
        self.to_parts, self.advect_parts = c["to_parts"], c["advect_parts"]
        self.parts, self.products = (x.new_empty(2, GRID // 2, layers * b) for _ in range(2))
        self.even, self.odd = self.parts.view(2, GRID // 2, layers, b)
        self.e, self.o = self.even[:, :1], self.odd[:, :1]
        self.odd_square, self.even_square = self.products.view(2, GRID // 2, layers, b)
        self.advected = torch.empty_like(self.forcing)
        self.of_value, self.by_beta = self.advected[..., :b], slice(2 * b, None) if layers > 1 else None

    def __call__(self, v: Tensor, out: Tensor) -> None:
        torch.bmm(self.to_parts, v, out=self.parts)
        torch.mul(self.odd, self.e, out=self.odd_square).addcmul_(self.even, self.o)
        torch.mul(self.even, self.e, out=self.even_square).addcmul_(self.odd, self.o)
        torch.bmm(self.advect_parts, self.products, out=self.advected)
        torch.addcmul(self.forcing, self.weight, self.advected, out=out)
        if self.by_beta is not None:
            out[..., self.by_beta].add_(self.of_value)


def _halves(v: Tensor) -> Tensor:
    """Spectra (43, ...) as cosines and sines (2, 22, ...)."""
    return torch.stack([v[:MODES], torch.cat([torch.zeros_like(v[:1]), v[MODES:]])])


def matrices(dt: float) -> dict[str, Tensor]:
    """All that a `flow` needs, for steps of dt."""
    simple = {**_transforms(), **_coefficients(dt)}
    return {**simple, **_parts(), **_stage_matrices(simple)}


def _transforms() -> dict[str, Tensor]:
    """Real Fourier matrices for spectra as row vectors of 43."""
    to_grid, to_modes, derivative = fourier_matrices(GRID, MODES)
    forcing = torch.zeros(SPECTRUM, dtype=torch.float64)
    forcing[1] = 1
    # u u_x = ½ (u²)_x: from u² on the grid straight to the spectrum of −½ ∂x.
    advect = -0.5 * (2 * math.pi / LENGTH) * derivative @ to_modes
    rows = {"to_grid": to_grid.T, "to_modes": to_modes.T, "advect": advect.T}
    return {**{name: matrix.contiguous() for name, matrix in rows.items()}, "forcing": forcing}


def _coefficients(dt: float) -> dict[str, Tensor]:
    """Kassam and Trefethen 2005, eqs. 26 to 29: φ functions as means over a circle, free of cancellation."""
    wave = 2 * math.pi / LENGTH * wave_numbers(MODES)
    linear = (wave**2 - wave**4) * dt
    circle = torch.exp(1j * math.pi * (torch.arange(1, 65, dtype=torch.float64) - 0.5) / 64)
    z = linear[:, None] + circle
    e = torch.exp(z)
    return {
        "full": torch.exp(linear),
        "half": torch.exp(linear / 2),
        "q": dt * ((torch.exp(z / 2) - 1) / z).real.mean(1),
        "f1": dt * ((-4 - z + e * (4 - 3 * z + z**2)) / z**3).real.mean(1),
        "f2": 2 * dt * ((2 + z + e * (z - 2)) / z**3).real.mean(1),
        "f3": dt * ((-4 - 3 * z - z**2 + e * (4 - z)) / z**3).real.mean(1),
    }


def _parts() -> dict[str, Tensor]:
    """For `_Nonlinear`: `to_parts` (2, 32, 22), cosines to even part and sines to odd part on half of the grid.

    And `advect_parts` (2, 22, 32): the spectrum of −½ ∂x, cosines from the odd part of u² and sines from the even part.
    The points lie in the middle between those of the grid, so that none is its own mirror image. They see the same
    modes 0..21 of u², for what 64 points alias into those are modes beyond 42.
    """
    k = torch.arange(MODES, dtype=torch.float64)
    phase = (torch.arange(GRID // 2, dtype=torch.float64)[:, None] + 0.5) * (2 * math.pi / GRID) * k
    cosines, sines = phase.cos(), phase.sin()
    advect = 0.5 * (2 * math.pi / LENGTH) * k * (4 / GRID) * torch.stack([-sines, cosines])
    return {"to_parts": torch.stack([cosines, sines]), "advect_parts": advect.mT.contiguous()}


def _stage_matrices(c: Matrices) -> dict[str, Tensor]:
    """For `_few_rows`: the stages of a step as functions of what its memory has, as row vectors.

    Stages 1 to 3 give u on the grid at a, b and c; stage 4 gives it at the end of the step, and what is added to `keep`
    times v and α.
    """
    to_grid, square, e = c["to_grid"], c["advect"], c["forcing"]
    full, half, q, f1, f2, f3 = (c[k] for k in ("full", "half", "q", "f1", "f2", "f3"))

    def state(v: Tensor, alpha: Tensor) -> Tensor:
        return torch.cat([torch.diag(v), alpha[None]])

    a = torch.cat([state(half, q * e), square * q])  # of v, α and stage 1
    b = torch.cat([square * q, state(half, q * e)])  # of stage 2, v and α: what q multiplies is N(a) now
    c_of = torch.cat([state(full, (half * q + q) * e), square * (half * q - q), 2 * square * q])  # v, α, stages 1, 3
    after = state(full, (f1 + 2 * f2 + f3) * e)
    end = torch.cat([square * f2, after, square * f1, square * f2, square * f3])
    change = torch.cat([end, torch.zeros(len(end), 1, dtype=end.dtype)], dim=1)
    change[_STATE:_ALPHA, :SPECTRUM] -= torch.diag(full)
    return {
        "keep": torch.cat([full, torch.ones(1, dtype=full.dtype)]),
        "stage_1": a @ to_grid,
        "stage_2": b @ to_grid,
        "stage_3": c_of @ to_grid,
        "stage_4": torch.cat([end @ to_grid, change], dim=1),
    }
