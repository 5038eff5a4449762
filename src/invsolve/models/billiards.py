"""One billiards shot: where does the hit ball come to rest? Gradients are zero wherever the cue ball misses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from invsolve.models.scene import Scene
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
        identifiers = identifiers.to(x.dtype)
        cue, ball = identifiers[:, :2], identifiers[:, 2:]
        o = self.options
        speed, d, s, contact = self._meeting(x, cue, ball)
        n = (ball - (cue + d * s)) / (2 * o.radius)
        u = 0.5 * (1 + o.restitution) * (speed - o.drag * s) * (d * n).sum(1, keepdim=True)
        return ball + torch.where(contact, u / o.drag * n, 0.0)

    def _meeting(self, x: Tensor, cue: Tensor, ball: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Speed (b, 1) and direction (b, 2) of the cue ball, its way (b, 1) to the other, and whether it gets there."""
        o = self.options
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
        return speed, d, s, meets & (s < speed / o.drag)

    def draw(self, axes: Any, scene: Scene) -> None:
        """The cue ball (white) goes along the dashed line to where it meets the other ball (grey) or rests. The
        coloured line is the way of the other ball, which should come to rest at the cross.
        """
        cue, ball = np.split(np.asarray(scene.identifiers), 2)
        rows = (torch.from_numpy(np.array(v)).double()[None] for v in (scene.x, cue, ball))
        speed, d, s, contact = (v[0].numpy() for v in self._meeting(*rows))
        moves = bool(np.any(scene.x != 0))
        way = (s if contact[0] else speed / self.options.drag) if moves else 0.0
        end = cue + way * d

        def circle(at: np.ndarray, **look: Any) -> None:
            turn = np.linspace(0, 2 * np.pi, 61)
            edge = at[:, None] + self.options.radius * np.stack([np.cos(turn), np.sin(turn)])
            axes.fill(*edge, **{"facecolor": "none", "edgecolor": scene.ink, "linewidth": 1.0} | look)

        axes.plot(*np.stack([cue, end], axis=1), color=scene.grey, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.plot(*np.stack([ball, scene.y], axis=1), color=scene.color, linewidth=1.8)
        circle(cue, facecolor=scene.paper)
        circle(end, edgecolor=scene.grey, linestyle=(0, (2, 1.5)))
        circle(ball, facecolor=scene.pale)
        circle(scene.y, facecolor=scene.color, edgecolor=scene.color, alpha=0.6)
        axes.plot(*scene.target, color=scene.ink, marker="x", markersize=7, markeredgewidth=1.8, linestyle="none")
        seen = np.stack([cue, end, ball, *(v for v in (scene.y, scene.target) if np.isfinite(v).all())])
        middle, half = (seen.max(0) + seen.min(0)) / 2, float(np.ptp(seen, axis=0).max()) / 2 + 2 * self.options.radius
        axes.set(xlim=middle[0] + np.array([-half, half]), ylim=middle[1] + np.array([-half, half]), aspect="equal")
