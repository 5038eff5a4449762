"""The installed program, as a shell sees it: exit codes, JSON, what goes to which stream."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import invsolve
from invsolve.data.solution import Status
from tests.conftest import Command

SOLVE_KEYS = {
    "schema", "model", "method", "n", "loss", "loss_initial", "status", "evaluations", "gradients", "seconds", "out",
    "solved",
}  # fmt: skip


def test_help_answers_without_torch() -> None:
    names = ("solve", "compare", "predict", "generate", "check", "diagnose", "models", "methods", "inspect")
    script = (
        "import sys, invsolve.cli\n"
        "from typer.main import get_command\n"
        f"for words in ([], {', '.join(repr([name]) for name in names)}):\n"
        "    get_command(invsolve.cli.app).main([*words, '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'h5py', 'scipy', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert f" {name} [OPTIONS]" in done.stdout


def test_solve_writes_beside_the_input_and_shows_the_losses(command: Command, wave_packets: Path) -> None:
    done = command("solve", wave_packets)
    assert done.returncode == 0, done.stderr
    assert wave_packets.with_name("wp.bfgs.h5").exists()
    for words in ("wave-packet by bfgs, 12 examples", "median", "converged", "solved", "wp.bfgs.h5"):
        assert words in " ".join(done.stdout.split())
    assert not done.stderr


def test_json_is_exactly_one_document(command: Command, wave_packets: Path) -> None:
    done = command("solve", wave_packets, "--method", "jpo", "-O", "steps=30", "--json", "--max-evaluations", "30")
    document = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert set(document) == SOLVE_KEYS | {"found_by", "starts", "minima", "chosen"}
    assert document["schema"] == "invsolve-solve/1"
    assert document["evaluations"]["max"] <= 30
    assert sum(document["status"].values()) == document["n"] == 12
    solution = invsolve.read_solution(document["out"])
    assert document["loss"]["mean"] == pytest.approx(solution.loss.mean())
    assert document["loss"]["median"] == pytest.approx(np.median(solution.loss))


def test_quiet_leaves_standard_error_empty(command: Command, wave_packets: Path) -> None:
    done = command("solve", wave_packets, "--quiet", "--fail-above", "1e-9")
    assert done.returncode == 3
    assert not done.stderr


def test_an_existing_output_is_kept(command: Command, wave_packets: Path) -> None:
    assert command("solve", wave_packets).returncode == 0
    before = wave_packets.with_name("wp.bfgs.h5").read_bytes()
    done = command("solve", wave_packets)
    assert done.returncode == 2
    assert "exists; choose another name, or --overwrite it" in done.stderr
    assert wave_packets.with_name("wp.bfgs.h5").read_bytes() == before
    assert command("solve", wave_packets, "--overwrite").returncode == 0


def test_fail_above_and_nonfinite_end_in_3(command: Command, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def F(x, identifiers):\n    return x.sqrt()\n")
    invsolve.write_dataset(tmp_path / "d.h5", invsolve.Dataset(targets=np.ones((2, 1)), x0=np.array([[4.0], [-1.0]])))
    model = f"{tmp_path / 'm.py'}:F"
    done = command("solve", tmp_path / "d.h5", "--model", model, "--json")
    assert done.returncode == 3
    assert "1 of 2 examples are nonfinite" in done.stderr
    document = json.loads(done.stdout)
    assert document["loss"]["mean"] is None
    assert document["status"]["nonfinite"] == 1
    assert (tmp_path / "d.bfgs.h5").exists()


def test_an_example_without_observations_is_nonfinite_for_that_reason(command: Command, tmp_path: Path) -> None:
    targets = np.ones((4, 3))
    targets[1], targets[2, 0] = np.nan, np.nan
    invsolve.write_dataset(tmp_path / "d.h5", invsolve.Dataset(targets=targets, x0=np.array([1.0, 1.0, 1.0])))
    (tmp_path / "m.py").write_text("def F(x, g): return (2 - x[:, :1]).log() * x\n")
    done = command("solve", "d.h5", "--model", "m.py:F", cwd=tmp_path)
    assert done.returncode == 3
    assert "1 of 4 examples are nonfinite: 1 without any observed target\n" in done.stderr
    done = command("solve", "d.h5", "--model", "m.py:F", "--x0", "3,1,1", "--out", "o.h5", cwd=tmp_path)
    assert done.returncode == 2  # no example can be begun


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["solve", "absent.h5"], "absent.h5 does not exist"),
        (["solve", "."], "is a folder; name an HDF5 file"),
        (["solve", "wp.h5", "--method", "bfsg"], "no method is called 'bfsg'; did you mean 'bfgs'?"),
        (["solve", "wp.h5", "--model", "wavepacket"], "no model is called 'wavepacket'; did you mean 'wave-packet'?"),
        (["solve", "wp.h5", "--model", "nothere.py:F"], "model file nothere.py does not exist"),
        (["solve", "wp.h5", "--model", "no.such.module:F"], "module no.such.module cannot be imported"),
        (["solve", "wp.h5", "-O", "max_iteration=3"], "did you mean 'max_iterations'?"),
        (["solve", "wp.h5", "-O", "max_iterations=abc"], "option 'max_iterations' of method 'bfgs'"),
        (["solve", "wp.h5", "-O", "max_iterations=0"], "greater than or equal to 1, found '0'"),
        (["solve", "wp.h5", "-O", "max_iterations"], "-O takes key=value, found 'max_iterations'"),
        (["solve", "wp.h5", "-M", "sample=3"], "model 'wave-packet' has no option 'sample'; did you mean 'samples'?"),
        (["solve", "wp.h5", "-M", "samples=64"], "gives y of shape (64,), but targets has shape (12, 32)"),
        (["solve", "wp.h5", "--refine", "bfsg"], "no method is called 'bfsg'; did you mean 'bfgs'?"),
        (["solve", "wp.h5", "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["solve", "wp.h5", "--device", "tpu"], "no device is called 'tpu'"),
        (["solve", "wp.h5", "--dtype", "float16"], "no dtype is called 'float16'"),
        (["solve", "wp.h5", "--seed", "-1"], "seed must be from 0"),
        (["solve", "wp.h5", "--max-evaluations", "2"], "max_evaluations must be from 3"),
        (["solve", "wp.h5", "--batch-size", "0"], "batch_size must be auto, or from 1 to"),
        (["solve", "wp.h5", "--threads", "0"], "threads must be from 1 to 1024, found 0"),
        (["compare", "wp.h5", "--threads", "9999"], "threads must be from 1 to 1024, found 9999"),
        (["solve", "wp.h5", "-O", "curvature=1e-5"], "curvature 1e-05 must be above sufficient_decrease"),
        (["solve", "wp.h5", "-M", "duration=inf"], "option 'duration' of model 'wave-packet'"),
        (["solve", "wp.h5", "-M", "model=x"], "has no option 'model'"),
        (["solve", "wp.h5", "-O", "seed=1"], "method 'bfgs' has no option 'seed'"),
        (["solve", "wp.h5", "--out", "."], "is no regular file"),
        (["solve", "wp.h5", "--time-limit", "soon"], "'soon' is no duration"),
        (["solve", "wp.h5", "--sead", "1"], "--sead"),
        (["solve", "wp.h5", "--seed", "one"], "found 'one'"),
        (["solve", "wp.h5", "--targets", "target"], "has no 'target'; did you mean 'targets'?"),
        (["solve", "wp.h5", "--out", "no/where.h5"], "folder no of the output does not exist"),
        (["solve", "wp.h5", "--out", "wp.h5", "--overwrite"], "is the input"),
        (["solve", "wp.h5", "--config", "absent.toml"], "config absent.toml cannot be read"),
        (["solve"], "the dataset is missing: invsolve solve DATA.h5"),
        (["sovle"], "sovle"),
        (["compare", "wp.h5", "--methods", "bfgs,bfgs"], "method 'bfgs' is given twice"),
        (["compare", "wp.h5", "--methods", "gd", "--baseline", "bfgs"], "baseline 'bfgs' is not among the methods"),
        (["compare", "wp.h5", "-O", "steps=3"], "compare takes METHOD.KEY=VALUE"),
        (["compare", "wp.h5", "wp.h5", "--seed", "3"], "--seed has no meaning for finished solution files"),
        (["compare", "wp.h5", "--seeds", "0"], "seeds must be from 1 to 1000, found 0"),
        (["compare", "wp.h5", "--seeds", "2", "--seed", "9223372036854775807"], "seed must be from 0"),
        (["compare", "wp.h5", "wp.h5", "--seeds", "3"], "--seeds has no meaning for finished solution files"),
        (["compare", "wp.h5", "--overwrite"], "--overwrite has no meaning without --csv FILE"),
        (["compare", "wp.h5", "--csv", "-", "--json"], "--csv - and --json would both be printed"),
        (["compare", "wp.h5", "--csv", "wp.h5", "--overwrite"], "--csv wp.h5 is an input"),
        (["compare", "wp.h5", "--csv", "no/where.csv"], "folder no of the output does not exist"),
        (["compare", "wp.h5", "wp.h5"], "is given twice"),
        (["generate", "wave-packet", "--n", "0", "--out", "n.h5"], "n must be from 1"),
        (["generate", "wave-packet", "--n", "3", "--noise", "-1", "--out", "n.h5"], "noise must be ≥ 0"),
        (["generate", "wave-packet", "--n", "3", "--out", "wp.h5"], "exists"),
        (["models", "show", "nope"], "no model is called 'nope'"),
        (["methods", "show", "nope"], "no method is called 'nope'"),
        (["inspect", "absent.h5"], "does not exist"),
    ],
)
def test_bad_input_ends_in_2_with_one_line(
    command: Command, wave_packets: Path, arguments: list[str], line: str
) -> None:
    done = command(*arguments, cwd=wave_packets.parent)
    assert done.returncode == 2, done
    assert line in done.stderr
    assert done.stderr.startswith("invsolve: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert [p.name for p in wave_packets.parent.iterdir()] == ["wp.h5"]


def test_a_model_attribute_runs_no_code(command: Command, wave_packets: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef F(x, identifiers): return x\n")
    with h5py.File(wave_packets, "a") as file:
        file.attrs["model"] = f"{tmp_path / 'evil.py'}:F"
    done = command("solve", wave_packets)
    assert done.returncode == 2
    assert "data must not run" in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def F(x, identifiers)\n", "cannot be imported: SyntaxError"),
        ("import no_such_thing\n", "cannot be imported: ModuleNotFoundError"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero (line 1)"),
        ("def G(x, identifiers): return x\n", "defines no 'F'; valid: G"),
        ("import sys\nsys.exit(0)\n", "cannot be imported: SystemExit: 0 (line 2)"),
        ("F = 3\n", "is no function F(x, identifiers) and no ForwardModel subclass"),
        ("def F(x, identifiers): raise ValueError('not\\ntoday')\n", "raises ValueError: not (at example 0; "),
        ("def F(x, identifiers): return x[:, :0]\n", "returned shape (12, 0) for x (12, 1)"),
        (
            "def F(x, identifiers): return float('nan') * x.expand(-1, 32)\n",
            "for all 12 examples model 'm.py:F' gives NaN or Inf",
        ),
    ],
)
def test_a_faulty_model_file_ends_in_2(command: Command, wave_packets: Path, text: str, line: str) -> None:
    with h5py.File(wave_packets, "a") as file:
        file["x0"] = np.full((12, 1), 10.0)
    (wave_packets.parent / "m.py").write_text(text)
    done = command("solve", "wp.h5", "--model", "m.py:F", cwd=wave_packets.parent)
    assert done.returncode == 2, done
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (wave_packets.parent / "wp.bfgs.h5").exists()


def test_the_users_own_models_from_file_and_module(command: Command, wave_packets: Path) -> None:
    folder = wave_packets.parent
    (folder / "mine.py").write_text(
        "import torch, invsolve\n"
        "from invsolve import Parameter\n"
        "def F(x, identifiers):\n"
        "    t = torch.linspace(0, 20, 32, dtype=x.dtype) - x\n"
        "    return torch.sin(t) * torch.exp(-t ** 2 / 8)\n"
        "class Packet(invsolve.ForwardModel):\n"
        "    '''A packet of mine.'''\n"
        "    class Options(invsolve.Options):\n"
        "        width: float = 2.0\n"
        "    parameters = (Parameter('t0', unit='s', lower=0, upper=20, initial=10),)\n"
        "    def forward(self, x, identifiers):\n"
        "        t = torch.linspace(0, 20, 32, dtype=x.dtype) - x\n"
        "        return torch.sin(t) * torch.exp(-t ** 2 / (2 * self.options.width ** 2))\n"
    )
    with h5py.File(wave_packets, "a") as file:
        file["x0"] = np.full((12, 1), 10.0)
    built_in = json.loads(command("solve", "wp.h5", "--json", cwd=folder).stdout)
    for model in ("mine.py:F", "mine:F", "mine.py:Packet"):
        done = command("solve", "wp.h5", "--model", model, "--json", "--overwrite", cwd=folder)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["model"] == model
        assert document["loss_initial"]["mean"] == pytest.approx(built_in["loss_initial"]["mean"])
    shown = command("models", "show", "mine.py:Packet", cwd=folder).stdout
    for words in ("A packet of mine", "t0", "width", "2.0"):
        assert words in shown
    done = command("solve", "wp.h5", "--model", "mine.py:Packet", "-M", "width=x", cwd=folder)
    assert done.returncode == 2
    assert "option 'width' of model 'mine.py:Packet'" in done.stderr


def test_what_a_model_prints_stays_out_of_the_result(command: Command, wave_packets: Path) -> None:
    (wave_packets.parent / "loud.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "print('imported')\n"
        "@dataclasses.dataclass\n"
        "class Setting:\n"
        "    gain: float = 1.0\n"
        "def F(x, identifiers):\n"
        "    print('called')\n"
        "    return Setting().gain * x.expand(-1, 32)\n"
    )
    with h5py.File(wave_packets, "a") as file:
        file["x0"] = np.full((12, 1), 10.0)
    done = command("solve", "wp.h5", "--model", "loud.py:F", "--json", cwd=wave_packets.parent)
    assert json.loads(done.stdout)["n"] == 12
    assert "called" in done.stderr


def test_config_gives_what_flags_give_and_flags_win(command: Command, wave_packets: Path) -> None:
    config = wave_packets.parent / "run.toml"
    config.write_text(
        'method = "gd"\nmax-evaluations = 9\nseed = 5\nthreads = 2\njson = true\n'
        '[options]\noptimizer = "adam"\npatience = 7\n'
    )
    done = command("solve", wave_packets, "--config", config, "--seed", "6", "-O", "patience=8")
    document = json.loads(done.stdout)
    assert document["method"] == "gd"
    assert document["evaluations"]["max"] == 9
    attributes = invsolve.read_solution(document["out"]).attributes
    assert attributes["seed"] == 6
    assert attributes["threads"] == 2
    assert json.loads(attributes["method_options"])["optimizer"] == "adam"
    assert json.loads(attributes["method_options"])["patience"] == 8

    config.write_text("[options.bgfs]\nmax_iterations = 3\n")
    done = command("compare", wave_packets, "--config", config)
    assert done.returncode == 2
    assert "no method is called 'bgfs'; did you mean 'bfgs'?" in done.stderr

    config.write_text("methodd = 3\n")
    done = command("solve", wave_packets, "--config", config)
    assert done.returncode == 2
    assert "sets 'methodd', which is no flag here; did you mean 'method'?" in done.stderr


def test_compare_runs_methods_on_the_same_starts(command: Command, wave_packets: Path) -> None:
    done = command("compare", wave_packets, "--methods", "bfgs,gd,jpo", "-O", "jpo.steps=30", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "invsolve-compare/1"
    assert document["baseline"] == "bfgs"
    for name, m in document["methods"].items():
        assert set(m) >= SOLVE_KEYS | {"better", "tied", "worse", "log10_ratio"}, name
        assert m["better"] + m["tied"] + m["worse"] == 12
        assert m["loss_initial"] == document["methods"]["bfgs"]["loss_initial"]
    table = command("compare", wave_packets, "--methods", "bfgs,gd").stdout
    for words in ("method", "better", "gd", "solved"):
        assert words in table


def test_multistart_tells_how_it_came_to_its_solutions(command: Command, wave_packets: Path) -> None:
    folder = wave_packets.parent
    done = command("solve", "wp.h5", "--method", "multistart", "-O", "starts=16", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) >= SOLVE_KEYS
    assert sum(document["found_by"].values()) == 12
    assert document["found_by"]["multistart"] > 0
    assert document["starts"]["max"] == 16
    assert 1 <= document["minima"]["mean"] <= document["starts"]["mean"]
    table = command("inspect", "wp.multistart.h5", cwd=folder).stdout
    assert f"{document['found_by']['multistart']} found by a local solve from one of further starts" in table
    assert f"{document['starts']['mean']:.1f} starts per example, which led to" in table
    document = json.loads(command("compare", "wp.h5", "--methods", "bfgs,multistart", "--json", cwd=folder).stdout)
    assert document["methods"]["multistart"]["worse"] == 0
    assert "found_by" not in document["methods"]["bfgs"]


def test_compare_takes_finished_solutions_of_one_dataset(command: Command, wave_packets: Path) -> None:
    folder = wave_packets.parent
    for method in ("bfgs", "gd"):
        assert command("solve", "wp.h5", "--method", method, cwd=folder).returncode == 0
    document = json.loads(command("compare", "wp.bfgs.h5", "wp.gd.h5", "--json", cwd=folder).stdout)
    assert set(document["methods"]) == {"bfgs", "gd"}
    assert "solved" in document["methods"]["gd"]
    invsolve.write_dataset(
        folder / "other.h5", invsolve.generate("wave-packet", 12, seed=4, model_options={"samples": 32})
    )
    assert command("solve", "other.h5", cwd=folder).returncode == 0
    done = command("compare", "wp.gd.h5", "other.bfgs.h5", cwd=folder)
    assert done.returncode == 2
    assert "are not of the same dataset" in done.stderr
    assert command("solve", "wp.h5", "--prior", "--out", "prior.h5", cwd=folder).returncode == 0
    done = command("compare", "wp.bfgs.h5", "prior.h5", cwd=folder)
    assert done.returncode == 2
    assert "prior True and False" in done.stderr


def test_compare_with_several_seeds(command: Command, wave_packets: Path) -> None:
    folder = wave_packets.parent
    arguments = ("compare", "wp.h5", "--methods", "bfgs,multistart,jpo", "--seed", "4", "-O", "jpo.steps=30")
    done = command(*arguments, "--seeds", "2", "--csv", "rows.csv", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document["seeds"] == [4, 5]
    methods = document["methods"]
    assert {name: m["seeds"] for name, m in methods.items()} == {"bfgs": [4], "multistart": [4, 5], "jpo": [4, 5]}
    assert [m["independent"] for m in methods.values()] == [True, True, False]
    assert methods["bfgs"] | {"p_value": None, "p_holm": None, "note": "baseline"} == methods["bfgs"]
    assert methods["multistart"]["p_holm"] == methods["multistart"]["p_value"] is not None
    assert (methods["jpo"]["p_value"], methods["jpo"]["note"]) == (None, "2 seeds")
    assert methods["jpo"]["interval"] == "hierarchical bootstrap over seeds and examples"
    assert methods["multistart"]["interval"] == "bootstrap over examples"
    rows = list(csv.DictReader((folder / "rows.csv").read_text().splitlines()))
    assert len(rows) == 3 * 2 * 12
    for name, m in methods.items():
        mine = [row for row in rows if row["method"] == name]
        assert {row["seed"] for row in mine} == {"4", "5"}
        of_runs = [row for row in mine if int(row["seed"]) in m["seeds"]]
        assert sum(int(row["evaluations"]) for row in of_runs) == m["evaluations"]["total"]
        assert sum(int(row["gradients"]) for row in of_runs) == m["gradients"]["total"]
        assert np.mean([float(row["loss"]) for row in of_runs]) == pytest.approx(m["loss"]["mean"], rel=1e-12)
        assert np.mean([row["solved"] == "yes" for row in of_runs]) == pytest.approx(m["solved"])
        for word in ("better", "tied", "worse"):
            assert sum(row["outcome"] == word for row in mine) == (0 if name == "bfgs" else m[word])
    # Each seed is that of a run of its own, and files of both say the same.
    for seed in (4, 5):
        for method, option in (("multistart", "starts=64"), ("jpo", "steps=30")):
            out = f"{method}{seed}.h5"
            words = ("solve", "wp.h5", "--method", method, "--seed", seed, "-O", option, "--out", out)
            assert command(*words, cwd=folder).returncode == 0
    assert command("solve", "wp.h5", "--seed", "1", cwd=folder).returncode == 0
    files = ("multistart5.h5", "jpo4.h5", "wp.bfgs.h5", "jpo5.h5", "multistart4.h5")
    done = command("compare", *files, "--json", cwd=folder)
    from_files = json.loads(done.stdout)
    assert from_files["profiles"]["data"]["solved"]["jpo"] == document["profiles"]["data"]["solved"]["jpo"]
    for name in ("multistart", "jpo"):
        differing = {k for k, v in methods[name].items() if from_files["methods"][name][k] != v}
        assert differing <= {"seconds"}, name
    done = command("compare", *files[:4], cwd=folder)
    assert done.returncode == 2
    assert done.stderr == (
        "invsolve: 'jpo' is given with seeds 4, 5, 'multistart' with 5; give files of the same seeds for both\n"
    )


def test_rows_of_a_comparison(command: Command, wave_packets: Path) -> None:
    folder = wave_packets.parent
    arguments = ("compare", "wp.h5", "--methods", "bfgs,gd", "--csv")
    printed = command(*arguments, "-", cwd=folder)
    assert printed.returncode == 0, printed.stderr
    assert "example,method,seed,loss,loss_initial,status,evaluations,gradients,solved,outcome\n" in printed.stdout
    assert printed.stdout.count("\n") == 1 + 2 * 12
    done = command(*arguments, "rows.csv", cwd=folder)
    assert (folder / "rows.csv").read_text() == printed.stdout
    assert "median loss" in done.stdout
    done = command(*arguments, "rows.csv", cwd=folder)
    assert done.returncode == 2
    assert "rows.csv exists" in done.stderr
    assert command(*arguments, "rows.csv", "--overwrite", cwd=folder).returncode == 0
    assert sorted(p.name for p in folder.iterdir()) == ["rows.csv", "wp.h5"]
    solution = invsolve.solve(wave_packets)
    rows = [row for row in csv.DictReader(printed.stdout.splitlines()) if row["method"] == "bfgs"]
    assert [float(row["loss"]) for row in rows] == solution.loss.tolist()
    assert [row["example"] for row in rows] == [str(name) for name in solution.example]
    assert {row["status"] for row in rows} == {"converged"}
    done = command("compare", "wp.h5", "--methods", "bfgs,gd", "--prior", "--csv", "-", cwd=folder)
    assert done.stdout.startswith("example,method,seed,loss,loss_prior,loss_initial,status,")


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_of_a_comparison_fits(command: Command, wave_packets: Path, width: int) -> None:
    arguments = ("compare", wave_packets, "--methods", "bfgs,multistart,neural-adjoint")
    options = ("-O", "neural-adjoint.simulations=20", "-O", "neural-adjoint.starts=4")
    done = command(*arguments, *options, env=os.environ | {"COLUMNS": str(width)})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith(("bfgs", "multistart", "neural-adjoint")) for line in lines) == 6
    assert lines[4].rstrip().endswith("one seed")
    assert re.search(r"^multistart .*[·▁-█]{20} $", done.stdout, flags=re.MULTILINE)


def test_inspect_tells_what_is_in_a_file(command: Command, wave_packets: Path) -> None:
    folder = wave_packets.parent
    assert command("solve", "wp.h5", cwd=folder).returncode == 0
    dataset = json.loads(command("inspect", "wp.h5", "--json", cwd=folder).stdout)
    assert "dataset of 12 examples" in dataset["kind"]
    assert dataset["arrays"]["targets"] == {"shape": [12, 32], "dtype": "float64", "unit": "", "filters": []}
    assert dataset["command"] == "invsolve solve wp.h5"
    solution = command("inspect", "wp.bfgs.h5", cwd=folder).stdout
    for words in ("solution of 12 examples", "grad_norm", "input_sha256", "converged"):
        assert words in solution
    with h5py.File(folder / "foreign.h5", "w") as file:
        file["entry/title"] = "nothing to solve"
        file.attrs["settings"] = '{"a": NaN}'
    assert json.loads(command("inspect", "foreign.h5", "--json", cwd=folder).stdout)["attributes"] == {
        "settings": '{"a": NaN}'
    }
    foreign = command("inspect", "foreign.h5", cwd=folder).stdout
    assert "entry/title" in foreign
    assert "has no 'targets'" in " ".join(foreign.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_its_code_with_what_was_reached(wave_packets: Path, number: signal.Signals) -> None:
    folder = wave_packets.parent
    (folder / "slow.py").write_text(
        "import time, torch\n"
        "def F(x, identifiers):\n"
        "    open('begun', 'w').close()\n"
        "    time.sleep(0.05)\n"
        "    t = torch.linspace(0, 20, 32, dtype=x.dtype) - x\n"
        "    return torch.sin(t) * torch.exp(-t ** 2 / 8)\n"
    )
    with h5py.File(wave_packets, "a") as file:
        file["x0"] = np.full((12, 1), 10.0)
    words = [sys.executable, "-m", "invsolve", "solve", "wp.h5", "--model", "slow.py:F", "-O", "grad_tolerance=0"]
    process = subprocess.Popen(
        [*words, "--batch-size", "2"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(1200):
        if (folder / "begun").exists():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "--resume' goes on" in err
    assert "not_run: the run ended before this example was begun" in " ".join(out.split())
    solution = invsolve.read_solution(folder / "wp.bfgs.h5")
    assert (solution.status == Status.NOT_RUN).any()
    resumed = subprocess.run([*words, "--resume", "--json"], cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(resumed.stdout)["status"]["not_run"] == 0


def test_progress_is_shown_on_a_terminal_alone(wave_packets: Path) -> None:
    main, terminal = pty.openpty()
    words = [sys.executable, "-m", "invsolve", "solve", str(wave_packets), "--method", "jpo", "-O", "steps=300"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=terminal, env=environment, check=True, text=True)
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert b"evaluations/s" in shown
    assert b"evaluations/s" not in done.stdout.encode()


def test_a_closed_pipe_is_no_fault(wave_packets: Path) -> None:
    for flag in ("", "--json"):
        script = f"{sys.executable} -m invsolve inspect {wave_packets} {flag} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert "Traceback" not in done.stderr
        assert done.stdout.strip() == "141"  # as a shell reports SIGPIPE
    closed = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m invsolve models >&-"], capture_output=True, check=False
    )
    assert closed.returncode == 0
    assert not closed.stderr
