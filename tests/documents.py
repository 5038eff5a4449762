"""Pages of documentation as tests see them: their blocks of code, and their commands with what these print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    text: str

    @classmethod
    def read(cls, name: str) -> Page:
        """The page at a path from the root of the project."""
        return cls((ROOT / name).read_text())

    def blocks(self, language: str) -> list[str]:
        """All blocks of code in a language, in order."""
        return re.findall(rf"^```{language}\n(.*?)^```$", self.text, flags=re.MULTILINE | re.DOTALL)

    def sessions(self) -> list[tuple[str, str]]:
        """Commands after a `$` and what the page shows them to print."""
        found = []
        for block in self.blocks("console"):
            for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = piece.partition("\n")
                found.append((command, output))
        return found

    def write_files(self, folder: Path) -> None:
        """Write every block of Python that begins with its name, `# name.py`, as that file."""
        for block in self.blocks("python"):
            if named := re.match(r"# (\w+\.py)\n", block):
                (folder / named[1]).write_text(block)


def words(text: str) -> list[str]:
    """Words alone: numbers, bars and the widths of columns depend on the machine."""
    text = re.sub(r"[·▁-█]{2,}", "▁", text.replace(" min ", "# "))
    return [re.sub(r"-?[\d.,]+(e-?\d+)?", "#", word) for word in text.split()]


def numbers(text: str) -> list[float]:
    """All numbers of a text that stand alone, in order."""
    return [float(word) for word in re.findall(r"(?<!\S)-?\d+(?:\.\d+)?(?:e-?\d+)?(?!\S)", text)]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell as a reader would, with `invsolve` and `python` on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"PATH": path}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
