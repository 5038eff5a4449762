"""invsolve solves batches of inverse problems with differentiable forward models.

Names load on first use, so that `import invsolve` and `invsolve --help` need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from invsolve._version import __version__

if TYPE_CHECKING:
    from invsolve.analysis.comparison import Comparison as Comparison
    from invsolve.data.dataset import Dataset as Dataset
    from invsolve.data.solution import Solution as Solution
    from invsolve.data.solution import Status as Status
    from invsolve.data.store import read_dataset as read_dataset
    from invsolve.data.store import read_solution as read_solution
    from invsolve.data.store import write_dataset as write_dataset
    from invsolve.data.store import write_solution as write_solution
    from invsolve.diagnosis.diagnose import diagnose as diagnose
    from invsolve.diagnosis.result import Diagnosis as Diagnosis
    from invsolve.errors import DataError as DataError
    from invsolve.errors import InvsolveError as InvsolveError
    from invsolve.errors import ModelError as ModelError
    from invsolve.errors import OptionError as OptionError
    from invsolve.errors import OutputError as OutputError
    from invsolve.errors import WorkerError as WorkerError
    from invsolve.models.base import ForwardModel as ForwardModel
    from invsolve.models.parameters import Normal as Normal
    from invsolve.models.parameters import Parameter as Parameter
    from invsolve.models.parameters import Uniform as Uniform
    from invsolve.options import Options as Options
    from invsolve.pipeline import compare as compare
    from invsolve.pipeline import compare_solutions as compare_solutions
    from invsolve.pipeline import generate as generate
    from invsolve.pipeline import predict as predict
    from invsolve.pipeline import solve as solve
    from invsolve.registry import load_model as load_model
    from invsolve.report.page import write_report as write_report
    from invsolve.settings import Cluster as Cluster
    from invsolve.settings import Settings as Settings

_HOMES = {
    "invsolve.analysis.comparison": ("Comparison",),
    "invsolve.data.dataset": ("Dataset",),
    "invsolve.data.solution": ("Solution", "Status"),
    "invsolve.data.store": ("read_dataset", "read_solution", "write_dataset", "write_solution"),
    "invsolve.diagnosis.diagnose": ("diagnose",),
    "invsolve.diagnosis.result": ("Diagnosis",),
    "invsolve.errors": ("DataError", "InvsolveError", "ModelError", "OptionError", "OutputError", "WorkerError"),
    "invsolve.models.base": ("ForwardModel",),
    "invsolve.models.parameters": ("Normal", "Parameter", "Uniform"),
    "invsolve.options": ("Options",),
    "invsolve.pipeline": ("compare", "compare_solutions", "generate", "predict", "solve"),
    "invsolve.registry": ("load_model",),
    "invsolve.report.page": ("write_report",),
    "invsolve.settings": ("Cluster", "Settings"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604  every name is a string, sorted
    "__version__",
    *sorted(_HOME_OF),
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'invsolve' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
