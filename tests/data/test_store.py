"""Dataset and solution files: round trips, safe writing, and files that are not what they should be."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import invsolve
from invsolve.analysis.summary import summarize
from invsolve.data import files, hdf5
from invsolve.data.dataset import Dataset
from invsolve.data.hdf5 import StoredArray
from invsolve.data.solution import COLUMNS, HISTORY_EVALUATIONS, Solution, Status
from invsolve.data.store import open_solution

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
shapes = hnp.array_shapes(min_dims=0, max_dims=2, max_side=4)
floats = st.floats(allow_nan=True, allow_infinity=False, width=32)
names = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8), min_size=3, max_size=3)


def arrays(shape: tuple[int, ...], elements: Any = floats) -> Any:
    return hnp.arrays(st.sampled_from([np.float64, np.float32]), shape, elements=elements)


@st.composite
def datasets(draw: Any, n: int = 3) -> Dataset:
    y_shape, x_shape = draw(shapes), draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=3))
    maybe = lambda strategy: draw(st.none() | strategy)  # noqa: E731
    group = st.dictionaries(st.sampled_from(["a", "b", "c"]), arrays((n, 2)), min_size=1)
    return Dataset(
        targets=draw(arrays((n, *y_shape))),
        identifiers=maybe(arrays((n, 2)) | group),
        x0=maybe(arrays((n, *x_shape))),
        sigma=maybe(arrays((n, *(1,) * len(y_shape)), st.floats(0.5, 2, width=32))),
        x_true=maybe(arrays((n, *x_shape))),
        names=maybe(names),
        model=maybe(st.sampled_from(["wave-packet", "unheard-of"])),
        model_options=draw(st.dictionaries(st.sampled_from(["samples", "width"]), st.integers(1, 9))),
    )


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert_same(value, b[key])
    elif a is None:
        assert b is None
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert np.asarray(a).dtype == np.asarray(b).dtype


@quick
@given(data=datasets())
def test_datasets_come_back_as_they_went(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    invsolve.write_dataset(path, data, overwrite=True)
    back = invsolve.read_dataset(path)
    for field in ("targets", "identifiers", "x0", "sigma", "x_true", "names"):
        assert_same(getattr(data, field), getattr(back, field))
    assert back.model == data.model
    assert back.model_options == (data.model_options if data.model else {})


@st.composite
def solutions(draw: Any, n: int = 3) -> Solution:
    x_shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=3))
    counts = hnp.arrays(np.int64, n, elements=st.integers(0, 10**12))
    columns: dict[str, Any] = {name: draw(counts) for name in ("iterations", "evaluations", "gradients")}
    columns |= {name: draw(hnp.arrays(np.float64, n)) for name in ("loss", "loss_initial", "grad_norm")}
    columns |= {name: draw(hnp.arrays(np.float64, (n, *x_shape))) for name in ("x", "x_initial")}
    columns["status"] = draw(hnp.arrays(np.int8, n, elements=st.sampled_from([int(s) for s in Status])))
    columns["example"] = draw(st.just(np.arange(n)) | names.map(lambda v: np.array(v, dtype=object)))
    named = len(x_shape) == 1 and draw(st.booleans())
    parameters = [{"name": f"p{j}", "unit": "m/s²"} for j in range(x_shape[0])] if named else []
    return Solution(
        **columns, attributes={"method": "bfgs", "seed": 3, "method_options": {"a": 1}}, parameters=parameters
    )


@quick
@given(solution=solutions())
def test_solutions_come_back_as_they_went(solution: Solution, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    invsolve.write_solution(path, solution, overwrite=True)
    back = invsolve.read_solution(path)
    for name in COLUMNS:
        assert_same(getattr(solution, name), getattr(back, name))
    assert back.parameters == solution.parameters
    assert back.attributes["method"] == "bfgs"
    assert back.attributes["method_options"] == '{"a": 1}'


@pytest.mark.parametrize("named", [True, False])
def test_solutions_open_in_xarray(tmp_path: Path, named: bool) -> None:
    if named:
        data = invsolve.generate("kuramoto-sivashinsky", 3)
        data.names = ["one", "two", "three"]
        model: Any = None
    else:
        data = Dataset(targets=np.zeros((3, 2, 4)), x0=np.ones((2, 4)))
        model = lambda x, identifiers: x  # noqa: E731
    path = tmp_path / "s.h5"
    solution = invsolve.solve(data, model, options={"max_iterations": 2}, out=path)
    with xarray.open_dataset(path, engine="h5netcdf") as found:
        np.testing.assert_array_equal(found["x"], solution.x)
        if named:
            assert found["x"].dims == ("example", "parameter")
            assert list(found["parameter"].values) == ["alpha", "beta"]
            assert list(found["example"].values) == ["one", "two", "three"]
            assert found["loss"].sel(example="two") == solution.loss[1]
        else:
            assert found["x"].dims == ("example", "component_1", "component_2")
        assert found["status"].attrs["flag_meanings"] == "converged budget stalled nonfinite not_run"
        assert list(found["status"].attrs["flag_values"]) == [0, 1, 2, 3, 4]


def test_histories_say_by_how_many_evaluations(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    solution = invsolve.solve(invsolve.generate("wave-packet", 5, seed=1), out=path)
    assert solution.history is not None
    with xarray.open_dataset(path, engine="h5netcdf") as found:
        assert found["history"].dims == ("example", "evaluations_up_to")
        assert found["history"].dtype == np.float32
        np.testing.assert_array_equal(found["evaluations_up_to"], HISTORY_EVALUATIONS)
        np.testing.assert_array_equal(found["history"].sel(evaluations_up_to=6), solution.history[:, 4])
    again = tmp_path / "again.h5"
    invsolve.write_solution(again, invsolve.read_solution(path))
    np.testing.assert_array_equal(invsolve.read_solution(again).history, solution.history)


def test_a_report_reads_a_window_of_a_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs whose solutions do not fit into memory."""
    path, most = tmp_path / "s.h5", 0
    data = invsolve.generate("wave-packet", 100, seed=1)
    data.sigma = np.full(100, 0.1)
    data.x_true = None
    whole = summarize(invsolve.solve(data, covariance=True, out=path), None, None)
    read = StoredArray.__getitem__

    def watched(self: StoredArray, key: Any) -> np.ndarray:
        nonlocal most
        found = read(self, key)
        most = max(most, found.nbytes if found.ndim and len(found) != len(HISTORY_EVALUATIONS) else 0)
        return found

    monkeypatch.setattr("invsolve.data.store._WINDOW", 1000)
    monkeypatch.setattr(StoredArray, "__getitem__", watched)
    with contextlib.closing(open_solution(path)) as stored:
        assert len(stored.windows) > 10
        in_parts = summarize(stored, None, None)
        assert 0 < most <= 1000
        for name in ("loss", "loss_initial", "reduced_chi2"):
            assert in_parts[name].pop("mean") == pytest.approx(whole[name].pop("mean"), rel=1e-12)
        in_parts["uncertainty"]["condition_number"].pop("mean")
        whole["uncertainty"]["condition_number"].pop("mean")
        assert in_parts == whole
        assert_same(stored.load().x, invsolve.read_solution(path).x)


