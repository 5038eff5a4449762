"""Networks that outlive their run: saved, asked for new data, trained further; and files that are no such network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import invsolve
from invsolve import cli, ranges
from invsolve import examples as examples_module
from invsolve.analysis.summary import is_solved
from invsolve.control import Control
from invsolve.data import files
from invsolve.data.dataset import Dataset
from invsolve.data.network_file import KEY, SavedNetwork, read_network
from invsolve.data.solution import FoundBy, Solution, Status
from invsolve.methods.solver_network import NetworkMethod, SolverNetwork, restored
from invsolve.registry import load_method, methods_of
from invsolve.reuse import open_network
from invsolve.run import Run
from invsolve.settings import Settings

QUICK = {"simulations": 20, "passes": 0}
SAMPLES = {"samples": 32}


def packets(n: int, seed: int, **options: Any) -> Dataset:
    return invsolve.generate("wave-packet", n, seed=seed, model_options=SAMPLES | options)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 128 wave packets."""
    path = tmp_path_factory.mktemp("network") / "net.safetensors"
    invsolve.solve(packets(128, 41), method="jpo", options=QUICK, refine="none", save_network=path)
    return path


@pytest.fixture
def folder(network: Path, tmp_path: Path) -> Path:
    """A folder of a user with that network and 12 new wave packets."""
    shutil.copy(network, tmp_path / "net.safetensors")
    invsolve.write_dataset(tmp_path / "wp.h5", packets(12, 3))
    return tmp_path


def solved(solution: Solution, data: Dataset) -> float:
    return float(is_solved(solution, Run(data, None, {}, Settings()).loss_true()).mean())


# What comes back is what was saved.


