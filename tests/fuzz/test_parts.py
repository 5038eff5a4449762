"""What keeps hostile files in check, part by part; what they must not do as a whole is in test_hostile.py."""

from __future__ import annotations

import os
import resource
import struct
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import invsolve
from invsolve.config import load_config
from invsolve.data.hdf5 import describe_file
from invsolve.data.heaps import heaps_end
from invsolve.data.json_text import json_object
from invsolve.data.limits import growth_limited
from invsolve.errors import visible


def heap(*objects: tuple[int, int], size: int = 4096, free: int | None = None) -> bytes:
    """A global heap of objects (number, size), and free space behind them."""
    content = b"".join(
        struct.pack("<HH4xQ", number, 0, taken) + bytes((taken + 7) // 8 * 8) for number, taken in objects
    )
    left = size - 16 - len(content)
    content += struct.pack("<HH4xQ", 0, 0, left if free is None else free)
    return (struct.pack("<4sB3xQ", b"GCOL", 1, size) + content).ljust(size, b"\0")


@pytest.mark.parametrize(
    ("content", "ends"),
    [
        (heap((1, 20), (2, 3)), True),
        (b"xyz" + heap((1, 20)) + b"tail", True),
        (heap((1, 20), free=0), False),
        (b"x" * (2**20 - 2) + heap((1, 20), free=0), False),  # across two blocks that are read
        (heap((1, 20), free=2**63), False),
        (heap()[:30], True),  # too short for HDF5, too
        (heap((1, 20))[:4] + b"\x02" + heap((1, 20), free=0)[5:], True),  # of a version that HDF5 refuses
        (heap((1, 20), (0, 0), size=256) * 3, False),
    ],
)
def test_heaps_that_have_no_end_are_found(tmp_path: Path, content: bytes, ends: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    assert heaps_end(path) is ends


def test_heaps_inside_heaps_do_not_take_forever(tmp_path: Path) -> None:
    path = tmp_path / "f"
    one = struct.pack("<4sB3xQ", b"GCOL", 1, 2**19)
    path.write_bytes(one * 2**16)
    assert not heaps_end(path)


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": NaN}', '{"a": [1e999]}', '{"a":' * 60 + "1" + "}" * 60, '"x"', "",
                                  '{"a":' * 10**5])  # fmt: skip
def test_json_that_cannot_be_passed_on_is_none(text: str) -> None:
    assert json_object(text) is None


def test_json_objects_are_read() -> None:
    assert json_object('{"a": [1, 2.5, {"b": null}]}') == {"a": [1, 2.5, {"b": None}]}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits what a process may take")
def test_growth_is_limited_meanwhile_and_not_afterwards() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with growth_limited(2**26), pytest.raises(MemoryError):
        np.ones(2**28)
    with growth_limited(2**26):
        assert resource.getrlimit(resource.RLIMIT_AS) != before
        with growth_limited(2**32):  # the larger limit holds
            assert np.ones(2**25).sum() == 2**25
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert np.ones(2**25).sum() == 2**25


def test_what_is_shown_cannot_speak_to_the_terminal() -> None:
    assert visible("µ\x1b[2J\n\u202e\x9b") == "µ\\x1b[2J\\n\\u202e\\x9b"


def test_a_configuration_names_no_code(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('model = "mine.py:F"')
    with pytest.raises(invsolve.OptionError, match="names code, which runs only where you name it yourself"):
        load_config(path, {"model": False})
    path.write_text('model = "sine"')
    assert load_config(path, {"model": False})[0] == {"model": "sine"}


def solved(path: Path) -> Path:
    invsolve.solve(invsolve.generate("sine", 3), max_evaluations=4, out=path)
    return path


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("loss", h5py.ExternalLink("/etc/passwd", "/x"), "external link to /etc/passwd"),
        ("status", np.full(3, 77, np.int8), "'status' holds codes that mean nothing"),
        ("evaluations", np.full(3, -1), "'evaluations' holds counts below 0"),
        ("x_initial", np.ones((3, 2)), r"'x_initial' has shape \(3, 2\)"),
        ("loss", np.array(1.0), "'loss' has shape"),
    ],
)
def test_columns_that_no_solution_has_are_told(tmp_path: Path, name: str, value: object, line: str) -> None:
    path = solved(tmp_path / "s.h5")
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value
    with pytest.raises(invsolve.DataError, match=line):
        invsolve.read_solution(path)


@pytest.mark.parametrize(
    ("key", "value", "line"), [("seconds", -1.0, "no time"), ("method", 3, "'method' is '3'"), ("seconds", "x", "'x'")]
)
def test_attributes_that_no_solution_has_are_told(tmp_path: Path, key: str, value: object, line: str) -> None:
    path = solved(tmp_path / "s.h5")
    with h5py.File(path, "a") as file:
        file.attrs[key] = value
    with pytest.raises(invsolve.DataError, match=line):
        invsolve.read_solution(path)


def test_groups_that_contain_themselves_are_listed_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"] = file["b"] = file["/"]
        file["g/x"] = np.ones(2)
        file["h"] = file["g"]
    arrays = describe_file(tmp_path / "f.h5")["arrays"]
    assert arrays["a"] == arrays["b"] == {"link": ":/"}
    assert arrays["h"] == {"link": ":/g"}
    assert arrays["g/x"]["shape"] == [2]


def test_names_of_a_real_size_are_read_as_they_are(tmp_path: Path) -> None:
    data = invsolve.generate("sine", 3)
    data.names = ["x" * 100_000, "", "é" * 5000]
    invsolve.write_dataset(tmp_path / "d.h5", data)
    assert list(invsolve.read_dataset(tmp_path / "d.h5").names) == data.names


def test_files_may_have_names_of_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"d\xff.h5")
    invsolve.write_dataset(path, invsolve.generate("sine", 3))
    invsolve.solve(path, max_evaluations=4, out=tmp_path / os.fsdecode(b"s\xff.h5"))
    (solution,) = tmp_path.glob("s*")
    assert invsolve.read_solution(solution).attributes["input"].endswith("d\\udcff.h5")
