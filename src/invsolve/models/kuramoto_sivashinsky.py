"""Kuramoto–Sivashinsky: forcing and advection strength from the state after a chaotic evolution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd import forward_ad

from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.etdrk4 import GRID, TIME, Matrices, differentiable_flow, flow, matrices
from invsolve.models.fourier import grid_points
from invsolve.models.parameters import Parameter, Uniform
from invsolve.options import Options as BaseOptions
from invsolve.tracing import is_traced


class KuramotoSivashinsky(ForwardModel):
    """Forcing and advection x = (α, β) of a Kuramoto–Sivashinsky flow from its state at T = 25.

    u_t = α cos(2πx/L) − u_xx − u_xxxx − β u u_x, periodic, L = 22; identifiers u(0) and y = u(T) on 64 points.
    Pseudo-spectral with the 2/3 rule and exponential time differencing, see `etdrk4`. Where a derivative by x is
    wanted, those by α and β are computed beside y at once.
    """

    class Options(BaseOptions):
        steps: int = Field(
            125,
            ge=50,
            le=10**5,
            description="time steps of ETDRK4; 125 give a relative error of 2e-6 in the median, 3e-3 at most",
        )

    options: Options

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("alpha", lower=-2, upper=2, initial=0, prior=Uniform(-1, 1)),
            Parameter("beta", lower=0, upper=2, initial=1, prior=Uniform(0.5, 1.5)),
        )

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (GRID,)

    @property
    def identifier_shape(self) -> tuple[int, ...]:
        return (GRID,)

    def draw_identifiers(self, n: int, generator: torch.Generator) -> Tensor:
        """u0 (n, 64) = cos(2πx/L + φ1) + 0.3 cos(4πx/L + φ2), φ ~ U(0, 2π)."""
        phase = 2 * math.pi * torch.rand(n, 2, dtype=torch.float64, generator=generator)
        angle = grid_points(GRID)
        return torch.cos(angle + phase[:, :1]) + 0.3 * torch.cos(2 * angle + phase[:, 1:])

    def make_constants(self) -> Mapping[str, Tensor]:
        return matrices(TIME / self.options.steps)

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        """u(T) (b, 64) from x (b, 2) and u(0) (b, 64)."""
        assert isinstance(identifiers, Tensor)
        c, start, steps = self.constants(x), identifiers.to(x.dtype), self.options.steps
        # A compiler takes no function that brings a forward derivative, nor one that writes in place as `flow` does.
        recorded = torch.compiler.is_compiling() or is_traced()
        if recorded or _unpacked(start)[1] is not None or (start.requires_grad and torch.is_grad_enabled()):
            return differentiable_flow(x, start, steps, c)
        plain, tangent = _unpacked(x)
        wanted = tangent is not None or (x.requires_grad and torch.is_grad_enabled())
        if not wanted:
            return _Flow.apply(x, start, steps, c, 1)[0]  # type: ignore[no-untyped-call, no-any-return]
        layers: Tensor = _Flow.apply(plain, start, steps, c, 3)  # type: ignore[no-untyped-call]
        y: Tensor = _Linked.apply(plain, layers)  # type: ignore[no-untyped-call]
        # Not left to a `jvp` alone: within one, a second derivative in forward mode would be lost.
        return y if tangent is None else forward_ad.make_dual(y, _along(tangent, layers))  # type: ignore[no-untyped-call]


def _unpacked(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """x without the tangent of a derivative in forward mode that is under way, and that tangent."""
    try:
        return forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call, no-any-return]
    except RuntimeError:  # under a vmap within that derivative; then `_Flow.jvp` sees to it
        return x, None


def _along(tangent: Tensor, layers: Tensor) -> Tensor:
    return tangent[:, :1] * layers[1] + tangent[:, 1:] * layers[2]


class _Linked(torch.autograd.Function):
    """y (b, 64) from x and the layers (3, b, 64) of a flow: its derivative by x is what the other two layers are.

    They depend on x themselves: by `_Flow`, which is asked for derivatives of second order alone.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, layers: Tensor) -> Tensor:
        return layers[0].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (layers,) = ctx.saved_tensors
        by_x: Tensor = (layers[1:] * gradient).sum(2).T
        return by_x, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Tensor | None) -> Tensor:
        return _along(tangent, *ctx.saved_tensors)


class _Flow(torch.autograd.Function):
    """`flow`, with derivatives of any order and kind; they are slow."""

    @staticmethod
    def forward(x: Tensor, start: Tensor, steps: int, c: Matrices, layers: int) -> Tensor:
        return flow(x, start, steps, c, layers)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, Matrices, int], output: Tensor) -> None:
        x, start, *ctx.others = inputs
        ctx.save_for_backward(x, start)
        ctx.save_for_forward(x, start)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 5
        pull = torch.func.vjp(lambda x, start: _layers(x, start, *ctx.others), *ctx.saved_tensors)[1]
        return *pull(gradient), None, None, None

    @staticmethod
    def jvp(ctx: Any, x: Tensor | None, start: Tensor | None, *_: None) -> Tensor:
        saved = ctx.saved_tensors
        tangents = tuple(torch.zeros_like(s) if t is None else t for s, t in zip(saved, (x, start), strict=True))
        push = torch.func.jvp(lambda x, start: _layers(x, start, *ctx.others), saved, tangents)
        return push[1]  # type: ignore[no-any-return]

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], x: Tensor, start: Tensor, *others: Any) -> tuple[Tensor, int]:
        """Examples of all batches as one batch."""
        n = info.batch_size
        x, start = (
            (t.expand(n, *t.shape) if d is None else t.movedim(d, 0)).flatten(0, 1)
            for t, d in zip((x, start), dims[:2], strict=True)
        )
        found: Tensor = _Flow.apply(x, start, *others)  # type: ignore[no-untyped-call]
        return found.unflatten(1, (n, -1)), 1  # type: ignore[no-untyped-call]


def _layers(x: Tensor, start: Tensor, steps: int, c: Matrices, layers: int) -> Tensor:
    """`flow` by operations that can be differentiated."""
    if layers == 1:
        return differentiable_flow(x, start, steps, c)[None]

    def along(direction: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(  # type: ignore[return-value]
            lambda z: differentiable_flow(z, start, steps, c), (x,), (direction.expand_as(x),)
        )

    (y, by_alpha), (_, by_beta) = map(along, torch.eye(2, dtype=x.dtype, device=x.device))
    return torch.stack([y, by_alpha, by_beta])