@pytest.mark.parametrize("kind", ["given", "gaps and fields"])
def test_a_network_gives_the_same_answers_to_the_last_bit(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = packets(24, 1), None
    if kind == "gaps and fields":
        model = offset_sine
        data = group_of_identifiers(24)
        data.targets[2, :3] = np.nan
    answers: list[Tensor] = []
    ask = SolverNetwork.all_solutions

    def recording(self: SolverNetwork, *arguments: Any) -> Tensor:
        answers.append(ask(self, *arguments))
        return answers[-1]

    monkeypatch.setattr(SolverNetwork, "all_solutions", recording)
    options = {"simulations": 10, "passes": 2}
    for dtype in ("float64", "float32"):
        path = tmp_path / f"{dtype}.safetensors"
        invsolve.solve(data, model, "jpo", options=options, refine="none", save_network=path, dtype=dtype)
        trained = answers[-1]
        invsolve.predict(path, data, model, refine="none", dtype=dtype)
        assert torch.equal(trained, answers[-1])
        assert trained.std() > 1e-3


def offset_sine(x: Tensor, identifiers: dict[str, Tensor]) -> Tensor:
    return torch.sin(x * identifiers["rate"]) + identifiers["offset"][:, None]


def group_of_identifiers(n: int) -> Dataset:
    rng = np.random.default_rng(1)
    identifiers = {"rate": rng.uniform(0.5, 1, (n, 20)), "offset": rng.uniform(-1, 1, n)}
    x = rng.uniform(-1, 1, (n, 1))
    targets = np.sin(x * identifiers["rate"]) + identifiers["offset"][:, None]
    return Dataset(targets=targets, identifiers=identifiers, x0=np.zeros(1), x_true=x)


def test_the_same_network_gives_the_same_bytes(network: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    invsolve.solve(packets(128, 41), method="jpo", options=QUICK, refine="none", save_network=again)
    assert again.read_bytes() == network.read_bytes()


def test_identifiers_reach_the_network_by_name_whatever_their_order(tmp_path: Path) -> None:
    data, path = group_of_identifiers(32), tmp_path / "net.safetensors"
    invsolve.solve(data, offset_sine, "jpo", options=QUICK, refine="none", save_network=path)
    turned = replace(data, identifiers=dict(reversed(list(data.identifiers.items()))))  # type: ignore[union-attr]
    one, other = (invsolve.predict(path, d, offset_sine, refine="none") for d in (data, turned))
    assert (one.found_by == FoundBy.NETWORK).any()
    np.testing.assert_array_equal(one.x, other.x)


def test_a_start_common_to_all_belongs_to_the_network(network: Path) -> None:
    """It never saw x0: with another one it must answer the same, not the same change."""
    data = packets(20, 5)
    one = invsolve.predict(network, data, refine="none")
    other = invsolve.predict(network, replace(data, x0=np.full((20, 1), 12.5)), refine="none")
    asked = (one.found_by == FoundBy.NETWORK) & (other.found_by == FoundBy.NETWORK)
    assert asked.sum() > 15
    np.testing.assert_array_equal(one.x[asked], other.x[asked])


def test_starts_from_elsewhere_are_told(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    data = invsolve.generate("gaussian-2d", 8, seed=1)
    few = {"simulations": 4, "passes": 0}
    invsolve.solve(data, method="jpo", options=few, refine="none", save_network=path)  # x0 from moments
    assert read_network(path).about.x0 == "model"
    invsolve.predict(path, data, refine="none")  # no warning
    with pytest.warns(UserWarning, match="changes to x0 from the model, but here x0 is from the data"):
        invsolve.predict(path, replace(data, x0=data.x_true), refine="none")


# What it answers.


def test_new_data_are_solved_at_once(network: Path) -> None:
    data = packets(96, 42)
    raw, refined = invsolve.predict(network, data, refine="none"), invsolve.predict(network, data)
    assert solved(refined, data) == 1 > solved(invsolve.solve(data), data) + 0.4
    assert solved(raw, data) > 0.3
    assert (raw.loss <= raw.loss_initial).all()
    assert (refined.loss <= raw.loss * (1 + 1e-9)).all()
    assert set(raw.evaluations) == {3}  # start, answer, result
    assert set(raw.gradients) == {1}
    assert set(raw.status) == {Status.BUDGET}
    assert (raw.found_by == FoundBy.NETWORK).mean() > 0.9
    assert refined.evaluations.mean() < 20
    assert raw.attributes["method"] == "predict"
    assert raw.attributes["network"] == str(network)
    assert raw.attributes["network_sha256"] == read_network(network).sha256


def test_evaluations_are_those_made(network: Path) -> None:
    model, rows = invsolve.load_model("wave-packet", **SAMPLES), 0
    forward = model.forward

    def counting(x: Tensor, identifiers: object) -> Tensor:
        nonlocal rows
        rows += len(x)
        return forward(x, identifiers)

    model.forward = counting
    for more in ({"refine": "none"}, {}, {"max_evaluations": 3}, {"max_evaluations": 7}):
        rows = 0
        solution = invsolve.predict(network, packets(10, 4), model, **more)
        assert solution.evaluations.sum() == rows
        assert solution.evaluations.max() <= more.get("max_evaluations", 10**9)


def test_one_example_and_data_in_windows_are_answered_alike(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packets(40, 6)
    whole = invsolve.predict(network, data, refine="none")
    first = replace(data, targets=data.targets[:1], x_true=data.x_true[:1])  # type: ignore[index]
    np.testing.assert_allclose(invsolve.predict(network, first, refine="none").x, whole.x[:1], atol=1e-5)
    monkeypatch.setattr(examples_module, "WINDOW", 7 * data.row_bytes)
    monkeypatch.setattr(ranges, "RANGE", 5)
    parts = invsolve.predict(network, data, refine="none")
    np.testing.assert_allclose(parts.x, whole.x, atol=1e-5)  # the network computes in float32
    assert set(parts.evaluations) == {3}


def test_a_row_that_fails_is_its_own_affair(network: Path) -> None:
    data = packets(6, 7)
    data.targets[2] = np.nan
    solution = invsolve.predict(network, data)
    assert list(solution.status == Status.NONFINITE) == [i == 2 for i in range(6)]


# Training goes on.


def test_training_that_goes_on_takes_fewer_evaluations(network: Path) -> None:
    data = packets(64, 42)
    for method in ("jpo", "auto"):
        fresh, on = (invsolve.solve(data, method=method, init_from=i) for i in (None, network))
        assert solved(on, data) == 1
        assert on.evaluations.mean() < 0.7 * fresh.evaluations.mean()
        assert on.attributes["network"] == str(network)


def test_the_budget_holds_where_training_goes_on(network: Path) -> None:
    for method in ("jpo", "auto"):
        for most in (3, 4, 5, 9, 14):
            solution = invsolve.solve(packets(8, 3), method=method, init_from=network, max_evaluations=most)
            assert solution.evaluations.max() <= most
            assert (solution.loss <= solution.loss_initial).all()


def test_a_network_that_does_not_know_the_new_data_is_taught(network: Path, tmp_path: Path) -> None:
    """Its weights are made useless; proposals mend that."""
    saved = read_network(network)
    tensors = {k: np.array(v) for k, v in saved.tensors.items()}
    tensors["network.head.weight"] *= -1
    bad = rewritten(saved, tmp_path / "bad.safetensors", tensors)
    data, on = packets(128, 42), tmp_path / "on.safetensors"
    assert solved(invsolve.predict(bad, data, refine="none"), data) < 0.2
    invsolve.solve(data, method="jpo", options={"simulations": 30}, refine="none", init_from=bad, save_network=on)
    assert solved(invsolve.predict(on, data, refine="none"), data) > 0.5


def test_sizes_come_from_the_file(network: Path, tmp_path: Path) -> None:
    data, few = packets(4, 1), {"simulations": 2, "passes": 0}
    with pytest.raises(invsolve.OptionError, match="option 'width' is 32, but the network of .* has width 64; leave"):
        invsolve.solve(data, method="jpo", options={"width": 32}, init_from=network)
    again = tmp_path / "again.safetensors"
    same = few | {"width": 64, "network": "auto"}
    solution = invsolve.solve(data, method="jpo", options=same, init_from=network, refine="none", save_network=again)
    assert json.loads(json.dumps(solution.attributes["method_options"]))["network"] == "conv1d"
    assert read_network(again).about.width == 64


# Where it is kept.


def test_which_methods_have_a_network_is_theirs_to_say() -> None:
    assert {"jpo", "auto", "supervised"} <= set(methods_of(NetworkMethod))
    assert not {"bfgs", "neural-adjoint"} & set(methods_of(NetworkMethod))
    with pytest.raises(invsolve.OptionError, match="no method is called 'predict'"):
        load_method("predict", {}, seed=0)


def test_where_nothing_was_learned_nothing_is_written(tmp_path: Path) -> None:
    data = Dataset(targets=np.arange(1.0, 9.0)[:, None] / 9, x0=np.zeros(1))
    path = tmp_path / "net.safetensors"
    with pytest.warns(UserWarning, match="no network was trained, so that .*net.safetensors is not written"):
        invsolve.solve(data, lambda x, _: x + x**3, "auto", save_network=path)
    untaught = {"proposals": "none", "passes": 0}
    with pytest.warns(UserWarning, match="no network was trained"):
        invsolve.solve(data, lambda x, _: x + x**3, "jpo", options=untaught, save_network=path)
    assert not list(tmp_path.iterdir())


def test_a_stopped_training_leaves_the_network_as_it_stands(tmp_path: Path) -> None:
    control, path, seen = Control(), tmp_path / "net.safetensors", 0

    def stop_soon(progress: object) -> None:
        nonlocal seen
        seen += 1
        control.interrupted = seen > 2

    control = Control(stop_soon)
    data = packets(256, 1)
    solution = invsolve.solve(data, method="jpo", save_network=path, out=tmp_path / "o.h5", control=control)
    assert control.interrupted
    assert len(solution) == 256
    assert open_network(path).about.examples == 256
    first = path.read_bytes()
    path.unlink()
    out = tmp_path / "o.h5"
    invsolve.solve(data, method="jpo", save_network=path, out=out, resume=True, control=StoppedOnceScored())
    assert path.read_bytes() == first  # from the checkpoint


class StoppedOnceScored(Control):
    """One that stops a run when the starts are scored, before any training."""

    def begin_range(self, before: int, total: int) -> None:
        super().begin_range(before, total)
        self.interrupted = True


def test_a_full_disk_costs_the_network_not_the_solutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = files._sync

    def full(path: Path) -> None:
        if ".safetensors" in path.name:
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "_sync", full)
    path, out = tmp_path / "net.safetensors", tmp_path / "o.h5"
    with pytest.raises(invsolve.OutputError, match="cannot write .*net.safetensors.*No space left"):
        invsolve.solve(packets(8, 1), method="jpo", options=QUICK, refine="none", save_network=path, out=out)
    assert len(invsolve.read_solution(out)) == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5"]


def test_a_run_that_resumes_after_its_training_tells_that_the_network_is_lost(tmp_path: Path) -> None:
    data, path, out = packets(8, 1), tmp_path / "net.safetensors", tmp_path / "o.h5"
    invsolve.solve(data, method="jpo", options=QUICK, refine="none", out=out)
    with pytest.warns(UserWarning, match="the training had ended before this run"):
        invsolve.solve(data, method="jpo", options=QUICK, refine="none", out=out, resume=True, save_network=path)
    assert not path.exists()


def test_another_network_is_another_run(network: Path, tmp_path: Path) -> None:
    data, out = packets(8, 1), tmp_path / "o.h5"
    invsolve.predict(network, data, out=out)
    invsolve.predict(network, data, out=out, resume=True)
    other = tmp_path / "other.safetensors"
    invsolve.solve(data, method="jpo", options=QUICK, refine="none", save_network=other)
    with pytest.raises(invsolve.OutputError, match="its network_sha256 was"):
        invsolve.predict(other, data, out=out, resume=True)


# What does not fit is refused.


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda d: invsolve.generate("billiards", 4), "was trained for model 'wave-packet', not for 'billiards'"),
        (lambda d: packets(4, 1, width=3.0), "with width=2.0, found width=3.0; give -M width=2.0"),
        (lambda d: packets(4, 1, samples=40), "with samples=32, found samples=40"),
        (lambda d: replace(d, model=None, targets=d.targets[:, :30]), "gives y of shape (32,), but targets has shape"),
    ],
)
def test_another_problem_is_refused(network: Path, change: Callable[[Dataset], Dataset], line: str) -> None:
    for solve in (
        lambda data: invsolve.predict(network, data),
        lambda data: invsolve.solve(data, method="jpo", init_from=network),
    ):
        with pytest.raises(invsolve.InvsolveError) as caught:
            solve(change(packets(4, 1)))
        assert line in str(caught.value)


