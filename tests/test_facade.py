"""`import invsolve`: what it offers, and that offering costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import invsolve

CONTRACT = {
    "read_dataset", "write_dataset", "read_solution", "write_solution", "load_model", "solve", "compare", "Dataset",
    "Solution", "ForwardModel", "Parameter",
}  # fmt: skip


def test_all_names_resolve_and_are_documented() -> None:
    for name in invsolve.__all__:
        assert getattr(invsolve, name) is not None
        if name != "__version__":
            assert getattr(invsolve, name).__doc__, name
    assert set(invsolve.__all__) >= CONTRACT
    assert set(dir(invsolve)) == set(invsolve.__all__)


def test_the_type_checker_sees_the_same_names() -> None:
    text = Path(invsolve.__file__).read_text()
    for name in invsolve.__all__:
        assert f"import {name} as {name}" in text or name == "__version__"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'solv'"):
        _ = invsolve.solv  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("imported", "heavy"),
    [
        ("invsolve", {"torch", "numpy", "h5py"}),
        ("invsolve.pipeline", {"scipy.stats", "scipy.special"}),  # of comparisons alone
        ("invsolve.cluster.board", {"torch"}),  # a process of its own in every run on a cluster
    ],
)
def test_importing_imports_nothing_heavy(imported: str, heavy: set[str]) -> None:
    script = f"import sys, {imported}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
