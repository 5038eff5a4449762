"""What a solution file tells of how it came to be, and what makes a run the same run."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from invsolve._version import __version__
from invsolve.methods.joint import JointMethod

if TYPE_CHECKING:
    from invsolve.data.network_file import SavedNetwork
    from invsolve.range_solver import RangeSolver


def identity(solver: RangeSolver, saved: SavedNetwork | None) -> dict[str, Any]:
    """What makes a run the same run, in JSON values; `saved` is the network that it begins with."""
    s = solver.settings
    return {
        "input_sha256": solver.dataset.sha256(),
        "model": solver.model.name,
        "model_sha256": solver.model.source_sha256,
        "model_options": solver.model.options.model_dump(mode="json"),
        "method": s.method,
        "method_options": solver.method.options.model_dump(mode="json"),
        "refine": solver.refiner.name if solver.refiner else "none",
        "seed": s.seed,
        "dtype": s.dtype,
        "max_evaluations": "none" if s.max_evaluations is None else s.max_evaluations,
        "prior": s.prior,
        "covariance": s.covariance,
        "deterministic": s.deterministic,
        "network_sha256": saved.sha256 if saved is not None else "none",
    }


def as_stored(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity as the attributes of a solution file hold it."""
    return {k: json.dumps(v) if isinstance(v, dict) else v for k, v in identity.items()}


def attributes(solver: RangeSolver, threads: int) -> dict[str, Any]:
    """What a solution file tells of a run beside its identity, its networks and the seconds that it took."""
    return {
        "device": str(solver.device),
        "threads": threads,
        "batch_size": solver.batch_size,
        "compiled": solver.tuning.kernels is not None,
        "compile_seconds": solver.tuning.compile_seconds,
        "versions": {
            "invsolve": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["invsolve", *sys.argv[1:]]) if sys.argv[:1] else "",
        "input": solver.dataset.source or "",
        "input_paths": solver.dataset.paths,
        "time_limit": "none" if solver.settings.time_limit is None else solver.settings.time_limit,
    } | _trained(solver.method)


def _trained(method: Any) -> dict[str, Any]:
    """What a joint method chose in its training, and how that went."""
    if not isinstance(method, JointMethod):
        return {}
    return {k: v for k, v in (("chosen", method.chosen), ("training_curve", method.training_curve)) if v}