def test_other_shapes_of_data_are_refused(tmp_path: Path) -> None:
    data, path = group_of_identifiers(6), tmp_path / "net.safetensors"
    invsolve.solve(data, offset_sine, "jpo", options={"simulations": 4}, refine="none", save_network=path)
    known = dict(data.identifiers)  # type: ignore[arg-type]
    for changed, line in (
        (replace(data, targets=data.targets[:, :10]), r"targets of shape \(20,\), found \(10,\)"),
        (replace(data, x0=np.zeros(2), x_true=None), r"solutions of shape \(1,\), found \(2,\)"),
        (replace(data, identifiers=known | {"more": known["rate"]}), r"identifiers of shape .*, found more \(20,\)"),
        (replace(data, identifiers=None), r"identifiers of shape offset \(\), rate \(20,\), found none"),
    ):
        with pytest.raises(invsolve.DataError, match=line):
            invsolve.predict(path, changed, offset_sine)


def test_another_unit_of_x_is_refused(tmp_path: Path) -> None:
    def model(high: float) -> invsolve.ForwardModel:
        class Cube(invsolve.ForwardModel):
            parameters = (invsolve.Parameter("a", lower=0, upper=high, initial=1.0),)

            def forward(self, x: Tensor, identifiers: object) -> Tensor:
                return x**3

        return Cube()

    data, path = Dataset(targets=np.linspace(0.5, 3, 6)[:, None]), tmp_path / "net.safetensors"
    invsolve.solve(data, model(4), "jpo", options={"simulations": 4}, refine="none", save_network=path)
    invsolve.predict(path, data, model(4))
    with pytest.raises(invsolve.ModelError, match="trained for other parameters of model 'Cube', or other scales"):
        invsolve.predict(path, data, model(5))


