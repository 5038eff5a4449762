"""Memory that runs out: less is evaluated together, and the run goes on; and a model that keeps what it computes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve import compilation, memory, ranges, run
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.events import Event
from invsolve.memory import Fitting, ran_out
from invsolve.models.base import ForwardModel, FunctionModel

ERRORS: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError,
]


def shots(n: int) -> Dataset:
    data = invsolve.generate("billiards", n, seed=1)
    data.x0 = np.array([0.7, 0.0])
    return data


def hungry(most: int, error: Callable[[], Exception] = ERRORS[0], seen: list[int] | None = None) -> FunctionModel:
    """Billiards, where more than `most` rows do not fit into memory; `seen` are the rows of all that fitted."""
    inner = invsolve.load_model("billiards")

    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        if len(x) > most:
            raise error()
        if seen is not None:
            seen.append(len(x))
        return inner(x, identifiers)

    return FunctionModel(forward, "hungry")


def noted(data: Dataset, model: Any, **more: Any) -> tuple[invsolve.Solution, list[str], list[dict[str, Any]]]:
    """The solution, the notes of it, and what the events of memory told."""
    heard: list[Event] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = invsolve.solve(data, model, control=Control(listeners=[heard.append]), **more)
    notes = [str(w.message) for w in caught if "memory" in str(w.message)]
    return solution, notes, [event.told for event in heard if event.kind == "memory"]


@pytest.mark.parametrize(
    ("method", "error"), [*(("bfgs", error) for error in ERRORS), ("lm", MemoryError), ("multistart", MemoryError)]
)
def test_what_does_not_fit_is_evaluated_in_parts(method: str, error: Callable[[], Exception]) -> None:
    data, seen = shots(50), list[int]()
    more: dict[str, Any] = {"options": {"starts": 3}} if method == "multistart" else {}
    # 50 rows do not fit, nor do 25.
    found, notes, told = noted(data, hungry(13, error, seen), method=method, **more)
    whole = invsolve.solve(data, hungry(1000), method, **more)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-9, atol=1e-15)
    # Rounding depends on how many are computed together, and may decide whether there is another iteration.
    assert abs(found.evaluations - whole.evaluations).max() <= 1
    assert found.attributes["batch_size"] == 12
    assert max(seen) <= 13
    assert told == [{"rows": 50, "fits": 12}]
    assert notes == [
        "there was not enough memory for 25 examples at a time, from then on at most 12 were evaluated together; "
        "--batch-size 12 does so from the start"
    ]


@pytest.mark.parametrize("method", ["jpo", "auto", "supervised"])
def test_joint_methods_simulate_as_much_as_fits(method: str) -> None:
    data = shots(40)
    options: dict[str, Any] = {"simulations": 2} | ({"steps": 4} if method == "jpo" else {})
    found, notes, _ = noted(data, hungry(10), method=method, options=options)
    whole = invsolve.solve(data, hungry(1000), method, options=options)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-6, atol=1e-12)
    assert found.attributes["batch_size"] == 10
    assert len(notes) == 1


def test_gradients_that_do_not_fit_leave_losses_whole() -> None:
    """What a gradient takes is asked for in smaller parts than a loss, never the other way round."""
    losses, gradients = list[int](), list[int]()

    def forward(x: Tensor, identifiers: None) -> Tensor:
        if x.requires_grad and len(x) > 70:
            raise MemoryError
        (gradients if x.requires_grad else losses).append(len(x))
        return 2 * x

    data = Dataset(targets=np.ones((200, 2)), x0=np.zeros(2))
    found, _, _ = noted(data, FunctionModel(forward, "steep"))
    assert (found.loss < 1e-9).all()
    assert found.attributes["batch_size"] == 50
    assert max(gradients) == 64  # in the first scoring, which looks whether rows are apart
    assert max(losses) == 200 - 64
    fitting = Fitting()
    fitting.in_parts(lambda part: None, 100, "loss", "m")
    fitting.learn(100, 50, "gradient")
    parts: list[slice | None] = []
    fitting.in_parts(parts.append, 100, "loss", "m")
    fitting.in_parts(parts.append, 100, "gradient", "m")
    fitting.in_parts(parts.append, 120, "Jacobian", "m")
    assert parts == [None, slice(0, 50), slice(50, 100), slice(0, 50), slice(50, 100), slice(100, 120)]


def test_guesses_too() -> None:
    class Guessing(ForwardModel):
        x_shape = (1,)

        def forward(self, x: Tensor, identifiers: None) -> Tensor:
            return 2 * x

        def initial_guess(self, targets: Tensor, identifiers: None) -> Tensor:
            if len(targets) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return targets / 3

    data = Dataset(targets=np.arange(1.0, 11.0)[:, None])
    found, notes, _ = noted(data, Guessing)
    np.testing.assert_allclose(found.x_initial[:, 0], np.arange(1.0, 11.0) / 3)
    np.testing.assert_allclose(found.x[:, 0], np.arange(1.0, 11.0) / 2)
    assert len(notes) == 1


def test_rows_that_raise_are_still_found_where_memory_is_short() -> None:
    data = shots(30)
    bad = torch.from_numpy(np.asarray(data.identifiers)[[7, 20]])
    inner = hungry(8)

    def forward(x: Tensor, identifiers: Tensor) -> Tensor:
        y = inner(x, identifiers)
        if bool((identifiers[:, None] == bad).all(-1).any()):
            raise ValueError("not this one")
        return y

    found, _, _ = noted(data, FunctionModel(forward, "moody"))
    assert list(np.flatnonzero(found.status == invsolve.Status.NONFINITE)) == [7, 20]


def test_a_single_example_that_does_not_fit_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(
        invsolve.OptionError, match=r"not enough memory for a single example of model 'hungry' \(its lo"
    ):
        invsolve.solve(shots(6), hungry(0), out=tmp_path / "o.h5")
    assert not list(tmp_path.iterdir())


def test_other_errors_are_none_of_memory() -> None:
    assert not ran_out(ValueError("out of memory"))  # such as a model that simulates one
    assert not ran_out(RuntimeError("shapes cannot be broadcast"))


def test_workers_find_out_for_themselves_and_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "WORTH_FORKING", 0)
    monkeypatch.setattr(ranges, "RANGE", 20)
    monkeypatch.setattr(ranges, "PATIENCE", 0)
    data, asked = shots(80), hungry(1000)

    def in_workers(x: Tensor, identifiers: Tensor) -> Tensor:
        if x.requires_grad and len(x) > 4:  # the starts are scored before there are workers
            raise MemoryError
        return asked(x, identifiers)

    found, notes, told = noted(data, FunctionModel(in_workers, "hungry"), threads=2)
    np.testing.assert_allclose(found.loss, invsolve.solve(data, asked, threads=1).loss, rtol=1e-9, atol=1e-15)
    assert found.attributes["batch_size"] <= 4
    assert len(notes) == 1
    assert 1 <= len(told) <= 4  # each of two workers remembers; what is left at the end of a batch may be few rows


def test_places_that_do_not_fit_are_halved_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory may run out beside F, for the state of the rows: then fewer are solved at a time."""
    from invsolve.methods.bfgs import Bfgs

    inner = Bfgs.stepper

    def stepper(self: Bfgs, problem: Any) -> Any:
        made = inner(self, problem)
        start = made.start

        def starting(z: Tensor) -> Any:
            if len(z) > 12:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return start(z)

        made.start = starting
        return made

    data = shots(40)
    whole = invsolve.solve(data, hungry(1000))
    monkeypatch.setattr(Bfgs, "stepper", stepper)
    found, notes, told = noted(data, hungry(1000))
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(found.evaluations, whole.evaluations)
    assert found.attributes["batch_size"] == 10
    assert told == [{"rows": 40, "fits": 20}, {"rows": 20, "fits": 10}]
    assert len(notes) == 1


