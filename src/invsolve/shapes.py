"""Do a model and a dataset fit? The shape of x, from the one or the other; and what the model returns."""

from __future__ import annotations

import torch
from torch import Tensor

from invsolve.data.dataset import Dataset
from invsolve.errors import DataError, ModelError
from invsolve.models.base import ForwardModel


def solution_shape(model: ForwardModel, dataset: Dataset) -> tuple[int, ...]:
    """x_shape, from the model or else from the data, once all shapes are seen to agree.

    Raises:
        DataError: targets, identifiers, x0 or x_true do not fit the model.
        ModelError: neither the model nor the data tells the shape of x.
    """
    n = len(dataset)
    if model.y_shape is not None and dataset.y_shape != model.y_shape:
        raise DataError(
            f"model '{model.name}' gives y of shape {model.y_shape}, but targets has shape {dataset.targets.shape}; "
            f"it must be (n, *y_shape), or the model's options must change (-M)"
        )
    _check_identifiers(model, dataset)
    known = {model.x_shape} - {None}
    if not known and dataset.x_true is not None:
        known = {tuple(dataset.x_true.shape[1:])}
    if not known and dataset.x0 is not None:
        known = {tuple(dataset.x0.shape[1:] if dataset.x0_per_row else dataset.x0.shape)}
    if not known:
        raise ModelError(
            f"model '{model.name}' does not say the shape of x, nor does the data; "
            f"give an initial guess: dataset 'x0', (n, *x_shape) or (*x_shape), or --x0 1,0.5; or name the parameters "
            f"in a ForwardModel ('invsolve models new FILE.py' makes one)"
        )
    x_shape = next(iter(known))
    assert x_shape is not None
    for name, array, shapes in (
        ("x0", dataset.x0, [(n, *x_shape), x_shape]),
        ("x_true", dataset.x_true, [(n, *x_shape)]),
    ):
        if array is not None and tuple(array.shape) not in shapes:
            wanted = " or ".join(str(s) for s in shapes)
            raise DataError(f"{name} has shape {tuple(array.shape)}; model '{model.name}' needs {wanted}")
    return x_shape


def _check_identifiers(model: ForwardModel, dataset: Dataset) -> None:
    if not model.identifier_shape:  # () takes none, None is not known
        return
    if dataset.identifiers is None:
        raise DataError(
            f"model '{model.name}' needs identifiers of shape {(len(dataset), *model.identifier_shape)}, found none; "
            f"store them as dataset 'identifiers'"
        )
    shape = getattr(dataset.identifiers, "shape", None)
    if shape is None or tuple(shape[1:]) != model.identifier_shape:
        found = "a group" if shape is None else f"shape {tuple(shape)}"
        raise DataError(
            f"identifiers has {found}; model '{model.name}' needs {(len(dataset), *model.identifier_shape)}"
        )


def check_output(
    y: object,
    x: Tensor,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    name: str,
    example: int,
    dtype: torch.dtype | None,
) -> None:
    """See that a model's y is that of x (b, d), `shapes` being those of one x and one y.

    Args:
        name: of the model.
        example: the first one, to be told.
        dtype: that y must have; None for any.

    Raises:
        ModelError: it is no tensor, or of a wrong shape or dtype, or has no gradient where x wants one.
    """
    x_shape, y_shape = shapes
    given = (len(x), *x_shape)
    if not isinstance(y, Tensor):
        raise ModelError(f"model '{name}' returned {type(y).__name__} for x {given}; it must return a torch.Tensor")
    if tuple(y.shape) != (len(x), *y_shape):
        raise ModelError(
            f"model '{name}' returned shape {tuple(y.shape)} for x {given} at example {example}; "
            f"the targets need {(len(x), *y_shape)}"
        )
    if dtype is not None and y.dtype != dtype:
        other = f", or solve with dtype {str(y.dtype)[6:]}" if y.dtype in (torch.float32, torch.float64) else ""
        raise ModelError(
            f"model '{name}' returned {str(y.dtype)[6:]} where {str(dtype)[6:]} came in; keep the dtype of x{other}"
        )
    if x.requires_grad and not y.requires_grad:
        raise ModelError(
            f"model '{name}' returned a tensor with no gradient to x; write it in differentiable torch operations "
            f"(no .detach(), .item() or NumPy inside)"
        )
