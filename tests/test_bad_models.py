"""What can be wrong with a user's model, each with one clear line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import invsolve
from tests.conftest import Command

MODELS = """
import torch
from invsolve import ForwardModel, Options, Parameter, Uniform

class Fine(ForwardModel):
    class Options(Options):
        count: int = 3
    parameters = (Parameter("a", lower=0, upper=3, initial=1.5),)
    def forward(self, x, g): return 1 * x

class WrongWay(Fine):
    @property
    def parameters(self): return (Parameter("a", lower=2, upper=1, initial=1.5),)

class Outside(Fine):
    @property
    def parameters(self): return (Parameter("a", lower=2, upper=3, initial=1.5),)

class NoPrior(Fine):
    @property
    def parameters(self): return (Parameter("a", prior=3),)

class PriorOutside(Fine):
    @property
    def parameters(self): return (Parameter("a", lower=2, upper=3, initial=2.5, prior=Uniform(5, 6)),)

class Single(Fine):
    def forward(self, x, g): return x.float()

class Mixing(Fine):
    def forward(self, x, g): return x / x.sum()

class BadConstants(Fine):
    def make_constants(self): return {"t": torch.zeros(3)[5]}

class Twice(Fine):
    @property
    def parameters(self): return (Parameter("a"), Parameter("a"))

class Unnamed(Fine):
    @property
    def parameters(self): return (Parameter("a" + chr(0)),)

class Unending(Fine):
    @property
    def parameters(self): return (Parameter("a", prior=Uniform(0, float("inf"))),)

class PlainOptions(Fine):
    class Options: count = 3

class Guessing(Fine):
    def initial_guess(self, targets, g): return targets + 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.py").write_text(MODELS)
    targets = np.linspace(0.1, 1, 5)[:, None]
    invsolve.write_dataset(tmp_path / "d.h5", invsolve.Dataset(targets=targets))
    invsolve.write_dataset(tmp_path / "x0.h5", invsolve.Dataset(targets=targets, x0=np.array([-1.0])))
    return tmp_path


@pytest.mark.parametrize(
    ("data", "name", "flags", "line"),
    [
        ("d", "WrongWay", "", "parameter 'a': bounds [2.0, 1.0] are the wrong way round; swap them"),
        ("d", "Outside", "", "parameter 'a': initial 1.5 is outside its bounds [2.0, 3.0]"),
        ("d", "NoPrior", "", "cannot be made: prior: Input should be"),
        ("d", "PriorOutside", "", "parameter 'a': its prior lies outside its bounds [2.0, 3.0]"),
        ("x0", "Fine", "", "x0 of example 0 has a = -1, outside the bounds [0, 3]; move it inside"),
        (
            "d",
            "Guessing",
            "",
            "the initial guess of model 'm.py:Guessing' of example 0 has a = 7.1, outside",
        ),
        ("d", "Single", "", "returned float32 where float64 came in; keep the dtype of x, or solve with dtype float32"),
        ("d", "Mixing", "", "mixes rows: x of example"),
        ("d", "BadConstants", "", "cannot be made: IndexError: index 5 is out of bounds"),
        ("d", "Twice", "", "two parameters are called 'a'; rename one"),
        ("d", "Unnamed", "", "name and unit must be printable text"),
        ("d", "Unending", "", "Input should be a finite number"),
        ("d", "PlainOptions", "", "its class Options must be a subclass of invsolve.Options"),
        ("d", "Fine", "-M count=two", "option 'count' of model 'm.py:Fine': Input should be a valid integer"),
        ("d", "Fine", "--prior", "prior: model 'm.py:Fine' has none"),
        ("d", "Fine", "--covariance --max-evaluations 3", "max_evaluations must be at least 4 here"),
    ],
)
def test_one_line_tells_what_is_wrong(
    command: Command, folder: Path, data: str, name: str, flags: str, line: str
) -> None:
    done = command("solve", f"{data}.h5", "--model", f"m.py:{name}", *flags.split(), cwd=folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert line in done.stderr
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith("__")) == ["d.h5", "m.py", "x0.h5"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "nothing to check; name DATA.h5, a model with --model, or a method with --method"),
        ("d.h5", "the data name no model"),
        ("--model m.py:Fine", "parameter 'a' has no prior; without priors, name a DATA.h5 to check it on"),
        ("--method nope", "no method is called 'nope'"),
        ("d.h5 --method bfgs", "data has no meaning where a method is checked"),
        ("--method bfgs --seed 3", "--seed has no meaning where a method is checked"),
        ("d.h5 --model m.py:Fine -O a=1", "-O has no meaning without --method"),
        ("--model m.py:Fine --sigma s", "--sigma has no meaning without DATA.h5"),
        ("d.h5 --model m.py:Fine --device cuda:99", "device 'cuda:99' is not there"),
        ("--method bfgs -O nope=1", "has no option 'nope'"),
    ],
)
def test_check_says_what_it_needs(command: Command, folder: Path, words: str, line: str) -> None:
    done = command("check", *words.split(), cwd=folder)
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1
    assert line in done.stderr
