"""What the command `check` does with what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from invsolve.checks.method import check_method
from invsolve.checks.model import check_model
from invsolve.checks.report import Report
from invsolve.data.dataset import Dataset
from invsolve.errors import ModelError, OptionError
from invsolve.pipeline import generate
from invsolve.registry import load_model, model_of
from invsolve.settings import check_seed, choose_device

_SIMULATED = 256  # examples, where the user brings none


def check_model_with(
    data: Dataset | None, model: str | None, options: Mapping[str, Any], device: str, seed: int
) -> Report:
    """Check a model on a dataset, or on examples that it simulates itself.

    Raises:
        InvsolveError: there is no model or nothing to check it on, or the two do not fit.
    """
    chosen = choose_device(device)
    check_seed(seed)
    if data is not None:
        return check_model(model_of(data, model, dict(options)), data, chosen, seed=seed)
    if model is None:
        raise OptionError("nothing to check; name DATA.h5, a model with --model, or a method with --method")
    loaded = load_model(model, **options)
    try:
        data = generate(loaded, _SIMULATED, seed=seed)
    except ModelError as error:
        raise ModelError(f"{error}; without priors, name a DATA.h5 to check it on") from None
    return check_model(loaded, replace(data, model=None, model_options={}), chosen, seed=seed)


def check_method_alone(method: str, options: Mapping[str, Any], data: Path | None, model: str | None) -> Report:
    """Check a registered method on problems of its own.

    Raises:
        OptionError: a dataset or model is named as well, or there is no such method.
    """
    if data is not None or model is not None:
        raise OptionError("--method is checked on problems of its own; leave DATA.h5 and --model out")
    return check_method(method, options)
