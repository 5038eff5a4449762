"""A solution file suffices to run the same thing again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import invsolve
from invsolve.errors import DataError
from invsolve.rerun import Rerun

MODEL = """
import torch
def F(x, identifiers):
    return torch.sin(x * identifiers) * {gain}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Wave packets under names of another's layout, with a guess for each."""
    path = tmp_path / "foreign.h5"
    simulated = invsolve.generate("wave-packet", 12, seed=4, model_options={"samples": 32})
    with h5py.File(path, "w") as file:
        file["seen/y"] = np.asarray(simulated.targets)
        file["guess"] = np.full((12, 1), 9.0)
    return path


def solved(data: Path, **more: Any) -> Path:
    out = data.with_name("first.h5")
    dataset = invsolve.read_dataset(data, targets="seen/y", x0="guess")
    invsolve.solve(dataset, "wave-packet", model_options={"samples": 32}, out=out, **more)
    return out


@pytest.mark.parametrize(
    "how",
    [
        {"method": "bfgs", "options": {"max_iterations": 4}, "max_evaluations": 9, "dtype": "float32"},
        {"method": "multistart", "options": {"starts": 3, "local": "lm"}, "seed": 5, "batch_size": 7},
        {"method": "gd", "refine": "bfgs", "prior": True, "covariance": True},
    ],
    ids=lambda how: str(how["method"]),
)
def test_the_same_to_the_bit(data: Path, how: dict[str, Any]) -> None:
    again = Rerun(solved(data, **how))
    found = again.differences(again.run.solve(None, False, False, None))
    assert found["identical"], found
    assert found["made_by"] == {}


def test_differences_are_told_with_their_size(data: Path) -> None:
    again = Rerun(solved(data, method="bfgs"))
    after = again.run.solve(None, False, False, None)
    after.loss[3] *= 1 + 1e-6
    after.evaluations[[1, 2]] += 1
    after.attributes["threads"] = 77
    found = again.differences(after)
    assert found["columns"]["loss"] == {"examples": 1, "largest": pytest.approx(1e-6, rel=1e-4)}
    assert found["columns"]["evaluations"] == {"examples": 2, "largest": None}
    assert found["made_by"]["threads"][1] == 77
    assert not found["identical"]


def test_a_network_that_was_asked_is_asked_again(data: Path, tmp_path: Path) -> None:
    dataset = invsolve.read_dataset(data, targets="seen/y", x0="guess")
    network, out = tmp_path / "net.safetensors", tmp_path / "asked.h5"
    quick = {"passes": 1, "simulations": 4}
    options = {"samples": 32}
    invsolve.solve(dataset, "wave-packet", "jpo", model_options=options, options=quick, save_network=network)
    invsolve.predict(network, dataset, "wave-packet", model_options=options, refine="none", out=out)
    again = Rerun(out)
    assert again.differences(again.run.solve(None, False, False, None))["identical"]
    network.write_bytes(network.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    with pytest.raises(DataError, match="the network has changed since"):
        Rerun(out)


def test_a_models_code_runs_only_where_it_is_named_and_must_be_the_same(tmp_path: Path) -> None:
    model, data, out = tmp_path / "own.py", tmp_path / "d.h5", tmp_path / "s.h5"
    model.write_text(MODEL.format(gain=1.0))
    targets, known = np.linspace(-0.5, 0.5, 6)[:, None], np.linspace(1, 2, 6)[:, None]
    invsolve.write_dataset(data, invsolve.Dataset(targets=targets, identifiers=known, x0=np.zeros((6, 1))))
    invsolve.solve(data, f"{model}:F", out=out)
    with pytest.raises(DataError, match=r"runs only where you name it: add --model .*own\.py:F"):
        Rerun(out)
    again = Rerun(out, model=f"{model}:F")
    assert again.differences(again.run.solve(None, False, False, None))["identical"]
    model.write_text(MODEL.format(gain=2.0))
    with pytest.raises(DataError, match="the model's code has changed"):
        Rerun(out, model=f"{model}:F")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("method_options", "{" * 9, "does not tell how it was made: method_options"),
        ("seed", "many", "does not tell how it was made: seed"),
        ("batch_size", np.zeros(3), "does not tell how it was made: batch_size"),
        ("method", "bfsg", "bfgs"),
        ("input", "elsewhere.h5", "name the dataset where it is now"),
        ("input_sha256", "0" * 64, "it was changed"),
        ("model_options", '{"samples": 31}', "31"),
    ],
)
def test_a_file_that_tells_nonsense_is_refused(data: Path, key: str, value: Any, says: str) -> None:
    out = solved(data, method="bfgs")
    with h5py.File(out, "a") as file:
        file.attrs[key] = value
    with pytest.raises(invsolve.InvsolveError, match=says) as refusal:
        Rerun(out)
    assert "\n" not in str(refusal.value)


def test_data_that_came_from_no_file_must_be_named(data: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "memory.h5", tmp_path / "written.h5"
    simulated = invsolve.generate("sine", 5, seed=1)
    invsolve.solve(simulated, out=out)
    with pytest.raises(DataError, match="came from no file"):
        Rerun(out)
    invsolve.write_dataset(moved, simulated)
    with pytest.raises(DataError, match="is not the dataset"):  # a file's hash is that of its bytes
        Rerun(out, moved)