def test_compiled_rounds_that_do_not_fit_go_on_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def uncompiled(function: Any, inputs: list[Tensor], affordable: float) -> Any:
        """In the place of the compiler, which would take 10 s: memory runs out at the tenth round."""

        def call(*tensors: Tensor) -> Any:
            calls[0] += 1
            if calls[0] >= 20 and function.__name__ == "compute":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return function(*tensors)

        return call

    monkeypatch.setattr(compilation, "record_and_compile", uncompiled)
    data = shots(40)
    found = invsolve.solve(data, "billiards", compile="on", batch_size=16)
    assert calls[0] > 25  # the transition goes on compiled
    whole = invsolve.solve(data, "billiards", compile="off", batch_size=16)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(found.evaluations, whole.evaluations)


LIMITED = """
import resource, sys, warnings
import numpy as np, torch, invsolve
torch.set_num_threads(1)

def F(x, identifiers):
    big = x[:, :1, None] * torch.ones(500, 500, dtype=x.dtype)  # 2 MB a row, and what autograd keeps
    return torch.stack([big.sin().mean((1, 2)), x[:, 1]], 1)

data = invsolve.Dataset(targets=np.tile([0.5, 2.0], (16, 1)), x0=np.array([0.1, 0.0]))
invsolve.solve(invsolve.Dataset(targets=data.targets[:3], x0=data.x0), F, threads=1)  # all libraries are loaded
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 56 * 2**20,) * 2)
with warnings.catch_warnings(record=True) as notes:
    warnings.simplefilter("always")
    found = invsolve.solve(data, F, threads=1, compile="off")
print(found.attributes["batch_size"], float(found.loss.max()), len(notes), notes[0].message)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is not kept elsewhere")
def test_a_process_with_little_memory_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    size, loss, notes, message = done.stdout.split(maxsplit=3)
    assert 1 <= int(size) <= 8
    assert float(loss) < 1e-9
    assert notes == "1"
    assert message.startswith("there was not enough memory for ")


LEAKING = """
import sys, warnings
import numpy as np, torch, invsolve
from invsolve import memory, ranges, run
from invsolve.control import Control
torch.set_num_threads(1)
memory.GROWN, memory.PART_OF_FREE = 60e6, 0.0
ranges.RANGE, ranges.PATIENCE, run.WORTH_FORKING = 50, 0, 0
leaks, threads = sys.argv[1] == "leaks", int(sys.argv[2])
kept = []

