"""Models and methods by name, options, configurations, durations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field

import invsolve
from invsolve.config import duration_seconds, load_config
from invsolve.inspection import describe_method, list_entries
from invsolve.models.parameters import Normal, Parameter, Uniform
from invsolve.options import Options, describe_options, parse_options
from invsolve.registry import METHODS, MODELS, registered


def test_built_in_entries_are_listed_with_their_package() -> None:
    for kind, table in (("models", MODELS), ("methods", METHODS)):
        rows = {name: (package, about) for name, package, about in list_entries(kind)}
        for name in table:
            assert rows[name][0] == "invsolve"
            assert len(rows[name][1]) > 20


def test_another_packages_entry_point_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pluggy_models.py").write_text(
        "import invsolve\n"
        "class Twice(invsolve.ForwardModel):\n"
        "    '''Twice x.'''\n"
        "    parameters = (invsolve.Parameter('a'),)\n"
        "    def forward(self, x, identifiers): return 2 * x\n"
    )
    info = tmp_path / "pluggy_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pluggy-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[invsolve.models]\ntwice = pluggy_models:Twice\nbilliards = x:Y\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registered("models")["twice"].package == "pluggy-models"
    assert registered("models")["billiards"].package == "invsolve"  # a built-in name cannot be taken over
    assert invsolve.load_model("twice")(torch.ones(1, 1)).item() == 2.0
    assert invsolve.load_model("twice").name == "twice"


@pytest.mark.parametrize("model", [lambda x, identifiers: x, "module:function"])
def test_functions_take_no_options(model: Any, tmp_path: Path) -> None:
    if isinstance(model, str):
        (tmp_path / "m.py").write_text("def F(x, identifiers): return x\n")
        model = f"{tmp_path}/m.py:F"
    with pytest.raises(invsolve.OptionError, match="takes no options here, found 'a'"):
        invsolve.load_model(model, a=1)


def test_a_model_file_can_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("FACTOR = 3\n")
    (tmp_path / "m.py").write_text("from neighbour_of_mine import FACTOR\ndef F(x, identifiers): return FACTOR * x\n")
    assert invsolve.load_model(f"{tmp_path}/m.py:F")(torch.ones(1, 1)).item() == 3


def test_loading_something_else_is_refused() -> None:
    with pytest.raises(invsolve.ModelError, match="no function"):
        invsolve.load_model(3)  # type: ignore[arg-type]
    with pytest.raises(invsolve.ModelError, match="write path/to/file.py:NAME"):
        invsolve.load_model("file.py:")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"lower": 2, "upper": 1, "initial": 1}, r"bounds \[2.0, 1.0\] are the wrong way round"),
        ({"lower": 2}, "initial 0.0 is outside its bounds"),
        ({"scale": "log", "initial": 1}, "a log scale needs lower ≥ 0"),
        ({"scale": "cubic"}, "scale"),
        ({"initial": "one"}, "initial"),
        ({"bound": 1}, "bound"),
    ],
)
def test_parameters_that_make_no_sense(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Parameter("a", **fields)


def test_typical_changes() -> None:
    assert Parameter("a", prior=Normal(0, 3)).typical == 3
    assert Parameter("a", lower=0, upper=10, prior=Uniform(2, 4)).typical == 1
    assert Parameter("a", lower=0, upper=10).typical == 5
    assert Parameter("a", lower=0).typical == 1
    with pytest.raises(ValueError, match="low must be below high"):
        Uniform(1, 1)
    with pytest.raises(ValueError, match="std must be > 0"):
        Normal(0, 0)


class Example(Options):
    count: int = Field(3, ge=1, lt=9, description="how many")
    rate: float | None = Field(None, gt=0, description="how fast")
    on: bool = Field(False, description="whether")


def test_options_convert_text_and_refuse_nonsense() -> None:
    assert parse_options(Example, {"count": "4", "rate": "1e-3", "on": "true"}, "x") == Example(
        count=4, rate=1e-3, on=True
    )
    with pytest.raises(invsolve.OptionError, match="x has no option 'cuont'; did you mean 'count'"):
        parse_options(Example, {"cuont": 1}, "x")
    with pytest.raises(invsolve.OptionError, match=r"found '9'; it takes int ≥ 1, < 9, default 3"):
        parse_options(Example, {"count": "9"}, "x")


def test_options_describe_themselves() -> None:
    described = describe_options(Example)
    assert described["count"] == {"type": "int", "limits": "≥ 1, < 9", "default": 3, "description": "how many"}
    assert described["rate"]["type"] == "float|none"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_option_of_a_method_is_described(name: str) -> None:
    for key, option in describe_method(name)["options"].items():
        assert option["description"], key


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("45s", 45), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3", "0", "3x", "1h30", "m"])
def test_no_durations(text: str) -> None:
    with pytest.raises(invsolve.OptionError):
        duration_seconds(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = ", "is not TOML"),
        ("options = 3", r"must be a table \[options\]"),
        ("data = 'x'", "sets 'data', which is no flag"),
    ],
)
def test_configs_that_are_wrong(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(invsolve.OptionError, match=line):
        load_config(path, {"data": False, "seed": False, "as_json": True})
