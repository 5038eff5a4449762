"""Datasets from arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import invsolve
from invsolve.data.dataset import Dataset


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"targets": np.zeros((0, 3))}, "targets is empty"),
        ({"targets": np.float64(3)}, "targets is a single number"),
        ({"targets": [[1.0], [1.0, 2.0]]}, "targets is ragged"),
        ({"targets": np.zeros((3, 2), complex)}, "targets has type complex128"),
        ({"targets": np.array(["a", "b"])}, "targets has type"),
        ({"identifiers": np.zeros((2, 2))}, r"identifiers has shape \(2, 2\), but targets has 3 examples"),
        ({"identifiers": {"a": np.zeros(3), "b": np.zeros(4)}}, r"identifiers/b has shape \(4,\)"),
        ({"sigma": np.zeros((3, 2))}, r"sigma must be > 0 everywhere, found 0.0 at \[0, 0\]"),
        ({"sigma": np.array([1.0, np.nan, 1.0])}, r"sigma must be > 0 everywhere, found nan at \[1\]"),
        ({"sigma": np.ones((3, 5))}, r"sigma has shape \(3, 5\), which does not broadcast"),
        ({"sigma": np.ones((2, 3, 2))}, "does not broadcast"),
        ({"x_true": np.zeros(2)}, "x_true has shape"),
        ({"names": ["a"]}, "names has shape"),
    ],
)
def test_what_does_not_fit_is_told(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(invsolve.DataError, match=line):
        Dataset(**{"targets": np.zeros((3, 2)), **fields})


def test_tensors_lists_and_integers_are_taken() -> None:
    data = Dataset(targets=torch.ones(2, 3, dtype=torch.int32), identifiers=[1, 2], names=["a", "b"])
    assert len(data) == 2
    assert data.y_shape == (3,)
    assert data.rows(1, 2).identifiers == np.array([2])


@pytest.mark.parametrize(
    ("x0", "per_row"),
    [(np.zeros((4, 2)), True), (np.zeros(2), False), (np.zeros((2, 4)), False), (np.zeros((4, 4)), True)],
)
def test_one_guess_for_each_or_for_all(x0: np.ndarray, per_row: bool) -> None:
    assert Dataset(targets=np.zeros((4, 1)), x0=x0).x0_per_row is per_row


def test_an_ambiguous_guess_is_refused_unless_the_truth_decides() -> None:
    with pytest.raises(invsolve.DataError, match=r"store it as \(4, 4\) or \(4, 1\)"):
        _ = Dataset(targets=np.zeros((4, 1)), x0=np.zeros(4)).x0_per_row
    assert Dataset(targets=np.zeros((4, 1)), x0=np.zeros(4), x_true=np.zeros((4, 4))).x0_per_row is False
    assert Dataset(targets=np.zeros((4, 1)), x0=np.zeros(4), x_true=np.zeros(4)).x0_per_row is True


def test_the_first_examples_mean_what_they_meant_in_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = Dataset(
        targets=rng.normal(size=(6, 3)), identifiers={"a": np.arange(6.0)}, x_true=np.ones((6, 3)),
        names=list("abcdef"), model="sine", model_options={"frequency": 3.0},
    )  # fmt: skip
    # Of 3 examples, 3 numbers might be one for each; in the whole they are of the other axis.
    for sigma in (np.arange(1.0, 4.0), np.arange(1.0, 7.0), np.arange(1.0, 7.0)[:, None], np.float64(2),
        np.arange(1.0, 19.0).reshape(6, 3)):  # fmt: skip
        for x0 in (np.arange(3.0), rng.normal(size=(6, 3)), None):
            path = tmp_path / "data.h5"
            invsolve.write_dataset(path, replace(whole, sigma=sigma, x0=x0), overwrite=True)
            for data in (replace(whole, sigma=sigma, x0=x0), invsolve.read_dataset(path)):
                first = data.first(3, (3,))
                assert len(first) == 3
                assert (first.model, first.model_options, list(first.names)) == (
                    "sine",
                    {"frequency": 3.0},
                    list("abc"),
                )
                for start, stop in ((0, 3), (1, 2)):
                    mine, theirs = (d.rows(start, stop, (3,)) for d in (first, data))
                    assert (mine.targets == theirs.targets).all()
                    assert (mine.identifiers["a"] == theirs.identifiers["a"]).all()  # type: ignore[index,call-overload]
                    weights = [np.broadcast_to(r.sigma, r.targets.shape) for r in (mine, theirs) if r.sigma is not None]
                    assert (weights[0] == weights[1]).all()
                    if x0 is not None:
                        assert mine.x0 is not None
                        assert (mine.x0 == np.broadcast_to(theirs.x0, mine.x0.shape)).all()  # type: ignore[arg-type]
                assert first.picked(np.array([0, 2]), (3,)).targets.tolist() == data.targets[[0, 2]].tolist()
                assert np.asarray(first.x_true).shape == (3, 3)
                with pytest.raises(IndexError):
                    first.targets[3]
    assert replace(whole).first(3, (3,)).sha256() != whole.sha256()


def test_the_hash_tells_datasets_apart() -> None:
    one = Dataset(targets=np.zeros((3, 2)))
    assert one.sha256() == Dataset(targets=np.zeros((3, 2))).sha256()
    assert one.sha256() != Dataset(targets=np.zeros((2, 3))).sha256()
    assert one.sha256() != Dataset(targets=np.zeros((3, 2)), sigma=2.0).sha256()


def test_masked_values_are_gaps_and_odd_tensors_are_refused() -> None:
    masked = np.ma.masked_greater(np.arange(6).reshape(3, 2), 4)
    np.testing.assert_array_equal(Dataset(targets=masked).targets, [[0, 1], [2, 3], [4, np.nan]])
    for odd in (torch.ones(3, 2, dtype=torch.bfloat16), torch.eye(3).to_sparse()):
        with pytest.raises(invsolve.DataError, match="targets is a tensor that NumPy cannot hold"):
            Dataset(targets=odd)  # type: ignore[arg-type]


def test_sigma_that_can_be_meant_in_two_ways_is_refused() -> None:
    targets, sigma = np.zeros((3, 3)), np.array([1.0, 2.0, 3.0])
    with pytest.raises(invsolve.DataError, match=r"of 3 examples or for each of 3 targets; .* \(3, 1\) or \(1, 3\)"):
        Dataset(targets=targets, sigma=sigma)
    for clear in (sigma[:, None], sigma[None], np.full(3, 2.0)):
        assert Dataset(targets=targets, sigma=clear).sigma is not None
    assert Dataset(targets=np.zeros((3, 4)), sigma=sigma).rows(1, 2).sigma == 2.0
