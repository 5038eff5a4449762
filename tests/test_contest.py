"""A comparison repeated over the first examples or over budgets: what is run, what is told, what is refused."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

import invsolve
from invsolve import console
from invsolve.analysis.comparison import Comparison
from invsolve.cli import app
from invsolve.commands import comparing
from invsolve.contest import ends_first
from invsolve.control import Control, Progress
from invsolve.data.dataset import Dataset
from invsolve.run import Run
from tests.conftest import Command

JPO = {"jpo": {"steps": 10, "proposals": "none", "restarts": 2}}


@pytest.fixture(scope="module", name="data")
def _data() -> Dataset:
    return invsolve.generate("wave-packet", 12, seed=3, model_options={"samples": 32})


def alike(a: Comparison, b: Comparison) -> bool:
    """Whether both tell the same of all methods, but for the time it took."""

    def told(c: Comparison) -> dict[str, Any]:
        return {name: {k: v for k, v in m.items() if k != "seconds"} for name, m in c.methods.items()}

    return told(a) == told(b)


def test_what_is_solved_by_rows_is_run_once_and_is_what_the_first_examples_alone_give(data: Dataset) -> None:
    methods = ["bfgs", "multistart"]
    found = invsolve.compare(data, methods=methods, seeds=2, examples=[2, 5, "all"])
    assert found.study is not None
    assert list(found.study.points) == [2, 5, 12]
    assert found.study.points[12].methods is found.methods
    first = data.first(5, (1,))
    assert alike(found.study.points[5], invsolve.compare(first, methods=methods, seeds=2))
    alone = invsolve.solve(first, method="multistart", seed=1)
    sliced = found.study.points[5].contenders["multistart"].runs[1]
    assert all((alone.columns()[name] == values).all() for name, values in sliced.columns().items())
    assert set(alone.columns()) == set(sliced.columns())
    assert found.study.points[5].methods["bfgs"]["seconds"] is None
    assert len(found.study.points[5].source.dataset or ()) == 5


def test_joint_methods_are_run_anew_with_the_first_examples_alone(data: Dataset) -> None:
    found = invsolve.compare(data, methods=["bfgs", "jpo"], seeds=2, examples=["6"], options=JPO)
    assert found.study is not None
    assert list(found.study.points) == [6]
    alone = invsolve.compare(data.first(6, (1,)), methods=["bfgs", "jpo"], seeds=2, options=JPO)
    assert alike(found.study.points[6], alone)
    six, twelve = (c.contenders["jpo"].runs[0] for c in (found.study.points[6], found))
    assert (six.evaluations != twelve.evaluations[:6]).any()
    assert six.attributes["seconds"] > 0


def test_first_examples_that_all_fail_do_not_end_the_comparison(data: Dataset) -> None:
    targets = np.array(data.targets)
    targets[:3] = np.nan  # nothing observed
    found = invsolve.compare(replace(data, targets=targets), methods=["bfgs", "jpo"], examples=[3, 4], options=JPO)
    assert found.study is not None
    three, four = (point.methods["jpo"] for point in found.study.points.values())
    assert three["status"]["nonfinite"] == four["status"]["nonfinite"] == 3
    assert (three["tied"], three["solved"]) == (3, 0)
    assert four["evaluations"]["max"] != found.methods["jpo"]["evaluations"]["max"]  # a run of its own


def test_all_methods_run_anew_within_each_budget(data: Dataset) -> None:
    found = invsolve.compare(data, methods=["bfgs", "multistart"], budgets=[6, 40])
    assert found.study is not None
    assert found.study.axis == "budgets"
    for limit, point in found.study.points.items():
        assert max(m["evaluations"]["max"] for m in point.methods.values()) <= limit
        assert alike(
            point,
            invsolve.compare(data, methods=["bfgs", "multistart"], settings=invsolve.Settings(max_evaluations=limit)),
        )
    assert found.methods["multistart"]["evaluations"]["max"] > 40
    few, many = (found.study.points[b].methods["multistart"]["solved"] for b in (6, 40))
    assert few < many


def runs_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made, solve = [], Run.solve

    def told(run: Run, *arguments: Any) -> Any:
        s = run.settings
        made.append(f"{s.method} {len(run.dataset)} {s.max_evaluations} {s.seed}")
        return solve(run, *arguments)

    monkeypatch.setattr(Run, "solve", told)
    return made


def test_nothing_is_run_twice_and_what_tells_most_comes_first(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = runs_made(monkeypatch)
    invsolve.compare(data, methods=["bfgs", "jpo"], seeds=2, examples=[2, 3, 4, "all"], options=JPO)
    assert made == ["bfgs 12 None 0", *(f"jpo {n} None {seed}" for n in (12, 2, 3, 4) for seed in (0, 1))]
    made.clear()
    invsolve.compare(data, methods=["gd", "bfgs"], budgets=[4, 6, 8, 9], settings=invsolve.Settings(max_evaluations=9))
    assert made == [f"{method} 12 {limit} 0" for limit in (9, 4, 6, 8) for method in ("gd", "bfgs")]
    assert ends_first([1, 2, 3, 4, 5, 6, 7]) == [1, 7, 4, 2, 5, 3, 6]
    assert ends_first([5]) == [5]


def test_shares_are_of_each_seed(data: Dataset) -> None:
    found = invsolve.compare(data, methods=["bfgs", "multistart"], seeds=3, examples=[4, 12])
    assert found.study is not None
    better, solved = found.study.better("multistart"), found.study.solved("bfgs")
    assert solved is not None
    assert better.shape == solved.shape == (2, 3)
    for i, point in enumerate(found.study.points.values()):
        assert better[i].mean() == pytest.approx(point.methods["multistart"]["better"] / (3 * point.n))
        assert solved[i].tolist() == [point.methods["bfgs"]["solved"]] * 3
    assert not found.study.better("bfgs").any()
    unknown = invsolve.compare(Dataset(data.targets, model="wave-packet", model_options={"samples": 32}),
        methods=["bfgs"], examples=[4])  # fmt: skip
    assert unknown.study is not None
    assert unknown.study.solved("bfgs") is None


@pytest.mark.parametrize("axis", ["examples", "budgets"])
def test_what_an_interruption_left_out_is_told(data: Dataset, axis: str) -> None:
    stages: list[str] = []

    def display(p: Progress) -> None:
        stages.append(p.stage)
        if p.stage.startswith("5/"):  # jpo with 4 examples, bfgs within 30 evaluations
            control.interrupted = True

    ticks = itertools.count()
    control = Control(display, clock=lambda: float(next(ticks)))
    more: dict[str, Any] = {"examples": [2, 3, 4, 12]} if axis == "examples" else {"budgets": [10, 20, 30]}
    found = invsolve.compare(data, methods=["bfgs", "jpo"], options=JPO, control=control, **more)
    assert found.study is not None
    if axis == "examples":
        assert list(found.study.points) == [2, 3, 12]
        assert found.study.not_run == (4,)
        assert {stage.split(":")[0] for stage in stages} == {
            "1/5 bfgs",
            "2/5 jpo",
            "3/5 jpo n=2",
            "4/5 jpo n=3",
            "5/5 jpo n=4",
        }
    else:
        assert list(found.study.points) == [10]
        assert found.study.not_run == (20, 30)
        assert {stage.split(":")[0] for stage in stages} == {
            "1/8 bfgs",
            "2/8 jpo",
            "3/8 bfgs ≤10",
            "4/8 jpo ≤10",
            "5/8 bfgs ≤30",
        }
    assert not any(stage.endswith(": jpo") for stage in stages)  # it is the run's name
    assert any(stage.endswith(": bfgs") for stage in stages)  # jpo's refinement
    assert found.to_json()["not_run"] == list(found.study.not_run)


def test_an_early_interruption_leaves_the_comparison_alone(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    control = Control()
    control.interrupted = True
    found = invsolve.compare(data, methods=["bfgs", "jpo"], examples=[2, "all"], options=JPO, control=control)
    assert found.to_json()["by_examples"] == []
    console.show_comparison(found.to_json())
    assert "not run, for the end came before: 2, 12" in capsys.readouterr().out
    comparing._tell_comparison(found, comparing.STDOUT, overwrite=False, as_json=False)
    printed, told = capsys.readouterr()
    assert printed.count("\n12,") == 2 * 12
    assert told == "invsolve: not run, for the end came before: 2, 12\n"


def test_rows_tell_where_they_belong(data: Dataset) -> None:
    def column(**more: Any) -> list[Any]:
        header, *rows = invsolve.compare(data, methods=["bfgs"], **more).rows()
        assert header[1] == "example"
        assert {len(row) for row in rows} == {len(header)}
        return [header[0], *(row[0] for row in rows)]

    assert column(examples=[2, 4]) == ["n", *[2] * 2, *[4] * 4, *[12] * 12]
    assert column(examples=[2, "all"]) == ["n", *[2] * 2, *[12] * 12]
    assert column(budgets=[5]) == ["max_evaluations", *[5] * 12, *[""] * 12]
    limited = invsolve.Settings(max_evaluations=9)
    assert column(budgets=[5, 9], settings=limited) == ["max_evaluations", *[5] * 12, *[9] * 12]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--examples", "8,2"], "examples must be numbers that ascend, such as 8,32,128; found 8, 2"),
        (["--examples", "2,2"], "examples must be numbers that ascend, such as 8,32,128; found 2, 2"),
        (["--examples", "12,all"], "examples must be numbers that ascend, such as 8,32,128; found 12, 12"),
        (["--examples", ","], "examples must be numbers that ascend, such as 8,32,128; found none"),
        (["--examples", "1,2"], "examples must be from 2 to the 12 of the dataset, found 1"),
        (["--examples", "2,13"], "examples must be from 2 to the 12 of the dataset, found 13"),
        (["--examples", "2,x"], "examples must be whole numbers such as 8,32,128 or all, found 'x'"),
        (["--budgets", "all"], "budgets must be whole numbers such as 8,32,128, found 'all'"),
        (["--budgets", "2,10"], "budgets must be from 3 to 1000000000, found 2"),
        (["--budgets", "5,10", "--max-evaluations", "9"], "budgets must be from 3 to the 9 of max_evaluations"),
        (["--budgets", "5", "--examples", "2"], "examples and budgets are two questions"),
        (["wp.h5", "--examples", "2"], "--examples has no meaning for finished solution files; leave it out"),
        (["wp.h5", "--budgets", "5"], "--budgets has no meaning for finished solution files; leave it out"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    words: list[str], message: str, wave_packets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(wave_packets.parent)
    made = runs_made(monkeypatch)
    with pytest.raises(invsolve.OptionError, match="^" + message.replace(".", r"\.")):
        get_command(app).main(["compare", "wp.h5", *words], standalone_mode=False)
    assert not made
    with pytest.raises(invsolve.OptionError, match=r"examples must be whole numbers .* found '2\.5'"):
        invsolve.compare("wp.h5", examples=[2.5])  # type: ignore[list-item]


def test_the_command_tells_all_of_it(command: Command, wave_packets: Path) -> None:
    folder = wave_packets.parent
    config = folder / "run.toml"
    config.write_text("examples = [2, 4, 12]\nmethods = ['bfgs', 'multistart']\n")
    done = command("compare", "wp.h5", "--config", "run.toml", "--csv", "rows.csv", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document["schema"] == "invsolve-compare/1"
    assert (document["n"], document["not_run"]) == (12, [])
    assert [point["n"] for point in document["by_examples"]] == [2, 4, 12]
    assert document["by_examples"][2]["methods"] == document["methods"]
    for point in document["by_examples"]:
        for name, m in point["methods"].items():
            assert m.keys() == document["methods"][name].keys()
            assert m["better"] + m["tied"] + m["worse"] == m["n"] == point["n"]
    rows = list(csv.DictReader((folder / "rows.csv").read_text().splitlines()))
    assert [sum(row["n"] == n for row in rows) for n in ("2", "4", "12")] == [4, 8, 24]


def test_the_table_of_a_study_fits_and_goes_on_below(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    sizes = list(range(2, 13))
    document = invsolve.compare(data, methods=["bfgs", "multistart"], examples=sizes).to_json()
    console.show_comparison(document | {"not_run": [13]})
    table = capsys.readouterr().out.splitlines()
    assert max(map(len, table)) <= 80
    heads = [line.split()[4:] for line in table if line.startswith("first examples, n =")]
    assert [len(head) for head in heads] == [8, 3]
    assert list(map(int, itertools.chain(*heads))) == sizes
    starts = [i for i, line in enumerate(table) if line.startswith("first examples, n =")]
    shown = [s for i in starts for s in table[i + 2].split()[1:]]  # of multistart, below "better than bfgs"
    assert shown == [f"{p['methods']['multistart']['better'] / p['n']:.1%}" for p in document["by_examples"]]
    spent = [s for i in starts for s in table[i + 8].split()[1:]]
    assert spent == [f"{p['methods']['multistart']['evaluations']['mean']:.0f}" for p in document["by_examples"]]
    assert "not run, for the end came before: 13" in table
