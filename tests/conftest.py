"""Fixtures that all tests share; budgets are small and seeds fixed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import invsolve
from invsolve.checks.method import quadratics
from invsolve.data.dataset import Dataset
from tests.launcher import Launcher

VECTORS = Path(__file__).parent / "vectors"

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def command() -> Iterator[Command]:
    """Run the installed program: `command("solve", path, ...)`."""
    launcher = Launcher()
    yield lambda *arguments, **more: launcher.run([*map(str, arguments)], **more)
    launcher.close()


@pytest.fixture
def wave_packets(tmp_path: Path) -> Path:
    """A dataset file of 12 wave packets."""
    path = tmp_path / "wp.h5"
    invsolve.write_dataset(path, invsolve.generate("wave-packet", 12, seed=3, model_options={"samples": 32}))
    return path


@pytest.fixture(name="quadratics")
def _quadratics() -> Dataset:
    """Convex problems y = γ ∘ x and their solutions; the forward model is `product`."""
    return quadratics()
