"""The models of the StRD sets, as each data file writes them down: y (b, m) from x (b, d) and the predictors.

Components of x are columns (b, 1); the predictors are t (m,), or for Nelson's set (m, 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Formula = Callable[[tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True)
class Model:
    """A formula, and the changes of x that leave its y as it is: terms may change places, components their signs."""

    formula: Formula
    terms: tuple[tuple[int, ...], ...] = ()  # components of each term of a sum of like terms
    flips: tuple[tuple[int, ...], ...] = ()  # components that may change sign together


def _bennett5(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3 = x
    return b1 * (b2 + t) ** (-1 / b3)


def _saturation(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2 = x
    return b1 * (1 - torch.exp(-b2 * t))


def _chwirut(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3 = x
    return torch.exp(-b1 * t) / (b2 + b3 * t)


def _danwood(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2 = x
    return b1 * t**b2


def _enso(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4, b5, b6, b7, b8, b9 = x

    def cycle(cosine: Tensor, sine: Tensor, period: Tensor | float) -> Tensor:
        phase = 2 * math.pi * t / period
        return cosine * torch.cos(phase) + sine * torch.sin(phase)

    return b1 + cycle(b2, b3, 12.0) + cycle(b5, b6, b4) + cycle(b8, b9, b7)


def _eckerle4(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3 = x
    return b1 / b2 * torch.exp(-0.5 * ((t - b3) / b2) ** 2)


def _gauss(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4, b5, b6, b7, b8 = x
    peaks = b3 * torch.exp(-((t - b4) ** 2) / b5**2) + b6 * torch.exp(-((t - b7) ** 2) / b8**2)
    return b1 * torch.exp(-b2 * t) + peaks


def _cubic_ratio(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4, b5, b6, b7 = x
    return (b1 + b2 * t + b3 * t**2 + b4 * t**3) / (1 + b5 * t + b6 * t**2 + b7 * t**3)


def _kirby2(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4, b5 = x
    return (b1 + b2 * t + b3 * t**2) / (1 + b4 * t + b5 * t**2)


def _lanczos(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4, b5, b6 = x
    return b1 * torch.exp(-b2 * t) + b3 * torch.exp(-b4 * t) + b5 * torch.exp(-b6 * t)


def _mgh09(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4 = x
    return b1 * (t**2 + t * b2) / (t**2 + t * b3 + b4)


def _mgh10(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3 = x
    return b1 * torch.exp(b2 / (t + b3))


def _mgh17(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4, b5 = x
    return b1 + b2 * torch.exp(-t * b4) + b3 * torch.exp(-t * b5)


def _misra1b(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2 = x
    return b1 * (1 - (1 + b2 * t / 2) ** -2)


def _misra1c(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2 = x
    return b1 * (1 - (1 + 2 * b2 * t) ** -0.5)


def _misra1d(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2 = x
    return b1 * b2 * t / (1 + b2 * t)


def _nelson(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3 = x
    return b1 - b2 * t[:, 0] * torch.exp(-b3 * t[:, 1])


def _rat42(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3 = x
    return b1 / (1 + torch.exp(b2 - b3 * t))


def _rat43(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4 = x
    return b1 / (1 + torch.exp(b2 - b3 * t)) ** (1 / b4)


def _roszman1(x: tuple[Tensor, ...], t: Tensor) -> Tensor:
    b1, b2, b3, b4 = x
    return b1 - b2 * t - torch.arctan(b3 / (t - b4)) / math.pi


_GAUSS = Model(_gauss, terms=((2, 3, 4), (5, 6, 7)), flips=((4,), (7,)))
_LANCZOS = Model(_lanczos, terms=((0, 1), (2, 3), (4, 5)))

MODELS = {
    "Bennett5": Model(_bennett5),
    "BoxBOD": Model(_saturation),
    "Chwirut1": Model(_chwirut),
    "Chwirut2": Model(_chwirut),
    "DanWood": Model(_danwood),
    "ENSO": Model(_enso, terms=((3, 4, 5), (6, 7, 8)), flips=((3, 5), (6, 8))),
    "Eckerle4": Model(_eckerle4, flips=((0, 1),)),
    "Gauss1": _GAUSS,
    "Gauss2": _GAUSS,
    "Gauss3": _GAUSS,
    "Hahn1": Model(_cubic_ratio),
    "Kirby2": Model(_kirby2),
    "Lanczos1": _LANCZOS,
    "Lanczos2": _LANCZOS,
    "Lanczos3": _LANCZOS,
    "MGH09": Model(_mgh09),
    "MGH10": Model(_mgh10),
    "MGH17": Model(_mgh17, terms=((1, 3), (2, 4))),
    "Misra1a": Model(_saturation),
    "Misra1b": Model(_misra1b),
    "Misra1c": Model(_misra1c),
    "Misra1d": Model(_misra1d),
    "Nelson": Model(_nelson),
    "Rat42": Model(_rat42),
    "Rat43": Model(_rat43),
    "Roszman1": Model(_roszman1),
    "Thurber": Model(_cubic_ratio),
}