def test_a_history_of_another_grid_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    invsolve.solve(invsolve.generate("wave-packet", 3, seed=1), out=path)
    with h5py.File(path, "a") as file:
        del file["history"]
        file["history"] = np.zeros((3, 7), np.float32)
    with pytest.raises(invsolve.DataError, match=r"'history' has shape \(3, 7\).*damaged"):
        invsolve.read_solution(path)
    with h5py.File(path, "a") as file:
        del file["history"]
    assert invsolve.read_solution(path).history is None


def test_what_a_method_of_several_stages_tells_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    solution = invsolve.solve(
        invsolve.generate("wave-packet", 5, seed=1), method="multistart", options={"starts": 9}, out=path
    )
    back = invsolve.read_solution(path)
    for name in ("found_by", "starts", "minima"):
        np.testing.assert_array_equal(getattr(back, name), getattr(solution, name))
    with xarray.open_dataset(path, engine="h5netcdf") as found:
        assert found["found_by"].dims == ("example",)
        assert found["found_by"].dtype == np.int8
        assert found["found_by"].attrs["flag_meanings"] == "start local proposal network multistart"
        assert list(found["found_by"].attrs["flag_values"]) == [0, 1, 2, 3, 4]
        assert found["starts"].dtype == found["minima"].dtype == np.int64
    assert invsolve.solve(invsolve.generate("wave-packet", 5, seed=1)).found_by is None


