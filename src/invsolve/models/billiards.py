"""One billiards shot: where does the hit ball come to rest? Gradients are zero wherever the cue ball misses."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from invsolve.options import Options as BaseOptions


class Billiards(ForwardModel):
    """Initial velocity x = (vx, vy) of a cue ball from where the hit ball comes to rest.

    Identifiers are the positions (cue_x, cue_y, ball_x, ball_y); y is the rest position of the ball. Both
    balls slow by linear drag μ: the speed after the way s is |v| − μs. After the billiards experiment of Holl and
    Thuerey 2024 (arXiv 2408.08119).
    """

    class Options(BaseOptions):
        radius: float = Field(0.05, gt=0, description="R, radius of both balls")
        restitution: float = Field(0.8, ge=0, le=1, description="e, coefficient of restitution of the collision")
        drag: float = Field(1.0, gt=0, description="μ, loss of speed per length, in 1/s")

    options: Options

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("vx", unit="1/s", initial=0.7), Parameter("vy", unit="1/s", initial=0.0))

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def identifier_shape(self) -> tuple[int, ...]:
        return (4,)

    def draw_identifiers(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 4): cue ~ U([0, 0.2] × [0.4, 0.6]), ball ~ U([0.4, 0.6]²)."""
        low = torch.tensor([0.0, 0.4, 0.4, 0.4], dtype=torch.float64)
        return low + 0.2 * torch.rand(n, 4, dtype=torch.float64, generator=generator)

    def draw_parameters(self, n: int, identifiers: Identifiers, generator: torch.Generator) -> Tensor:
        """(n, 2): aimed at most 0.08 to the side of the ball, with speed ~ U(0.8, 1.4)."""
        assert isinstance(identifiers, Tensor)
        cue, ball = identifiers[:, :2], identifiers[:, 2:]
        r = ball - cue
        normal = torch.stack([-r[:, 1], r[:, 0]], dim=1) / r.norm(dim=1, keepdim=True)
        u = torch.rand(n, 2, dtype=torch.float64, generator=generator)
        aim = ball + 0.08 * (2 * u[:, :1] - 1) * normal
        speed = 0.8 + 0.6 * u[:, 1:]
        way = aim - cue
        velocity: Tensor = speed * way / torch.linalg.vector_norm(way, dim=1, keepdim=True)
        return velocity

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        """y (b, 2) from x (b, 2) and γ (b, 4) = (cue_x, cue_y, ball_x, ball_y)."""
        assert isinstance(identifiers, Tensor)
        o, identifiers = self.options, identifiers.to(x.dtype)
        cue, ball = identifiers[:, :2], identifiers[:, 2:]
        squared = x.square().sum(1, keepdim=True)
        moving = squared > 0
        # Each `where` before a root or a division keeps the gradient finite in rows that take the other branch.
        speed = torch.where(moving, squared, 1.0).sqrt()
        d = x / speed
        r = ball - cue
        b = (r * d).sum(1, keepdim=True)
        half_chord = (2 * o.radius) ** 2 - (r.square().sum(1, keepdim=True) - b.square())
        meets = moving & (b > 0) & (half_chord > 0)
        s = b - torch.where(meets, half_chord, 1.0).sqrt()
        contact = meets & (s < speed / o.drag)
        n = (ball - (cue + d * s)) / (2 * o.radius)
        u = 0.5 * (1 + o.restitution) * (speed - o.drag * s) * (d * n).sum(1, keepdim=True)
        return ball + torch.where(contact, u / o.drag * n, 0.0)
