"""Models and methods by name: the built-in ones, other packages' entry points, and the user's own files."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invsolve.errors import DataError, InvsolveError, ModelError, OptionError, first_line, nearest

if TYPE_CHECKING:
    from invsolve.data.dataset import Dataset
    from invsolve.methods.base import Method
    from invsolve.models.base import ForwardModel

MODELS = {
    "billiards": "invsolve.models.billiards:Billiards",
    "gaussian-2d": "invsolve.models.gaussian_2d:Gaussian2d",
    "kuramoto-sivashinsky": "invsolve.models.kuramoto_sivashinsky:KuramotoSivashinsky",
    "navier-stokes": "invsolve.models.navier_stokes:NavierStokes",
    "sine": "invsolve.models.sine:Sine",
    "wave-packet": "invsolve.models.wave_packet:WavePacket",
}
METHODS = {
    "auto": "invsolve.methods.auto:Auto",
    "bfgs": "invsolve.methods.bfgs:Bfgs",
    "lm": "invsolve.methods.lm:Lm",
    "gd": "invsolve.methods.gd:Gd",
    "jpo": "invsolve.methods.jpo:Jpo",
    "lbfgs": "invsolve.methods.lbfgs:Lbfgs",
    "multistart": "invsolve.methods.multistart:Multistart",
    "neural-adjoint": "invsolve.methods.neural_adjoint:NeuralAdjoint",
    "supervised": "invsolve.methods.supervised:Supervised",
}


_BUILTIN = {"models": MODELS, "methods": METHODS}


@dataclass(frozen=True)
class Entry:
    """A registered model or method: where its class is, and the package that brought it."""

    name: str
    target: str  # package.module:Class
    package: str


def registered(kind: str) -> dict[str, Entry]:
    """All registered `kind`s ("models" or "methods") by name; built-in names cannot be taken over by other packages."""
    entries = {
        point.name: Entry(point.name, point.value, point.dist.name if point.dist else "?")
        for point in entry_points(group=f"invsolve.{kind}")
    }
    entries |= {name: Entry(name, target, "invsolve") for name, target in _BUILTIN[kind].items()}
    return dict(sorted(entries.items()))


def model_class(name: str) -> type[ForwardModel]:
    """The class of a registered model.

    Raises:
        ModelError: no model is registered under this name, or its package cannot be imported.
    """
    return _registered_class("models", name, ModelError)  # type: ignore[no-any-return]


def method_class(name: str) -> type[Method]:
    """The class of a registered method.

    Raises:
        OptionError: no method is registered under this name, or its package cannot be imported.
    """
    return _registered_class("methods", name, OptionError)  # type: ignore[no-any-return]


def load_model(model: str | type[ForwardModel] | ForwardModel | Callable[..., Any], /, **options: Any) -> ForwardModel:
    """A forward model, ready to be called as `model(x, identifiers)` on tensors.

    Args:
        model: a registered name; "path/to/file.py:NAME" or "package.module:NAME", whose code is then run, where NAME
            is a function F(x, identifiers) or a ForwardModel subclass; or such an object itself.
        options: the model's options.

    Raises:
        ModelError: there is no such model, or its code cannot be imported.
        OptionError: an option is unknown or has an unusable value.
    """
    if not isinstance(model, str):
        return _as_model(model, "", options)
    if ":" not in model:
        return _as_model(model_class(model), model, options)
    target, file = _import_target(model)
    loaded = _as_model(target, model, options)
    loaded.source_sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    return loaded


def _as_model(model: Any, name: str, options: dict[str, Any]) -> ForwardModel:
    """`model`, be it a class, an instance or a function, as a forward model called `name`."""
    from invsolve.models.base import ForwardModel, FunctionModel

    if isinstance(model, type) and issubclass(model, ForwardModel):
        return _make_model(model, name or model.__name__, options)
    if not isinstance(model, ForwardModel) and not callable(model):
        raise ModelError(f"model {name or model!r} is no function F(x, identifiers) and no ForwardModel subclass")
    if options:
        raise OptionError(f"model {name or model!r} takes no options here, found '{next(iter(options))}'")
    if isinstance(model, ForwardModel):
        return model
    return FunctionModel(model, name or str(getattr(model, "__name__", "function")))


def _make_model(cls: type[ForwardModel], name: str, options: dict[str, Any]) -> ForwardModel:
    """An instance of a ForwardModel subclass that is what it must be.

    Raises:
        ModelError: its code raises, or its parameters are none.
        OptionError: an option is unknown or has an unusable value.
    """
    import torch

    from invsolve.models.parameters import Parameter

    cls.name = name
    try:
        model = cls(**options)
        model.name = name
        # Parameters may depend on the options, and be impossible with them.
        parameters, x_shape = tuple(model.parameters), model.x_shape
        if not hasattr(model, "options"):
            raise ModelError(f"model '{name}': its __init__ must call super().__init__(**options)")
        model.constants(torch.empty(0, dtype=torch.float64))  # here any fault of theirs is told
    except InvsolveError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"model '{name}' cannot be made: {first_line(error)}") from error
    if not all(isinstance(p, Parameter) for p in parameters):
        raise ModelError(f"model '{name}': parameters must be a tuple of invsolve.Parameter, found {parameters!r}")
    names = [p.name for p in parameters]
    if twice := next((n for n, times in Counter(names).items() if times > 1), None):
        raise ModelError(f"model '{name}': two parameters are called '{twice}'; rename one")
    if parameters and x_shape != (len(parameters),):
        raise ModelError(f"model '{name}': x_shape is {x_shape}, but there are {len(parameters)} parameters")
    return model


def model_of(dataset: Dataset, model: Any, options: dict[str, Any]) -> ForwardModel:
    """The model to solve a dataset with: the one asked for, else the registered one that the data name.

    The data's own model options hold where it is the same model; `options` win over them.

    Raises:
        ModelError: none is asked for and the data name none.
        DataError: the data name something that is not a registered model: data never run code.
    """
    named = dataset.model
    if model is None:
        if named is None:
            raise ModelError("the data name no model; give one with --model (see 'invsolve models')")
        if named not in registered("models"):
            what = (
                "a path, which data must not run; name it yourself with --model"
                if ":" in named
                else (f"not registered; {nearest(named, registered('models'))}")
            )
            raise DataError(f"attribute 'model' of {dataset.source or 'the data'} is '{named}', {what}")
    if model is None or model == named:
        return load_model(named, **{**dataset.model_options, **options})  # type: ignore[arg-type]
    return load_model(model, **options)


def load_method(name: str, options: Mapping[str, Any], *, seed: int) -> Method:
    """A registered method with its options.

    Raises:
        OptionError: the method, or an option of it, is unknown or has an unusable value.
    """
    return method_class(name)(options, seed=seed)


def load_refiner(name: str | None, method: Method, *, seed: int) -> Method | None:
    """The row method that refines a method's solutions, if any: the one asked for, else the method's own choice.

    Raises:
        OptionError: it is no row method, or would undo what the method does.
    """
    name = name or method.refines_with
    if name == "none":
        return None
    from invsolve.methods.base import RowMethod

    if not issubclass(method_class(name), RowMethod):
        raise OptionError(
            f"cannot refine with '{name}', which is no row method; use {', '.join(methods_of(RowMethod))} or none"
        )
    if not method.minimizes_loss:
        raise OptionError(
            f"refine: method '{method.name}' minimizes a robust loss here, '{name}' would undo that; use none"
        )
    return load_method(name, {}, seed=seed)


def methods_of(kind: type) -> list[str]:
    """Names of the registered methods that are of a kind: a class that they derive from."""
    names = []
    for name in registered("methods"):
        with contextlib.suppress(OptionError):  # one that cannot be loaded is of no use here
            if issubclass(method_class(name), kind):
                names.append(name)
    return names


def _registered_class(kind: str, name: str, error: type[InvsolveError]) -> Any:
    builtin = _BUILTIN[kind].get(name)
    # Other packages' entry points are read from their files, which takes longer than to solve a small batch.
    entries = registered(kind) if builtin is None else {name: Entry(name, builtin, "invsolve")}
    if name not in entries:
        hint = "" if kind == "methods" else "; your own are named path/to/file.py:NAME or package.module:NAME"
        raise error(f"no {kind[:-1]} is called '{name}'; {nearest(name, entries)}{hint}")
    entry = entries[name]
    module, _, attribute = entry.target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as cause:
        raise error(f"{kind[:-1]} '{name}' of package {entry.package} cannot be loaded: {first_line(cause)}") from cause
    found.name = name
    return found


def _import_target(target: str) -> tuple[Any, Path]:
    """The object that "file.py:NAME" or "package.module:NAME" names, and its file, whose code is run."""
    place, _, attribute = target.rpartition(":")
    if not place or not attribute:
        raise ModelError(f"model '{target}': write path/to/file.py:NAME or package.module:NAME")
    module = _import_file(Path(place)) if place.endswith(".py") or "/" in place else _import_module(place)
    if not hasattr(module, attribute):
        names = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise ModelError(f"{place} defines no '{attribute}'; {nearest(attribute, names)}")
    return getattr(module, attribute), Path(getattr(module, "__file__", None) or "")


def _import_module(name: str) -> Any:
    top = name.partition(".")[0]
    try:
        if importlib.util.find_spec(top) is None and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # a package beside the data; behind all others, so that it hides none
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ModelError(f"module {name} cannot be imported: {first_line(error)}") from error


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist")
    name = f"_invsolve_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"model file {path} is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are resolved through it
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # as for a script: its neighbours can be imported
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
        line = f" (line {lines[-1]})" if lines else ""
        raise ModelError(f"model file {path} cannot be imported: {first_line(error)}{line}") from error
    return module
