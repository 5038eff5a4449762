"""Cut galaxies and stars out of the Hubble eXtreme Deep Field: 15 × 15 px each, to be fitted by a Gaussian.

    python sample_data/hubble_sources.py [--out FILE]

The image is the one that scikit-image carries, `skimage.data.hubble_deep_field()`. It is a picture and no measurement:
three colours, stretched by arcsinh for the eye, kept as JPEG. The same image gives the same file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import skimage.data
from scipy import ndimage
from skimage.segmentation import watershed

import invsolve

HALF = 7  # px on each side of the centre
SMOOTHING = 1.0  # px, standard deviation; about the sharpness of the image
FAINTEST = 3.0  # in noises above the sky: a maximum of the smoothed image that counts as a source
BRIGHT = 10.0  # likewise: a source that is kept
OBSERVED = 0.8  # share of a patch, at least, that is neither saturated nor another source's
SKY = 0.5  # in noises: how far the median of a patch's border may be above the sky, or else the source outgrows it


def luminance(image: np.ndarray) -> np.ndarray:
    """Brightness (rows, columns) of an image (rows, columns, 3): the Y of JPEG, which keeps it sharper than colour."""
    return image @ np.array([0.299, 0.587, 0.114])


def sky_of(bright: np.ndarray) -> tuple[float, float]:
    """Level of the sky and standard deviation of its noise, both from medians.

    The noise is that of the pixels below the level, 1.4826 times their median distance: sources only add light.
    """
    level = np.median(bright)
    return float(level), float(1.4826 * np.median(level - bright[bright <= level]))


def find_sources(height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 2) of the sources, row and column, and a map (rows, columns) of whose each pixel is, from 1.

    A source is a maximum of the smoothed `height`, in noises above the sky. Sources meet in the valley between them.
    """
    places = np.argwhere((height == ndimage.maximum_filter(height, size=5)) & (height > FAINTEST))
    seeds = np.zeros(height.shape, dtype=np.int32)
    seeds[tuple(places.T)] = np.arange(1, len(places) + 1)
    return places, watershed(-height, seeds)


def cut_out(image: np.ndarray) -> invsolve.Dataset:
    """All sources that are bright, end within their patch and stand alone well enough, as problems of `gaussian-2d`."""
    bright = luminance(image)
    saturated = (image == 255).any(axis=2)
    level, noise = sky_of(bright)
    height = (ndimage.gaussian_filter(bright, SMOOTHING) - level) / noise
    places, owner = find_sources(height)
    patches, names = [], []
    for number, (row, column) in enumerate(places, start=1):
        window = np.s_[row - HALF : row + HALF + 1, column - HALF : column + HALF + 1]
        inside = min(row, column) >= HALF and bright[window].shape == (2 * HALF + 1, 2 * HALF + 1)
        if not inside or height[row, column] < BRIGHT:
            continue
        observed = (owner[window] == number) & ~saturated[window]
        patch = np.where(observed, bright[window], np.nan)
        border = np.concatenate([patch[0], patch[-1], patch[1:-1, 0], patch[1:-1, -1]])
        if observed.mean() >= OBSERVED and np.nanmedian(border) < level + SKY * noise:
            patches.append(patch)
            names.append(f"xdf-r{row:03d}-c{column:03d}")
    return invsolve.Dataset(
        targets=np.array(patches, dtype=np.float32),
        sigma=np.full(len(patches), noise, dtype=np.float32),
        names=names,
        model="gaussian-2d",
        model_options={"shape": "rotated"},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("hubble_sources.h5"))
    arguments = parser.parse_args()
    dataset = cut_out(skimage.data.hubble_deep_field())
    invsolve.write_dataset(arguments.out, dataset, overwrite=True)
    print(f"{len(dataset)} sources written to {arguments.out}")
