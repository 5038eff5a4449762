"""Draw a dozen of the Hubble sources with their fits: docs/hubble_sources.png.

    python docs/hubble_figure.py [--out FILE]

The dozen is spread evenly over the ranks of reduced chi-square, so that good and bad fits are shown as they occur.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Ellipse, Patch

import invsolve

DATA = Path(__file__).parents[1] / "sample_data" / "hubble_sources.h5"
ACROSS, DOWN = 6, 2  # sources
LIMIT = 8  # residuals from −8σ to 8σ have colours of their own
FULL_WIDTH = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian at half of its height, in standard deviations
GAP, LINE, INK = "#2f6f6a", "#ffb000", "#24292f"


@dataclass
class Fit:
    """One source: what was seen, what was fitted."""

    name: str
    image: np.ndarray  # (15, 15), NaN = gap
    model: np.ndarray  # (15, 15)
    sigma: float
    x: np.ndarray  # (7,)
    chi_square: float  # reduced


def fits() -> list[Fit]:
    """All sources, solved by BFGS, in the order of reduced chi-square."""
    data = invsolve.read_dataset(DATA)
    solution = invsolve.solve(data)
    images, sigma = np.asarray(data.targets), np.asarray(data.sigma)
    models = invsolve.load_model(data.model, **data.model_options)(torch.from_numpy(solution.x)).numpy()
    chi_square = solution.reduced_chi2
    order = np.argsort(chi_square, kind="stable")
    return [Fit(data.names[i], images[i], models[i], sigma[i], solution.x[i], chi_square[i]) for i in order]


def show(axes: Axes, image: np.ndarray, colours: str, low: float, high: float) -> AxesImage:
    """One panel; gaps have a colour that no value has."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes.imshow(image, cmap=plt.get_cmap(colours).with_extremes(bad=GAP), vmin=low, vmax=high)


def draw(column: np.ndarray, fit: Fit) -> AxesImage:
    """A source in three panels, one below the other; returns the last, the residual."""
    low, high = np.nanmin(fit.image), np.nanmax(fit.image)
    show(column[0], fit.image, "gray", low, high)
    show(column[1], fit.model, "gray", low, high)
    _, x0, y0, width_x, width_y, angle, _ = fit.x
    size = FULL_WIDTH * width_x, FULL_WIDTH * width_y
    column[0].add_patch(Ellipse((x0, y0), *size, angle=np.degrees(angle), fill=False, color=LINE, linewidth=1.2))
    column[0].set_title(f"{fit.name}\nχ² {fit.chi_square:.2f}", fontsize=9, color=INK, pad=4, linespacing=1.3)
    return show(column[2], (fit.image - fit.model) / fit.sigma, "RdBu_r", -LIMIT, LIMIT)


def explain(page: Figure, residual: AxesImage, number: int) -> None:
    """What is shown, and what the colours mean."""
    marks = [
        Patch(color=GAP, label="not observed: saturated, or another source's"),
        Patch(fill=False, edgecolor=LINE, label="half of the fitted height"),
    ]
    page.legend(handles=marks, loc="lower left", bbox_to_anchor=(0.024, 0.004), frameon=False, fontsize=10)
    about = f"{ACROSS * DOWN} of {number} sources,\nevenly by rank of reduced χ²"
    page.text(0.51, 0.0245, about, fontsize=10, color=INK, ha="center", va="center", linespacing=1.5)
    bar = page.add_axes((0.668, 0.034, 0.318, 0.012))
    page.colorbar(residual, cax=bar, orientation="horizontal", extend="both")
    bar.set_xlabel("Difference in σ of the sky's noise", fontsize=10, labelpad=2)


def figure() -> Figure:
    """The dozen in two rows of six."""
    ranked = fits()
    chosen = [ranked[round(rank)] for rank in np.linspace(0, len(ranked) - 1, 2 * ACROSS * DOWN + 1)[1::2]]
    page = plt.figure(figsize=(12, 13.5), dpi=100)
    heights = ([1, 1, 1, 0.28] * DOWN)[:-1]  # three panels, then room for names
    edges = {"left": 0.034, "right": 0.996, "top": 0.964, "bottom": 0.068}
    grid = page.add_gridspec(len(heights), ACROSS, height_ratios=heights, hspace=0.04, wspace=0.04, **edges)
    for block in range(DOWN):
        panels = np.array([[page.add_subplot(grid[4 * block + i, j]) for j in range(ACROSS)] for i in range(3)])
        for j in range(ACROSS):
            residual = draw(panels[:, j], chosen[block * ACROSS + j])
        for axes, label in zip(panels[:, 0], ("Hubble", "Gaussian", "Difference"), strict=True):
            axes.set_ylabel(label, fontsize=11, color=INK)
    explain(page, residual, len(ranked))
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("hubble_sources.png"))
    arguments = parser.parse_args()
    figure().savefig(arguments.out)
    print(f"written to {arguments.out}")
