"""Windows over all examples: bounded memory, every example once a pass, the data of each its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
import invsolve.run
from invsolve import examples as examples_module
from invsolve import ranges
from invsolve.crew import ALONE, Crew
from invsolve.data import dataset
from invsolve.data.dataset import Dataset
from invsolve.examples import Examples
from invsolve.models.base import FunctionModel
from invsolve.problem import Problem


class Stored:
    """An array as in a file, that counts how many rows are asked for at a time and cannot be had as a whole."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape, self.dtype = array, array.shape, array.dtype
        self.most = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self._array[key]
        self.most = max(self.most, len(found))
        return found.copy()

    def __array__(self, *arguments: Any, **more: Any) -> np.ndarray:
        raise AssertionError("the whole array was asked for")


def shifted(x: Tensor, identifiers: Tensor) -> Tensor:
    return torch.sin(x * identifiers)


def stored(n: int, **more: Any) -> Dataset:
    """Signals of 4 samples; targets, identifiers and sigma of one example are 96 bytes."""
    rng = np.random.default_rng(1)
    identifiers = rng.uniform(0.5, 1, (n, 4))
    x = rng.uniform(-1, 1, (n, 1))
    return Dataset(
        targets=Stored(np.sin(x * identifiers)), identifiers=Stored(identifiers), x0=np.zeros((n, 1)),
        sigma=np.linspace(0.5, 1.0, n)[:, None], x_true=x, **more,
    )  # fmt: skip


