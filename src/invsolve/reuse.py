"""Networks from one run to another: the one that a run begins from or asks, and where it leaves its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from invsolve._version import __version__
from invsolve.data.dataset import Dataset
from invsolve.data.files import check_writable, is_one_of
from invsolve.data.network_file import About, Known, SavedNetwork, Unknown, read_network, write_network
from invsolve.errors import DataError, ModelError, OptionError, OutputError
from invsolve.methods.base import Method
from invsolve.methods.predict import Predict
from invsolve.methods.solver_network import NetworkMethod, restored
from invsolve.models.base import ForwardModel
from invsolve.registry import load_method, methods_of, registered
from invsolve.settings import Settings


def make_method(settings: Settings) -> tuple[Method, SavedNetwork | None]:
    """The method of a run, and the network from a file that it asks or begins from, if any.

    Raises:
        OptionError: as for `load_method`; or a network is to be saved or begun from by a method that trains none.
        DataError: the file holds no usable network.
    """
    if settings.predict_from is not None:
        saved = open_network(settings.predict_from)
        return Predict(saved, settings.method_options, seed=settings.seed), saved
    method = load_method(settings.method, settings.method_options, seed=settings.seed)
    for name in ("save_network", "init_from"):
        if getattr(settings, name) is not None and not isinstance(method, NetworkMethod):
            raise OptionError(
                f"{name}: method '{method.name}' trains no network; "
                f"use one that does: {', '.join(methods_of(NetworkMethod))}"
            )
    if settings.init_from is None or not isinstance(method, NetworkMethod):
        return method, None
    saved = open_network(settings.init_from)
    method.begin_from(saved)
    return method, saved


def open_network(path: Path) -> SavedNetwork:
    """A network from a file, seen to be one that can be built.

    Raises:
        DataError: it is none.
    """
    saved = read_network(path)
    restored(saved)
    return saved


def with_model_of(saved: SavedNetwork, dataset: Dataset) -> Dataset:
    """Data that name no model, with the network's, if that is a registered one: no file ever runs code.

    Raises:
        ModelError: it is not.
    """
    if saved.about.model not in registered("models"):
        raise ModelError(
            f"the data name no model, and that of {saved.path} is '{saved.about.model}', whose code runs only where "
            f"you name it: give it with --model"
        )
    return replace(dataset, model=saved.about.model, model_options=dict(saved.about.model_options))


def check_model(saved: SavedNetwork, model: ForwardModel) -> list[str]:
    """See that a network was trained for this model: it would answer for any other too, and be wrong.

    Returns what is worth telling although it was.

    Raises:
        ModelError: it was trained for another one, or for other parameters of this one.
        OptionError: for the same with other options.
    """
    about, here = saved.about, f"the network of {saved.path}"
    same_code = bool(about.model_sha256) and about.model_sha256 == model.source_sha256
    renamed = same_code and about.model.rpartition(":")[2] == model.name.rpartition(":")[2]
    if about.model != model.name and not renamed:
        raise ModelError(f"{here} was trained for model '{about.model}', not for '{model.name}'")
    options = model.options.model_dump(mode="json")
    for name in sorted({*options, *about.model_options}):
        now, then = options.get(name), about.model_options.get(name)
        if now != then:
            raise OptionError(
                f"{here} was trained for model '{model.name}' with {name}={then}, found {name}={now}; "
                f"give -M {name}={then} if that is what the data are of"
            )
    if _unknowns(model) != about.parameters:
        raise ModelError(
            f"{here} was trained for other parameters of model '{model.name}', or other scales, bounds or priors: "
            f"its answers mean something else now; train again"
        )
    if about.model_sha256 != model.source_sha256:
        return [f"the code of model '{model.name}' has changed since {saved.path} was trained"]
    return []


def check_data(saved: SavedNetwork, dataset: Dataset, x_shape: tuple[int, ...]) -> list[str]:
    """See that data are of the shapes that a network was trained on. Returns what is worth telling although they are.

    Raises:
        DataError: they are not.
    """
    about, here = saved.about, f"the network of {saved.path}"
    for what, now, then in (
        ("targets", dataset.y_shape, about.y_shape),
        ("solutions", x_shape, about.x_shape),
        ("identifiers", _told(_known(dataset)), _told(about.identifiers)),
    ):
        if now != then:
            raise DataError(f"{here} was trained on {what} of shape {then}, found {now}")
    if about.x0 not in ("one", _x0_from(dataset)):
        return [f"{here} answers with changes to x0 from the {about.x0}, but here x0 is from the {_x0_from(dataset)}"]
    return []


def check_target(path: Path, others: Mapping[str, str | Path | None], overwrite: bool) -> None:
    """See before any work that a network can be written to `path`.

    Raises:
        OutputError: it cannot, or it is one of the `others`, which are named by what they are.
    """
    for what, other in others.items():
        if other is not None and is_one_of(path, [other]):
            raise OutputError(f"save_network {path} is {what}; choose another name")
    check_writable(path, overwrite)


def save(
    method: Method, path: Path, model: ForwardModel, dataset: Dataset, x_shape: tuple[int, ...], *, overwrite: bool
) -> bool:
    """Write the network that a method has trained; False where there is none, or it has learned nothing.

    Raises:
        OutputError: it cannot be written.
    """
    network = method.trained if isinstance(method, NetworkMethod) else None
    if network is None:
        return False
    sizes, tensors = network.parts()
    known = {k.name: k for k in _known(dataset)}
    about = About(
        schema="invsolve-network/1", invsolve=__version__, method=method.name, examples=len(dataset),
        model=model.name, model_sha256=model.source_sha256, model_options=model.options.model_dump(mode="json"),
        parameters=_unknowns(model), x_shape=x_shape,
        x0=_x0_from(dataset) if network.start is None else "one", y_shape=tuple(dataset.y_shape),
        identifiers=tuple(known[name] for name in network.names), **sizes,
    )  # fmt: skip
    write_network(path, about, tensors, overwrite=overwrite)
    return True


def _unknowns(model: ForwardModel) -> tuple[Unknown, ...]:
    """What the network's output means: it is in typical changes, of the logarithm on a log scale."""
    return tuple(Unknown(name=p.name, scale=p.scale, typical=p.typical) for p in model.parameters)


def _x0_from(dataset: Dataset) -> Literal["model", "data"]:
    return "model" if dataset.x0 is None else "data"


def _known(dataset: Dataset) -> tuple[Known, ...]:
    given: Any = dataset.identifiers
    arrays = given if isinstance(given, Mapping) else {} if given is None else {"identifiers": given}
    return tuple(Known(name=name, shape=tuple(array.shape[1:])) for name, array in arrays.items())


def _told(known: tuple[Known, ...]) -> str:
    return ", ".join(f"{k.name} {k.shape}" for k in sorted(known, key=lambda k: k.name)) or "none"