def test_arrays_stay_in_the_file_until_asked_for(wave_packets: Path) -> None:
    data = invsolve.read_dataset(wave_packets)
    assert not isinstance(data.targets, np.ndarray)
    assert np.asarray(data.targets).shape == (12, 32)
    assert np.asarray(data.targets[2:4]).shape == (2, 32)
    assert len(data) == 12


def test_arrays_travel_by_name(wave_packets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = invsolve.read_dataset(wave_packets).targets
    monkeypatch.setattr(hdf5, "heaps_end", lambda path, width: pytest.fail("the whole file is read once more"))
    letter = pickle.dumps(targets)
    assert len(letter) < 500
    np.testing.assert_array_equal(pickle.loads(letter), targets)


Change = Callable[[h5py.File], None]


def put(key: str, value: Any) -> Change:
    def change(file: h5py.File) -> None:
        if key in file:
            del file[key]
        file[key] = value

    return change


def virtual(file: h5py.File) -> None:
    del file["targets"]
    layout = h5py.VirtualLayout((12, 32), dtype="f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "targets", (12, 32))
    file.create_virtual_dataset("targets", layout)


def external_storage(file: h5py.File) -> None:
    del file["targets"]
    file.create_dataset("targets", (12, 32), "u1", external=[("/etc/passwd", 0, 384)])


def soft_loop(file: h5py.File) -> None:
    del file["targets"]
    file["targets"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/targets")


def reference(file: h5py.File) -> None:
    del file["targets"]
    file.create_dataset("targets", (12,), dtype=h5py.ref_dtype)


def soft_to_external(file: h5py.File) -> None:
    del file["targets"]
    file["way"], file["targets"] = h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/way/targets")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda f: f.__delitem__("targets"), "has no 'targets'; .*name it with --targets PATH"),
        (put("targets", h5py.ExternalLink("/etc/passwd", "/x")), "external link to /etc/passwd"),
        (soft_to_external, "external link to /etc/passwd"),
        (soft_loop, "loop of soft links"),
        (virtual, "virtual dataset"),
        (external_storage, "keeps its data in /etc/passwd"),
        (reference, "object references"),
        (put("targets", h5py.Empty("f8")), "no dataset with values"),
        (lambda f: (f.__delitem__("targets"), f.create_group("targets")), "'/targets' is a group"),
        (put("targets", "text"), "targets has type object"),
        (lambda f: f.attrs.__setitem__("format_version", 2), "format_version 2"),
        (lambda f: f.attrs.__setitem__("format", "invsolve-solution"), "is an invsolve-solution file"),
        (lambda f: f.attrs.__setitem__("model", 3), "attribute 'model' must be text"),
        (lambda f: f.attrs.__setitem__("model_options", "{"), "attribute 'model_options' must be a JSON object"),
        (put("names", [b"\xff\xfe"] * 12), "not UTF-8"),
        (put("names", np.array([b"a\0b"] * 12, "S3")), "NUL character"),
        (put("targets", h5py.SoftLink("/nowhere")), "'targets' is a link to nothing"),
        (lambda f: f.create_group("identifiers").__setitem__("a", h5py.SoftLink("/nowhere")), "is a link to nothing"),
    ],
)
def test_files_that_are_not_what_they_should_be(wave_packets: Path, change: Change, line: str) -> None:
    with h5py.File(wave_packets, "a") as file:
        change(file)
    with pytest.raises(invsolve.DataError, match=line) as caught:
        invsolve.read_dataset(wave_packets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 100, 600, 2000])
