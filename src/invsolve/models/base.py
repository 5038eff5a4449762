"""Forward models: what the user brings, and what a model can say about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from invsolve.errors import ModelError
from invsolve.models.parameters import Parameter
from invsolve.models.scene import Scene
from invsolve.options import Options as BaseOptions
from invsolve.options import parse_options

Identifiers = Tensor | dict[str, Tensor] | None
"""γ of some examples: (b, *γ_shape), a dict of such tensors, or None where the model needs none."""


class ForwardModel:
    """A differentiable forward model y = F(x, γ), batch first. Subclass it and define `forward` and `parameters`.

    Row i of y must depend on row i of x and γ alone. Options are declared in a nested class `Options(invsolve.Options)`
    and read from `self.options`.
    """

    Options: type[BaseOptions] = BaseOptions
    options: Any

    name: str = ""
    """What messages and files call it: the registered name, or the path it was loaded from."""

    source_sha256: str = ""
    """Hash of the file that holds the model's code, where the user named one: another code is another model."""

    noise: ClassVar[float] = 0.0
    """Standard deviation of the noise that `generate` adds unless told otherwise."""

    def __init__(self, /, **options: object) -> None:
        self.name = self.name or type(self).__name__
        if not (isinstance(self.Options, type) and issubclass(self.Options, BaseOptions)):
            raise ModelError(f"model '{self.name}': its class Options must be a subclass of invsolve.Options")
        self.options = parse_options(type(self).Options, dict(options), f"model '{self.name}'")
        self._constants: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def __call__(self, x: Tensor, identifiers: Identifiers = None) -> Tensor:
        """y (b, *y_shape) from x (b, *x_shape) and the identifiers of the same b examples."""
        return self.forward(x, identifiers)

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        """y (b, *y_shape) from x (b, *x_shape); to be defined by the subclass, differentiable in x."""
        raise ModelError(f"model '{self.name}' defines no forward(self, x, identifiers)")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The components of x, in order; empty where they have no names (then the data must bring x0)."""
        return ()

    @property
    def x_shape(self) -> tuple[int, ...] | None:
        """Shape of one solution, or None where only the data can tell."""
        return (len(self.parameters),) if self.parameters else None

    @property
    def y_shape(self) -> tuple[int, ...] | None:
        """Shape of one target, or None where only the data can tell."""
        return None

    @property
    def identifier_shape(self) -> tuple[int, ...] | None:
        """Shape of one example's identifiers, () where the model takes none, None where only the data can tell."""
        return None

    def initial_guess(self, targets: Tensor, identifiers: Identifiers) -> Tensor:
        """x0 (n, *x_shape) float64 for n targets: each parameter's `initial`.

        Raises:
            ModelError: the model names no parameters, so that the data must bring x0.
        """
        if not self.parameters:
            raise ModelError(
                f"model '{self.name}' has no initial guess: store one as dataset 'x0', (n, *x_shape) or (*x_shape)"
            )
        initial = torch.tensor([p.initial for p in self.parameters], dtype=torch.float64)
        return initial.expand(len(targets), -1).clone()

    def draw_identifiers(self, n: int, generator: torch.Generator) -> Identifiers:
        """γ of n simulated examples, float64; None where the model takes none."""
        return None

    def draw_parameters(self, n: int, identifiers: Identifiers, generator: torch.Generator) -> Tensor:
        """x (n, *x_shape) float64 of n simulated examples, from the priors.

        Raises:
            ModelError: some parameter has no prior.
        """
        missing = [p.name for p in self.parameters if p.prior is None]
        if missing or not self.parameters:
            what = f"parameter '{missing[0]}' has no prior" if missing else "it names no parameters"
            raise ModelError(f"model '{self.name}' cannot be simulated: {what}")
        return torch.stack([p.draw(n, generator) for p in self.parameters], dim=1)

    def conceal(self, targets: Tensor) -> Tensor:
        """Simulated targets (n, *y_shape) as they are observed: NaN where nothing is measured. By default, all is."""
        return targets

    def draw(self, axes: Any, scene: Scene) -> None:
        """Draw one solution of one example into matplotlib axes; for models whose y says little as curve or image.

        Pictures call it in place of their own way where a subclass defines it: with `axes.plot`, `axes.fill` and the
        like, it needs no import of matplotlib, and sets labels, limits and aspect. Colours are those of the scene.
        """
        raise ModelError(f"model '{self.name}' defines no draw(self, axes, scene)")

    @property
    def draws(self) -> bool:
        """Whether it defines `draw`."""
        return type(self).draw is not ForwardModel.draw

    def make_constants(self) -> Mapping[str, Tensor]:
        """Tensors that `forward` needs and that depend on the options alone, in float64 on the CPU."""
        return {}

    def constants(self, like: Tensor) -> dict[str, Tensor]:
        """`make_constants()` on the device and in the dtype of `like`, made once for each."""
        key = (like.device, like.dtype)
        if key not in self._constants:
            self._constants[key] = {k: v.to(like.device, like.dtype) for k, v in self.make_constants().items()}
        return self._constants[key]


class FunctionModel(ForwardModel):
    """A plain function `F(x, identifiers) -> y` as a forward model; shapes come from the data."""

    def __init__(self, function: Callable[[Tensor, Identifiers], Tensor], name: str) -> None:
        self.name = name
        super().__init__()
        self._function = function

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        return self._function(x, identifiers)