def all_of(data: Dataset, crew: Crew = ALONE) -> Examples:
    model, device = FunctionModel(shifted, "shifted"), torch.device("cpu")  # type: ignore[arg-type]
    return Examples(data, (1,), lambda rows: Problem(model, rows, (1,), device, torch.float64), crew=crew)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples_module, "WINDOW", 96 * 24)
    monkeypatch.setattr(ranges, "MEMORY", 96 * 24)
    monkeypatch.setattr(dataset, "BLOCK", 96 * 24 // 4)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("multiple", [1, 3, 4, 50])
def test_a_pass_visits_every_example_once(multiple: int) -> None:
    data = stored(101)
    examples = all_of(data)
    order = torch.Generator().manual_seed(3)
    orders = []
    for generator in (None, order, order):
        windows = [w.examples for w in examples.windows(generator, multiple=multiple)]
        assert torch.equal(torch.cat(windows).sort().values, torch.arange(101))
        assert max(map(len, windows)) <= max(24, multiple) * 33 / 32  # a few that are left do not make one of their own
        assert sum(len(w) % multiple > 0 for w in windows) <= 1  # at most one minibatch is smaller
        orders.append(torch.cat(windows))
    assert torch.equal(orders[0], torch.arange(101))
    assert not torch.equal(orders[1], orders[2])
    targets = data.targets
    assert isinstance(targets, Stored)
    assert targets.most <= max(24, multiple)


@pytest.mark.usefixtures("small_windows")
def test_a_window_holds_the_data_of_its_examples() -> None:
    data, whole = (
        stored(50),
        Problem(
            FunctionModel(shifted, "shifted"),  # type: ignore[arg-type]
            stored(50).rows(0, 50, (1,)),
            (1,),
            torch.device("cpu"),
            torch.float64,
        ),
    )
    examples = all_of(data)
    loss, _ = examples.score(8)
    expected, _ = whole.evaluate_user(torch.arange(50), whole.x0, differentiate=False)
    torch.testing.assert_close(loss, expected)
    for window in examples.windows(torch.Generator().manual_seed(1)):
        rows = torch.arange(len(window.examples))
        mine, _ = window.problem.evaluate_user(rows, whole.x0[window.examples] + 0.3)
        theirs, _ = whole.evaluate_user(window.examples, whole.x0[window.examples] + 0.3)
        torch.testing.assert_close(mine, theirs)
    assert set(examples.evaluations.tolist()) == {2}
    assert set(examples.gradients.tolist()) == {1}


@pytest.mark.usefixtures("small_windows")
def test_training_through_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    data, options = stored(90), {"steps": 230, "minibatch": 4, "proposals": "none"}  # 10 passes of 23 minibatches
    solution = invsolve.solve(data, shifted, "jpo", options=options, refine="none", threads=1)
    assert set(solution.iterations) == {10}
    assert set(solution.evaluations) == {12}
    assert set(solution.gradients) == {11}
    assert solution.loss.mean() < 0.1 * solution.loss_initial.mean()
    for array in (data.targets, data.identifiers):
        assert isinstance(array, Stored)
        assert array.most <= 36  # a range may be half as much larger, so that no small rest is left
    monkeypatch.setattr(examples_module, "WINDOW", 2**20)
    whole = invsolve.solve(data, shifted, "jpo", options=options, refine="none", threads=1)
    np.testing.assert_array_equal(whole.loss_initial, solution.loss_initial)
    assert whole.loss.mean() < 0.1 * whole.loss_initial.mean()


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("method", ["bfgs", "gd"])
def test_row_methods_load_only_their_ranges(method: str, tmp_path: Any) -> None:
    data = stored(90, names=[f"n{i}" for i in range(90)])
    job = invsolve.run.Run(data, shifted, {}, invsolve.Settings(method, threads=1))
    solution = job.solve(tmp_path / "o.h5", False, False, None)
    assert job.loss_true() is not None
    assert job.unobserved(solution) == 0
    for array in (data.targets, data.identifiers):
        assert isinstance(array, Stored)
        assert array.most <= 36
    assert list(solution.load().example) == [f"n{i}" for i in range(90)]


class InThreads(Crew):
    """A crew of threads of this process, which meet at each call."""

    def __init__(self, rank: int, size: int, met: threading.Barrier, told: list[Any]) -> None:
        self.rank, self.size, self._met, self._told = rank, size, met, told

    def gather(self, mine: Any) -> list[Any]:
        self._told[self.rank] = mine
        self._met.wait(10)
        found = list(self._told)
        self._met.wait(10)
        return found

    def sum_(self, values: Tensor) -> Tensor:
        return values.copy_(torch.stack(self.gather(values.clone())).sum(0))

    def least_(self, values: Tensor) -> Tensor:
        return values.copy_(torch.stack(self.gather(values.clone())).amin(0))


@pytest.mark.usefixtures("small_windows")
def test_a_crew_counts_the_same_whenever_it_merges() -> None:
    """Also in the middle of a window whose examples were another member's before, as a checkpoint may."""

    def count(rank: int) -> Examples:
        examples = all_of(stored(101), InThreads(rank, 3, met, told))
        order = torch.Generator().manual_seed(2)
        for generator in (None, order, order):
            for i, window in enumerate(examples.windows(generator, multiple=4)):
                window.problem.count(torch.arange(len(window.examples)), evaluations=1, gradients=2)
                if generator is not None and i == 1:
                    examples.merge()
                window.problem.count(torch.arange(len(window.examples)), evaluations=1, gradients=0)
        examples.merge()
        return examples

    met, told = threading.Barrier(3), [None] * 3
    with ThreadPoolExecutor(3) as pool:
        for examples in pool.map(count, range(3)):
            assert torch.equal(examples.evaluations, torch.full((101,), 6))
            assert torch.equal(examples.gradients, torch.full((101,), 6))


@pytest.mark.usefixtures("small_windows")
def test_what_raises_in_a_window_is_told_by_its_example() -> None:
    data = stored(50)
    victim = torch.from_numpy(data.identifiers[37:38])  # type: ignore[index]
    calls = [0]

    def raising(x: Tensor, identifiers: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] > 20 and bool((identifiers == victim).all(1).any()):
            raise ValueError("not this one")
        return shifted(x, identifiers)

    job = invsolve.run.Run(
        data, raising, {}, invsolve.Settings("jpo", {"steps": 60, "proposals": "none"}, refine="none", threads=1)
    )
    job.solve(None, False, False, None)
    assert job.conduct.first_error == (37, "ValueError: not this one")


def test_simulated_blocks_are_the_numbers_of_one_draw() -> None:
    """`generate` draws its noise block by block."""
    for n, samples in ((1030, 2), (2048, 2), (3, 5), (1025, 3)):
        noisy, clean = (
            np.asarray(invsolve.generate("wave-packet", n, seed=5, noise=s, model_options={"samples": samples}).targets)
            for s in (0.5, 0.0)
        )
        generator = torch.Generator().manual_seed(5)
        invsolve.load_model("wave-packet", samples=samples).draw_parameters(n, None, generator)
        noise = torch.randn((n, samples), dtype=torch.float64, generator=generator).numpy()
        np.testing.assert_array_equal(noisy, clean + 0.5 * noise)
