"""Several processes train together: what they find is what one finds, up to rounding."""

from __future__ import annotations

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
from invsolve.settings import Settings

N = 50


def wave(x: Tensor, identifiers: Tensor) -> Tensor:
    """16 samples of a wave of frequency x (b, 1)."""
    t = torch.linspace(0, 1, 16, dtype=x.dtype)
    return torch.sin(9 * x * t + identifiers[:, None])


def waves() -> Dataset:
    rng = np.random.default_rng(1)
    x, identifiers = rng.normal(0, 1, (N, 1)), rng.uniform(0, 1, N)
    targets = wave(torch.from_numpy(x), torch.from_numpy(identifiers)).numpy()
    targets[3, 4] = np.nan
    return Dataset(targets=targets, identifiers=identifiers, x0=np.zeros(1))


def fitted(
    crew: Crew, method: str, options: dict[str, Any], *, window: int | None = None, earlier: State | None = None,
    stop_at: int | None = None,
) -> tuple[Columns | None, State | None]:  # fmt: skip
    """What `method` makes of the waves, and the last checkpoint."""
    if window is not None:
        examples_module.WINDOW = window
    kept: list[State] = []
    ready = prepare(
        waves(), FunctionModel(wave, "wave"), {}, Settings(method=method, method_options=options, threads=1)
    )
    assert isinstance(ready.solver.method, JointMethod)
    control = Stopping(stop_at) if stop_at is not None else Control()

    def keep(state: State) -> int:
        kept.append(state)
        return 0

    checkpoints = Checkpoints(keep, earlier, every=1e9, crew=crew)
    return ready.solver.fit(ready.solver.method, control, checkpoints), kept[-1] if kept else None


class Stopping(Control):
    """Stops the training when it was asked so often."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    @property
    def stopped(self) -> bool:
        self.left -= 1
        return self.left < 0


def _member(rank: int, size: int, folder: Path, arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
        torch.save(fitted(ProcessGroup(), *arguments, **more), folder / f"{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
        raise


def by_crew(size: int, folder: Path, *arguments: Any, **more: Any) -> list[tuple[Columns, State | None]]:
    """What each member of a crew comes back with from `fitted`."""
    folder.mkdir()
    start = multiprocessing.get_context("spawn").Process
    members = [start(target=_member, args=(rank, size, folder, arguments, more)) for rank in range(size)]
    for member in members:
        member.start()
    for member in members:
        member.join(120)
    told = "\n".join(path.read_text() for path in folder.glob("*.txt"))
    assert [member.exitcode for member in members] == [0] * size, told
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def same(one: Columns, other: Columns, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one.keys() - {"chosen", "training_curve", "candidates", "z"}:
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)
    for name in ("candidates", "z"):
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


FEW = {"steps": 40, "pairs": 200}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("jpo", FEW),
        ("jpo", {"steps": 60, "proposals": "none"}),
        ("auto", {"pairs": 300}),
        ("supervised", {"pairs": 300}),
    ],
)
def test_a_crew_finds_what_one_finds(tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    alone, _ = fitted(ALONE, method, options)
    assert alone is not None
    members = [columns for columns, _ in by_crew(3, tmp_path / "crew", method, options)]
    for columns in members:
        same(columns, alone, 1e-3)
        same(columns, members[0], 0)
    assert alone["evaluations"].min() > 2


def test_members_load_their_shares_of_windows(tmp_path: Path) -> None:
    options = FEW | {"minibatch": 4}
    window = 20 * waves().row_bytes
    alone, _ = fitted_in(window, options)
    for columns, _ in by_crew(2, tmp_path / "crew", "jpo", options, window=window):
        same(columns, alone, 1e-3)


def fitted_in(window: int, options: dict[str, Any]) -> tuple[Columns, State | None]:
    before = examples_module.WINDOW
    try:
        columns, state = fitted(ALONE, "jpo", options, window=window)
    finally:
        examples_module.WINDOW = before
    assert columns is not None
    return columns, state
