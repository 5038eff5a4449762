"""Files that other programs made are read as they are, and `inspect` says how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.data.proposal import propose_parts
from invsolve.models.base import ForwardModel, Identifiers
from invsolve.models.parameters import Parameter
from tests.conftest import Command


class Scan(ForwardModel):
    """counts_j = a·temperature + b·field·t_j"""

    parameters = (Parameter("a"), Parameter("b"))

    def forward(self, x: Tensor, identifiers: Identifiers) -> Tensor:
        assert isinstance(identifiers, dict)
        assert identifiers["field"].dtype == torch.int64
        t = torch.linspace(0, 1, 16, dtype=x.dtype)
        return x[:, :1] * identifiers["temperature"][:, None] + x[:, 1:] * identifiers["field"][:, None] * t


PARTS = {"targets": "entry/data/counts", "sigma": "entry/data/errors", "identifiers": "entry/sample"}


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A NeXus-like file: integer counts in compressed chunks, big-endian and unsigned identifiers in a group."""
    rng = np.random.default_rng(0)
    temperature, field = rng.uniform(5, 9, 30), np.arange(1, 31)
    counts = 20 * temperature[:, None] + 3 * field[:, None] * np.linspace(0, 1, 16)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["entry/title"] = "scan 12"
        stored = counts.round().astype(np.uint16)
        node = file.create_dataset("entry/data/counts", data=stored, chunks=(7, 16), compression="gzip", shuffle=True)
        node.attrs["units"] = "counts"
        file["entry/data/errors"] = np.full((30, 16), 0.5, dtype=np.float32)
        file["entry/sample/temperature"] = temperature.astype(">f4")
        file["entry/sample/field"] = field.astype(">u2")
        file["entry/instrument/wavelength"] = np.linspace(1, 2, 16)
    return path


def test_integer_compressed_big_endian_and_grouped_data_are_solved(scan: Path) -> None:
    data = invsolve.read_dataset(scan, **PARTS)
    solution = invsolve.solve(data, Scan)
    np.testing.assert_allclose(solution.x, np.broadcast_to([20.0, 3.0], (30, 2)), atol=0.25)
    assert solution.reduced_chi2.mean() < 1
    single = invsolve.solve(data, Scan, dtype="float32")
    np.testing.assert_allclose(single.x, solution.x, rtol=1e-3)


def test_inspect_proposes_a_command_that_works(scan: Path, command: Command, tmp_path: Path) -> None:
    found = json.loads(command("inspect", scan, "--json").stdout)
    assert found["kind"] == "dataset of 30 examples, targets of shape (16,) with identifiers, sigma"
    assert found["arrays"]["entry/data/counts"] == {
        "shape": [30, 16], "dtype": "uint16", "unit": "counts", "filters": ["shuffle", "deflate"]
    }  # fmt: skip
    (tmp_path / "m.py").write_text(
        "import torch\n"
        "def F(x, g):\n"
        "    t = torch.linspace(0, 1, 16, dtype=x.dtype)\n"
        "    return x[:, :1] * g['temperature'][:, None] + x[:, 1:] * g['field'][:, None] * t\n"
    )
    words = found["command"].replace("MODEL.py:F", str(tmp_path / "m.py:F")).split()
    assert words[0] == "invsolve"
    done = command(*words[1:], "--x0", "1,0.5")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        invsolve.read_solution(scan.with_suffix(".bfgs.h5")).x, np.broadcast_to([20.0, 3.0], (30, 2)), atol=0.25
    )
    assert "solve it by invsolve solve" in command("inspect", scan).stdout


def shapes(**arrays: Any) -> dict[str, dict[str, Any]]:
    return {k.replace("__", "/"): {"shape": list(v), "dtype": "float64"} for k, v in arrays.items()}


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        (shapes(targets=(9, 4), identifiers=(9,)), {"targets": "targets", "identifiers": "identifiers"}),
        (shapes(a__big=(9, 400), a__t=(9,), b__k=(9, 2)), {"targets": "a/big", "identifiers": "a/t"}),
        (shapes(y=(9, 4), err=(9,), guess=(3,)), {"targets": "y", "sigma": "err", "x0": "guess"}),
        (shapes(y=(9, 4), err=(5,), x_true=(9, 2)), {"targets": "y"}),  # no sigma of any shape that fits
        (shapes(g__signal=(9, 4), m__a=(9,), m__b=(9, 2)), {"targets": "g/signal", "identifiers": "m"}),
        (shapes(g__signal=(9, 4), m__a=(9,), m__b=(7,)), {"targets": "g/signal", "identifiers": "m/a"}),
        (shapes(empty=(0, 4)), {}),
        ({"name": {"shape": [3], "dtype": "text"}, "away": {"link": "x:/y"}}, {}),
    ],
)
def test_proposals(arrays: Any, parts: dict[str, str]) -> None:
    assert propose_parts(arrays) == parts


def test_filters_of_hdf5plugin(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    targets = np.random.default_rng(0).normal(size=(20, 8))
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file.create_dataset("targets", data=targets, **hdf5plugin.Zstd())
    np.testing.assert_array_equal(np.asarray(invsolve.read_dataset(tmp_path / "z.h5").targets), targets)


def test_a_filter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "u.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        plist.set_filter(511, h5py.h5z.FLAG_OPTIONAL)  # a code kept for tests
        space = h5py.h5s.create_simple((8,))
        h5py.h5d.create(file.id, b"targets", h5py.h5t.NATIVE_DOUBLE, space, plist)
    with pytest.raises(invsolve.DataError, match="compressed by HDF5 filter 511 .* 'pip install hdf5plugin'"):
        invsolve.read_dataset(tmp_path / "u.h5")


def test_a_start_in_numbers(tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    invsolve.write_dataset(path, invsolve.Dataset(targets=np.ones((3, 2))))
    data = invsolve.read_dataset(path, x0="1,0.5")
    np.testing.assert_array_equal(data.x0, [[1, 0.5]] * 3)
    assert data.sha256() != invsolve.read_dataset(path).sha256()  # another start is another problem
    with pytest.raises(invsolve.DataError, match="has no '1;2'"):
        invsolve.read_dataset(path, x0="1;2")
