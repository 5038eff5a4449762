"""A model to check, from what the command line names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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
