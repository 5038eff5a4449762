"""Finished solution files, and the problems that they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import invsolve
from invsolve.errors import DataError


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset, and its solution with a model option that the data do not tell."""
    folder = tmp_path_factory.mktemp("finished")
    data, out = folder / "packets.h5", folder / "packets.gd.h5"
    invsolve.write_dataset(data, invsolve.generate("wave-packet", 6, seed=1, model_options={"samples": 32}))
    invsolve.solve(data, method="gd", model_options={"amplitude": 2.0}, max_evaluations=5, out=out)
    return data, out


def test_the_problem_comes_with_the_options_it_was_solved_with(solved: tuple[Path, Path]) -> None:
    data, out = solved
    source = invsolve.compare_solutions([out], least=1).source
    assert source.dataset is not None
    assert source.dataset.source == str(data)
    assert source.model is not None
    assert (source.model.options.samples, source.model.options.amplitude) == (32, 2.0)
    fresh = invsolve.solve(data, method="gd", model_options={"amplitude": 2.0}, max_evaluations=3)
    assert source.loss_true is not None
    assert (source.loss_true > 1).all()  # of the amplitude 1 they would be about 0.2
    assert np.array_equal(fresh.loss_initial, invsolve.read_solution(out).loss_initial)


def test_what_is_gone_is_told_and_what_is_given_must_be_right(solved: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = solved
    moved, other = tmp_path / "moved.h5", tmp_path / "other.h5"
    data.rename(moved)
    try:
        gone = invsolve.compare_solutions([out], least=1).source
        assert gone.dataset is None
        assert str(data) in gone.missing
        assert invsolve.compare_solutions([out], least=1, data=moved).source.dataset is not None
        invsolve.write_dataset(other, invsolve.generate("wave-packet", 6, seed=2, model_options={"samples": 32}))
        with pytest.raises(DataError, match=r"other\.h5 is not the dataset that was solved"):
            invsolve.compare_solutions([out], least=1, data=other)
    finally:
        moved.rename(data)
