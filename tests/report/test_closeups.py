"""Pictures of single examples: fits, gaps, images, a model's own drawing, the loss around solutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

import invsolve
from invsolve.analysis.comparison import Comparison
from invsolve.analysis.shown import around, fits
from invsolve.models.scene import Scene
from invsolve.pipeline import compare, compare_solutions
from invsolve.report.picture import Picture
from invsolve.report.pictures import MAKERS, pictures_of
from invsolve.report.saving import PAPERS, save_pictures, write_figure
from invsolve.report.style import PALETTE
from tests.report.test_pictures import colours


def line(x: torch.Tensor, identifiers: Any = None) -> torch.Tensor:
    """y (b, 12) = x0 + x1 t; raises where x0 is above 100."""
    if bool((x[:, 0] > 100).any()):
        raise ValueError("too far")
    return x[:, :1] + x[:, 1:2] * torch.linspace(0, 1, 12, dtype=x.dtype)


def made(model: str, n: int, methods: tuple[str, ...] = ("bfgs",), **options: Any) -> Comparison:
    data = invsolve.generate(model, n, model_options=options)
    return compare(data, None, methods, settings=invsolve.Settings(max_evaluations=6))


def of(comparison: Comparison, kind: str, *examples: int) -> Picture:
    picture = MAKERS[kind](comparison, examples)
    assert isinstance(picture, Picture), picture
    return picture


@pytest.mark.parametrize(
    ("model", "options", "methods"),
    [
        ("wave-packet", {}, ("bfgs", "gd", "lm", "lbfgs")),
        ("gaussian-2d", {"size": 6}, ("bfgs", "lm")),
        ("billiards", {}, ("bfgs", "multistart")),
        ("sine", {}, ("bfgs",)),
    ],
)
def test_any_kind_of_y_is_drawn_in_the_palette(model: str, options: dict[str, Any], methods: tuple[str, ...]) -> None:
    found = pictures_of(made(model, 3, methods, **options))
    scatter = ["scatter"] if len(methods) > 1 else []
    last = ["status", "estimates", "gallery", "landscape"]
    assert [p.name for p in found] == ["waterfall", *scatter, "profile", "curves", *last]
    for picture in found[-3:]:
        figure = picture.draw()
        figure.draw_without_rendering()
        assert {c.lower() for c in colours(figure)} <= set(PALETTE.values()), picture.name


def test_fits_are_what_f_gives_and_nan_where_it_fails() -> None:
    data = invsolve.Dataset(targets=np.zeros((3, 12)), x0=np.ones((3, 2)))
    found = compare(data, line, ("bfgs",))
    solution = found.solutions["bfgs"]
    solution.x[1], solution.x[2] = [2.0, 3.0], [101.0, 0.0]
    model = found.source.model
    assert model is not None
    np.testing.assert_allclose(fits(data, model, found.solutions, 1).y["bfgs"], 2 + 3 * np.linspace(0, 1, 12))
    assert np.isnan(fits(data, model, found.solutions, 2).y["bfgs"]).all()
    assert len(of(found, "gallery", 1, 2).draw().axes) == 4


def test_what_was_not_observed_is_shaded() -> None:
    targets = np.random.default_rng(0).normal(size=(2, 12))
    targets[:, 3:6] = targets[:, 11] = np.nan
    found = compare(invsolve.Dataset(targets=targets, x0=np.ones((2, 2))), line, ("bfgs",))
    figure = of(found, "gallery").draw()
    shaded = [p.get_extents().transformed(figure.axes[0].transData.inverted()) for p in figure.axes[0].patches]
    assert [(round(b.x0, 6), round(b.x1, 6)) for b in shaded] == [(2.5, 5.5), (10.5, 11.5)]
    assert "not observed" in [t.get_text() for t in figure.legends[0].get_texts()]


def test_the_gallery_shows_the_best_the_median_and_the_worst() -> None:
    found = made("wave-packet", 7)
    order = np.argsort(found.solutions["bfgs"].loss)
    told = of(found, "gallery").caption
    assert told.startswith(f"Best: example {order[0]}, median: example {order[3]}, worst: example {order[-1]}, by the")


def test_a_model_draws_its_examples_with_what_it_is_given() -> None:
    scenes: list[Scene] = []

    class Drawn(invsolve.ForwardModel):
        parameters = (invsolve.Parameter("a", initial=1.0),)

        def forward(self, x: torch.Tensor, identifiers: Any) -> torch.Tensor:
            return x * identifiers["k"]

        def draw(self, axes: Any, scene: Scene) -> None:
            """A line.

            Not told.
            """
            scenes.append(scene)
            axes.plot([0, 1], color=scene.color)

    data = invsolve.Dataset(targets=[[2.0, 4.0], [3.0, 6.0]], identifiers={"k": [[1.0, 2.0], [1.0, 2.0]]})
    found = compare(data, Drawn(), ("bfgs", "gd"))
    picture = of(found, "gallery", 1)
    assert picture.caption == "example 1. A line."
    figure = picture.draw()
    assert len(figure.axes) == 2
    np.testing.assert_allclose(scenes[0].x, [3.0], rtol=1e-6)
    np.testing.assert_allclose(scenes[0].y, scenes[0].target, rtol=1e-6)
    assert list(scenes[0].identifiers["k"]) == [1.0, 2.0]  # type: ignore[index, call-overload]
    assert to_hex(figure.axes[1].lines[0].get_color()) == scenes[1].color == PALETTE["orange"]


def test_a_drawing_that_raises_is_told_in_one_line() -> None:
    class Broken(invsolve.ForwardModel):
        parameters = (invsolve.Parameter("a", initial=1.0),)

        def forward(self, x: torch.Tensor, identifiers: Any) -> torch.Tensor:
            return x

        def draw(self, axes: Any, scene: Scene) -> None:
            raise RuntimeError("no ink")

    found = compare(invsolve.Dataset(targets=[[2.0], [3.0]]), Broken(), ("bfgs",))
    with pytest.raises(invsolve.ModelError, match="draw of model .* raises RuntimeError: no ink"):
        of(found, "gallery").draw()


def test_the_loss_around_solutions_is_that_at_the_marks() -> None:
    found = made("wave-packet", 3, ("bfgs", "gd"))
    data, model = found.source.dataset, found.source.model
    assert data is not None
    assert model is not None
    for number in range(3):
        a = around(data, model, found.solutions, number)
        assert a is not None
        for name, end in a.ends.items():
            height = np.interp(end[0], a.slice.coordinates[0], a.slice.loss)
            assert height == pytest.approx(found.solutions[name].loss[number], rel=0.02)


def test_a_plane_goes_through_the_start_and_two_ends() -> None:
    t = torch.linspace(0, 1, 12, dtype=torch.float64)

    def cubic(x: torch.Tensor, identifiers: Any) -> torch.Tensor:
        return x[:, :1] + x[:, 1:2] * t + x[:, 2:3] * t**2

    data = invsolve.Dataset(targets=np.random.default_rng(0).normal(size=(2, 12)), x0=np.ones(3))
    found = compare(data, cubic, ("gd", "lm"), settings=invsolve.Settings(max_evaluations=6))
    assert found.source.model is not None
    a = around(data, found.source.model, found.solutions, 0)
    assert a is not None
    assert a.along == ("gd", "lm")
    np.testing.assert_allclose(a.ends["gd"], [1, 0], atol=1e-12)
    x0, x1, x2 = np.ones(3), found.solutions["gd"].x[0], found.solutions["lm"].x[0]
    i, j = 20, 50
    s, h = a.slice.coordinates[0][i], a.slice.coordinates[1][j]
    one, other = a.ends["lm"]  # lm's end is x0 + one·way + other·side
    x = x0 + s * (x1 - x0) + h * (x2 - x0 - one * (x1 - x0)) / other
    y = cubic(torch.from_numpy(x)[None], None)[0].numpy()
    assert a.slice.loss[i, j] == pytest.approx(0.5 * np.sum((y - data.targets[0]) ** 2))


def test_without_the_dataset_there_are_no_single_examples(tmp_path: Path) -> None:
    data = tmp_path / "d.h5"
    invsolve.write_dataset(data, invsolve.generate("sine", 3))
    invsolve.solve(data, out=tmp_path / "s.h5")
    data.unlink()
    found = compare_solutions([tmp_path / "s.h5"], least=1)
    assert not {"gallery", "landscape"} & {p.name for p in pictures_of(found)}
    told = MAKERS["gallery"](found, ())
    assert isinstance(told, str)
    assert "d.h5 does not exist; name it with --data" in told


def test_pictures_for_papers_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    found = [p for p in pictures_of(made("sine", 3)) if p.name in ("status", "curves")]
    kept = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        paths = save_pictures(found, folder, overwrite=False)
        assert [p.name for p in paths] == [f"{name}.{kind}" for name in ("curves", "status") for kind in PAPERS]
        kept.append([p.read_bytes() for p in paths])
    assert kept[0] == kept[1]
    with pytest.raises(invsolve.OutputError, match="come to exist"):
        save_pictures(found, tmp_path / "a", overwrite=False)


def test_names_in_any_script_are_no_warning(tmp_path: Path) -> None:
    data = invsolve.generate("sine", 2)
    data.names = np.array(["实例", "𝔁$"], dtype=object)
    found = compare(data, None, ("bfgs",))
    write_figure(of(found, "gallery").draw(), tmp_path / "a.png", overwrite=False)
    assert (tmp_path / "a.png").stat().st_size > 5000