def test_the_model_comes_from_the_network_only_if_it_is_registered(network: Path, tmp_path: Path) -> None:
    nameless = replace(packets(4, 2), model=None, model_options={})
    assert invsolve.predict(network, nameless, refine="none").attributes["model"] == "wave-packet"
    saved = read_network(network)
    about = saved.about.model_copy(update={"model": str(tmp_path / "evil.py:F")})
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef F(x, g): return x\n")
    evil = rewritten(replace(saved, about=about), tmp_path / "evil.safetensors")
    with pytest.raises(invsolve.ModelError, match="whose code runs only where you name it"):
        invsolve.predict(evil, nameless)
    assert not (tmp_path / "ran").exists()


# From the shell.


Shell = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def shell(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The program in this process, in that folder: exit code, standard output, standard error."""
    monkeypatch.chdir(folder)

    def run(arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["invsolve", *arguments.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code, *capsys.readouterr())  # type: ignore[return-value]

    return run


def test_save_predict_and_inspect(shell: Shell, folder: Path) -> None:
    code, out, err = shell(f"solve wp.h5 --method jpo {FEW} --save-network mine.safetensors")
    assert code == 0, err
    assert "network written to mine.safetensors" in out
    code, out, err = shell("predict net.safetensors wp.h5 --json")
    assert code == 0, err
    document = json.loads(out)
    assert document["schema"] == "invsolve-solve/1"
    assert (document["method"], document["network"]) == ("predict", "net.safetensors")
    assert document["out"] == "wp.predict.h5"
    assert not err
    (folder / "run.toml").write_text('refine = "none"\nout = "raw.h5"\nmax-evaluations = 5\n')
    code, out, err = shell("predict net.safetensors wp.h5 --config run.toml")
    assert code == 0, err
    assert "3.0 evaluations and 1.0 gradients per example" in out
    assert shell("predict net.safetensors wp.h5 --overwrite --fail-above 1e-9")[0] == 3
    _, out, _ = shell("inspect net.safetensors")
    for word in ("weights for model 'wave-packet', trained by jpo on 128 examples", "targets.mean", "conv1d", "x0"):
        assert word in out
    assert "ask it by invsolve predict net.safetensors NEW.h5" in out
    description = json.loads(shell("inspect net.safetensors --json")[1])
    assert description["attributes"]["examples"] == 128
    assert description["attributes"]["schema"] == "invsolve-network/1"


FEW = "-O simulations=3 -O passes=0 --refine none"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("solve wp.h5 --save-network n.st", "save_network: method 'bfgs' trains no network; use one that does: auto"),
        ("solve wp.h5 --method lm --init-from net.safetensors", "init_from: method 'lm' trains no network"),
        ("solve wp.h5 --method jpo --save-network net.safetensors", "net.safetensors exists; choose another name, or"),
        ("solve wp.h5 --method jpo --save-network wp.h5 --overwrite", "save_network wp.h5 is the input"),
        ("solve wp.h5 --method jpo --save-network ./o --out o", "save_network o is the output of the solutions"),
        ("solve wp.h5 --method jpo --save-network no/n", "folder no of the output does not exist"),
        ("solve wp.h5 --method jpo --save-network .", "is no regular file"),
        ("solve wp.h5 --method jpo --init-from none.st", "network none.st does not exist"),
        ("solve wp.h5 --method predict", "no method is called 'predict'"),
        ("predict net.safetensors wp.h5 -M width=3", "with width=2.0, found width=3.0"),
        ("predict net.safetensors wp.h5 -O widht=3", "method 'predict' has no option 'widht'"),
        ("predict net.safetensors wp.h5 --model billiards", "not for 'billiards'"),
        ("predict net.safetensors wp.h5 --out net.safetensors", "exists"),
        ("predict net.safetensors wp.h5 --refine jpo", "cannot refine with 'jpo'"),
        ("predict net.safetensors", "Missing argument"),
        ("predict wp.h5 wp.h5", "wp.h5 is an HDF5 file; a network file is needed here"),
        ("predict . wp.h5", ". is a folder; name a network file"),
        ("predict /dev/zero wp.h5", "/dev/zero is no regular file"),
        ("predict empty.safetensors wp.h5", "is no network file, or a truncated one"),
        ("predict cut.safetensors wp.h5", "is no network file"),
        ("predict text.safetensors wp.h5", "is no network file"),
        ("predict others.safetensors wp.h5", "holds tensors, but none of a network that invsolve has saved"),
        ("inspect cut.safetensors", "is no network file"),
        ("inspect others.safetensors", "holds tensors, but none"),
        ("solve net.safetensors", "is not an HDF5 file"),
    ],
)
def test_bad_input_ends_in_2_with_one_line(shell: Shell, folder: Path, arguments: str, line: str) -> None:
    content = (folder / "net.safetensors").read_bytes()
    (folder / "empty.safetensors").touch()
    (folder / "cut.safetensors").write_bytes(content[:-100])
    (folder / "text.safetensors").write_text("no tensors in here, but text enough\n")
    (folder / "others.safetensors").write_bytes(safetensors.numpy.save({"a": np.ones(3)}, {"format": "pt"}))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    code, out, err = shell(arguments)
    assert code == 2, (out, err)
    assert line in err
    assert err.startswith("invsolve: ")
    assert err.count("\n") == 1
    assert not out
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_overwrite_is_for_the_network_too(shell: Shell, folder: Path) -> None:
    before = (folder / "net.safetensors").read_bytes()
    (folder / "run.toml").write_text('init-from = "net.safetensors"\nsave-network = "net.safetensors"\n')
    code, _, err = shell(f"solve wp.h5 --method jpo -O learning_rate=0.01 {FEW} --config run.toml --overwrite")
    assert code == 0, err
    assert read_network(folder / "net.safetensors").about.examples == 12
    assert (folder / "net.safetensors").read_bytes() != before
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_a_signal_leaves_the_network_as_it_stands(folder: Path) -> None:
    (folder / "m.py").write_text(
        "import torch\n"
        "calls = 0\n"
        "def F(x, identifiers):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls == 30:\n"
        "        open('begun', 'w').close()\n"
        "    return torch.sin(torch.linspace(0, 20, 32, dtype=x.dtype) - x)\n"
    )
    words = [sys.executable, "-m", "invsolve", "solve", "wp.h5", "--model", "m.py:F", "--x0", "9", "--method", "jpo"]
    more = ["-O", "proposals=none", "-O", "passes=100000", "-O", "steps=100000000", "--save-network", "mine.st"]
    process = subprocess.Popen([*words, *more], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(1200):
        if (folder / "begun").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "network written to mine.st" in out
    assert open_network(folder / "mine.st").about.method == "jpo"


# Files that are no network, or a hostile one.


def rewritten(saved: SavedNetwork, path: Path, tensors: dict[str, np.ndarray] | None = None, **about: Any) -> Path:
    """The network with other tensors or another description, as a file."""
    text = json.dumps(saved.about.model_dump(mode="json", by_alias=True) | about)
    path.write_bytes(safetensors.numpy.save(tensors or saved.tensors, {KEY: text}))
    return path


@pytest.mark.parametrize(
    ("about", "line"),
    [
        ({"schema": "invsolve-network/2"}, "'schema' of its description"),
        ({"width": 2**50}, "'width' of its description"),
        ({"width": 2**39}, "overflow"),
        ({"width": 2**20}, "tensor 'network.trunk.0.weight' is"),
        ({"width": "64"}, "'width' of its description: Input should be a valid integer"),
        ({"depth": 900}, "are too few for depth"),
        ({"depth": 2**30}, "depth"),
        ({"channels": 2**40}, ""),
        ({"y_shape": [2**40, 2**40]}, "does not fit targets"),
        ({"y_shape": [8, 2**40]}, ""),
        ({"x_shape": [2**40, 2**40]}, ""),
        ({"x_shape": [2]}, "tensor 'network.head.weight' is (1, 64) float32, (2, 64) float32 is needed"),
        ({"identifiers": [{"name": "a", "shape": [3]}]}, "is needed"),
        ({"network": "lstm"}, "'network' of its description"),
        ({"scale": 0.0}, "'scale' of its description"),
        ({"x0": "data"}, "tensor 'start' is none of this network's"),
        ({"gaps": True}, "is needed"),
        ({"more": 1}, "'more' of its description: Extra inputs are not permitted"),
        ({"parameters": [{"name": "t0", "scale": "linear", "typical": -1.0}]}, "'parameters.0.typical'"),
    ],
)
def test_a_description_that_lies_is_refused(network: Path, tmp_path: Path, about: dict[str, Any], line: str) -> None:
    bad = rewritten(read_network(network), tmp_path / "bad.safetensors", **about)
    with pytest.raises(invsolve.DataError, match="is not usable") as caught:
        open_network(bad)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def _without(name: str) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda tensors: tensors.pop(name)


def _with(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda tensors: tensors.update({name: change(np.array(tensors[name]))})


HEAD = "network.head.weight"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_without(HEAD), f"tensor '{HEAD}' is missing"),
        (_without("start"), "tensor 'start' is missing"),
        (_with(HEAD, lambda t: t * np.nan), f"tensor '{HEAD}' holds NaN or Inf"),
        (_with("start", lambda t: t + np.inf), "tensor 'start' holds NaN or Inf"),
        (_with(HEAD, lambda t: t.astype(np.float64)), "float64, (1, 64) float32 is needed"),
        (_with(HEAD, lambda t: t.astype(np.float16)), "has type F16, which none of a network has"),
        (_with(HEAD, lambda t: t.T), "is (64, 1) float32, (1, 64) float32 is needed"),
        (_with("targets.count", lambda t: -t), "tensor 'targets.count' holds numbers below zero"),
        (_with("targets.deviation", lambda t: -t), "tensor 'targets.deviation' holds numbers below zero"),
        (lambda tensors: tensors.update(more=np.ones(2)), "tensor 'more' is none of this network's"),
        (lambda tensors: tensors.clear() or tensors.update(start=np.zeros(1)), "too few for depth"),
    ],
)
def test_tensors_that_are_not_the_network_are_refused(
    network: Path, tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object], line: str
) -> None:
    saved = read_network(network)
    tensors = dict(saved.tensors)
    change(tensors)
    with pytest.raises(invsolve.DataError) as caught:
        open_network(rewritten(saved, tmp_path / "bad.safetensors", tensors))
    assert line in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *arguments: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # a superuser may read what others may not
    with pytest.raises(invsolve.DataError, match="cannot be read: permission denied"):
        read_network(network)


def test_a_header_that_claims_much_is_not_read(network: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    for header in (2**63, 2**40, 2**23 + 1):
        with bad.open("wb") as file:
            file.write(header.to_bytes(8, "little"))
            file.truncate(2**33)  # of holes: nothing is on disk
        with pytest.raises(invsolve.DataError, match="is no network file"):
            read_network(bad)
    with bad.open("r+b") as file:
        file.write((100).to_bytes(8, "little"))
    with pytest.raises(invsolve.DataError, match="more than any network"):
        read_network(bad)
    nested = '{"a":' * 100_000 + "1" + "}" * 100_000
    for text in (nested, "[" * 100_000, '{"schema": NaN}', "", '"x"', '{"width": ' + "9" * 5000 + "}"):
        bad.write_bytes(safetensors.numpy.save({"a": np.ones(1)}, {KEY: text}))
        with pytest.raises(invsolve.DataError) as caught:
            read_network(bad)
        assert len(str(caught.value)) < 1000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_ends_in_anything_but_one_line(network: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed, cut out and put in, mostly in the header; what still loads is a network all the same."""
    content = bytearray(network.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, header + 8) | st.integers(0, len(content) - 1)) % len(content)
        kind = data.draw(st.sampled_from(["flip", "cut", "put", "digit", "end"]))
        if kind == "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        elif kind == "digit":  # numbers of the header: shapes, offsets, sizes
            digits = [i for i in range(8, min(header, len(content))) if chr(content[i]).isdigit()]
            if digits:
                content[data.draw(st.sampled_from(digits))] = ord(data.draw(st.sampled_from("0123456789")))
        elif kind == "cut":
            del content[at : at + data.draw(st.integers(1, 20))]
        elif kind == "put":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            del content[at:]
        if not content:
            break
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    try:
        saved = read_network(bad)
        restored(saved)
    except invsolve.InvsolveError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(np.isfinite(t).all() for t in saved.tensors.values())


def test_no_pickle_anywhere() -> None:
    source = Path(invsolve.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "torch.load" not in text
    assert os.path.exists(source)