def F(x, identifiers):
    work = torch.ones(len(x), 8_000 if leaks else 20_000, dtype=x.dtype) * x.detach().sum(1)[:, None]  # 64 or 160 kB
    if leaks:
        kept.append(work)
    return x.sin() + 0 * work.mean()

data = invsolve.Dataset(targets=np.full((500, 2), 0.5), x0=np.full((500, 2), 0.1))
heard = []
with warnings.catch_warnings(record=True) as notes:
    warnings.simplefilter("always")
    invsolve.solve(data, F, "gd", batch_size=10, threads=threads, options={"max_iterations": 10}, compile="off",
        control=Control(listeners=[heard.append]))
print(sum(event.kind == "leak" for event in heard), *(note.message for note in notes))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is not told elsewhere")
@pytest.mark.parametrize(("leaks", "threads"), [(True, 2), (False, 1)])
def test_a_model_that_keeps_what_it_computes_is_noticed(leaks: bool, threads: int) -> None:
    words = [sys.executable, "-c", LEAKING, "leaks" if leaks else "is tight", str(threads)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    events, *note = done.stdout.split(maxsplit=1)
    if not leaks:
        assert (events, note) == ("0", [])
        return
    assert 1 <= int(events) <= threads
    assert note[0].startswith("memory grew by ")
    assert note[0].count("may keep what it computes") == 1
    each = float(note[0].split(" evaluations, ")[1].split(" kB")[0])
    assert 50 <= each <= 200  # 64 kB of each row, and of those that fill a batch up


def test_memory_that_warms_up_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    size = [0]
    monkeypatch.setattr(memory, "resident", lambda: size[0])
    monkeypatch.setattr(memory, "available_memory", lambda device: 10e9)

    def words(grown: Callable[[int], float], **more: int) -> str:
        growth = memory.Growth()
        vars(growth).update(more)
        for call in range(1000):
            size[0] = int(grown(call))
            growth.look(10)
        return growth.words

    assert "500 kB each" in words(lambda call: 5e6 * call)
    assert not words(lambda call: 5e9 * (1 - 0.9**call))  # it comes to an end
    assert not words(lambda call: 4e9 * (call > 500))  # at once
    assert not words(lambda call: 1e6 * call)  # not much
    assert not words(lambda call: 5e6 * call, expected=int(6e9))