def test_truncated_files(wave_packets: Path, keep: int) -> None:
    wave_packets.write_bytes(wave_packets.read_bytes()[:keep])
    with pytest.raises(invsolve.DataError, match="truncated|not an HDF5 file"):
        invsolve.read_dataset(wave_packets)


def test_a_flipped_bit_anywhere_is_told_or_harmless(wave_packets: Path) -> None:
    """HDF5 stumbles over damaged metadata in many ways; whatever it raises, the file is named in one line."""
    intact = wave_packets.read_bytes()
    told = 0
    for position in np.random.default_rng(0).choice(len(intact), 250, replace=False):
        damaged = bytearray(intact)
        damaged[position] ^= 0x55
        wave_packets.write_bytes(damaged)
        with contextlib.suppress(invsolve.DataError):
            np.asarray(invsolve.read_dataset(wave_packets).targets)
            continue
        told += 1
    assert told > 10


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(invsolve.DataError, match="no regular file"):
        invsolve.read_dataset(tmp_path / "pipe.h5")
    with pytest.raises(invsolve.DataError, match="File name too long"):
        invsolve.read_dataset(tmp_path / ("n" * 300))


def test_a_damaged_solution_is_told(tmp_path: Path, wave_packets: Path) -> None:
    path = tmp_path / "s.h5"
    invsolve.solve(wave_packets, out=path)
    with h5py.File(path, "a") as file:
        del file["grad_norm"]
    with pytest.raises(invsolve.DataError, match="without 'grad_norm'"):
        invsolve.read_solution(path)
    with pytest.raises(invsolve.DataError, match="an invsolve-solution file is needed"):
        invsolve.read_solution(wave_packets)


def test_foreign_layouts_are_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["entry/data"] = np.arange(12, dtype=np.int16).reshape(3, 4)
        file["entry/angle"] = np.ones(3, np.float32)
        file["entry/soft"] = h5py.SoftLink("data")
    data = invsolve.read_dataset(path, targets="entry/soft", identifiers="/entry/angle")
    assert data.targets.shape == (3, 4)
    assert data.sha256() != invsolve.read_dataset(path, targets="entry/data").sha256()
    with pytest.raises(invsolve.DataError, match="has no 'entry/dat'; did you mean 'entry/data'"):
        invsolve.read_dataset(path, targets="entry/dat")


def test_an_existing_file_is_not_replaced(tmp_path: Path, wave_packets: Path) -> None:
    before = wave_packets.read_bytes()
    with pytest.raises(invsolve.OutputError, match="exists"):
        invsolve.write_dataset(wave_packets, invsolve.generate("wave-packet", 2))
    assert wave_packets.read_bytes() == before


def test_a_failure_while_writing_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, wave_packets: Path) -> None:
    before = wave_packets.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(invsolve.OutputError, match="No space left"):
        invsolve.write_dataset(wave_packets, invsolve.generate("wave-packet", 2), overwrite=True)
    assert wave_packets.read_bytes() == before
    assert [p.name for p in wave_packets.parent.iterdir()] == ["wp.h5"]


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(invsolve.OutputError, match="has come to exist"), files.written_aside(path, False) as aside:
        aside.write_text("mine")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_unwritable_places_are_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(invsolve.OutputError, match="is no regular file"):
        files.check_writable(Path("/dev/null"), overwrite=True)
    with pytest.raises(invsolve.OutputError, match="File name too long"):
        files.check_writable(tmp_path / ("n" * 300), overwrite=True)
    with pytest.raises(invsolve.OutputError, match="does not exist"):
        files.check_writable(tmp_path / "no" / "out.h5", overwrite=False)
    with pytest.raises(invsolve.OutputError, match="is no regular file"):
        files.check_writable(tmp_path, overwrite=True)
