"""Cosines, groups, and joint steps whose alignment is known."""

from __future__ import annotations

import math

import pytest
import torch

from invsolve.analysis.alignment import cosines, group_sizes, joint_alignment


def test_cosines_are_those_of_angles_and_zero_without_a_direction() -> None:
    update = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [0.0, 0.0], [1e-200, 0.0]], dtype=torch.float64)
    direction = torch.tensor([[3.0, 0.0]], dtype=torch.float64).expand(5, 2)
    expected = torch.tensor([1.0, math.sqrt(0.5), -1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(cosines(update, direction), expected)


@pytest.mark.parametrize(("n", "sizes"), [(0, []), (1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_sizes_double_up_to_all(n: int, sizes: list[int]) -> None:
    assert group_sizes(n) == sizes


def test_averaging_over_noisy_gradients_aligns_as_the_law_of_large_numbers_says() -> None:
    """All move by the mean of g_i = direction + noise of σ per component: cos ≈ 1/√(1 + dσ²/k)."""
    generator = torch.Generator().manual_seed(0)
    n, d, sigma = 512, 10, 1.0
    direction = torch.ones(n, d, dtype=torch.float64) / math.sqrt(d)
    noisy = direction + sigma * torch.randn(n, d, dtype=torch.float64, generator=generator)
    sizes = [1, 8, 64]
    found = joint_alignment(
        lambda rows: noisy[rows].mean(0, keepdim=True).expand(len(rows), d), direction, sizes, generator
    )
    expected = [1 / math.sqrt(1 + d * sigma**2 / k) for k in sizes]
    assert found.nanmean(1).tolist() == pytest.approx(expected, abs=0.1)  # within 3 standard errors of 32 groups' mean
    assert found[2].isnan().sum() == 0
    assert found[0].isnan().sum() == n - 32  # no more groups of a size than that are tried


def test_examples_that_are_left_over_count_for_nothing() -> None:
    direction = torch.ones(5, 1, dtype=torch.float64)
    found = joint_alignment(lambda rows: torch.ones(len(rows), 1), direction, [2], torch.Generator().manual_seed(0))
    assert found.isnan().sum() == 1
    assert found.nanmean() == 1
