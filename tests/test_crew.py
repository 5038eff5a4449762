"""Several processes train together: what they find is what one finds, up to rounding."""

from __future__ import annotations

import copy
import multiprocessing
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from invsolve import examples as examples_module
from invsolve.checkpoints import Checkpoints, State
from invsolve.control import Control
from invsolve.crew import ALONE, Crew, ProcessGroup
from invsolve.data.dataset import Dataset
from invsolve.data.run_folder import Columns
from invsolve.methods.joint import JointMethod
from invsolve.models.base import FunctionModel
from invsolve.preparation import prepare
from invsolve.settings import Settings, threads_set

N = 50


def wave(x: Tensor, identifiers: Tensor) -> Tensor:
    """16 samples of a wave of frequency x (b, 1)."""
    t = torch.linspace(0, 1, 16, dtype=x.dtype)
    return torch.sin(9 * x * t + identifiers[:, None])


def waves(n: int = N) -> Dataset:
    rng = np.random.default_rng(1)
    x, identifiers = rng.normal(0, 1, (n, 1)), rng.uniform(0, 1, n)
    targets = wave(torch.from_numpy(x), torch.from_numpy(identifiers)).numpy()
    targets[3, 4] = np.nan
    return Dataset(targets=targets, identifiers=identifiers, x0=np.zeros(1))


def fitted(
    crew: Crew, method: str, options: dict[str, Any], *, n: int = N, window: int = examples_module.WINDOW,
    earlier: State | None = None,
) -> tuple[Columns | None, list[State]]:  # fmt: skip
    """What `method` makes of n waves, and its checkpoints."""
    examples_module.WINDOW = window
    kept: list[State] = []
    ready = prepare(
        waves(n), FunctionModel(wave, "wave"), {}, Settings(method=method, method_options=options, threads=1)
    )
    assert isinstance(ready.solver.method, JointMethod)

    def keep(state: State) -> int:
        kept.append(copy.deepcopy(state))
        return 0

    checkpoints = Checkpoints(keep, earlier, crew=crew)
    with threads_set(1):  # as many for one as for each of a crew: sums are rounded otherwise by two
        return ready.solver.fit(ready.solver.method, Control(), checkpoints), kept


def _member(rank: int, size: int, folder: Path, cases: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
        torch.save([fitted(ProcessGroup(), **case) for case in cases], folder / f"{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
        raise


def by_crew(size: int, folder: Path, cases: list[dict[str, Any]]) -> list[list[tuple[Columns, list[State]]]]:
    """What each member of a crew comes back with from `fitted`, for each case."""
    folder.mkdir()
    start = multiprocessing.get_context("spawn").Process
    members = [start(target=_member, args=(rank, size, folder, cases)) for rank in range(size)]
    for member in members:
        member.start()
    for member in members:
        member.join(120)
    told = "\n".join(path.read_text() for path in folder.glob("*.txt"))
    assert [member.exitcode for member in members] == [0] * size, told
    found = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]
    return [[of_one[i] for of_one in found] for i in range(len(cases))]


def same(one: Columns, other: Columns, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one.keys() - {"chosen", "training_curve", "candidates", "z"}:
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)
    for name in ("candidates", "z"):
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


FEW = {"steps": 40, "pairs": 200}
SMALL = 20 * waves().row_bytes  # of a window
CASES: list[dict[str, Any]] = [
    {"method": "jpo", "options": FEW},
    {"method": "jpo", "options": {"steps": 60, "proposals": "none"}},
    {"method": "jpo", "options": FEW | {"proposals": "both", "minibatch": 4}, "window": SMALL},
    {"method": "auto", "options": {"pairs": 300}},
    {"method": "supervised", "options": {"pairs": 300}},
]


@pytest.fixture
def _same_window_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples_module, "WINDOW", examples_module.WINDOW)


@pytest.mark.usefixtures("_same_window_after")
def test_a_crew_finds_what_one_finds(tmp_path: Path) -> None:
    for case, members in zip(CASES, by_crew(3, tmp_path / "crew", CASES), strict=True):
        alone, _ = fitted(ALONE, **case)
        assert alone is not None
        for columns, _ in members:
            same(columns, alone, 1e-3)
            same(columns, members[0][0], 0)
        assert alone["evaluations"].min() > 2


@pytest.mark.usefixtures("_same_window_after")
def test_a_training_goes_on_with_more_or_fewer(tmp_path: Path) -> None:
    """From checkpoints of three members with one, and the other way round."""
    case: dict[str, Any] = {"method": "jpo", "options": FEW, "window": SMALL}
    whole, of_one = fitted(ALONE, **case)
    assert whole is not None
    of_three = by_crew(3, tmp_path / "three", [case])[0][0][1]
    for state in some(of_three):
        found, _ = fitted(ALONE, **case, earlier=state)
        assert found is not None
        same(found, whole, 1e-3)
    for members in by_crew(2, tmp_path / "two", [case | {"earlier": state} for state in some(of_one)]):
        for columns, _ in members:
            same(columns, whole, 1e-3)


def some(states: list[State]) -> list[State]:
    """The first, one in the middle, and the last."""
    assert len(states) > 2
    return [states[0], states[len(states) // 2], states[-1]]


def test_signals_as_long_as_there_are_examples(tmp_path: Path) -> None:
    """16 members of 16 samples each are no image, though there are as many numbers to know of them."""
    found, _ = fitted(ALONE, "jpo", FEW, n=16)
    assert found is not None
    assert np.isfinite(found["best"]).all()
