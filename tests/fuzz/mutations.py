"""Damage to small sound files, the same for the same number: bits flipped, bytes changed, cut out, doubled, spliced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_TELLING = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)
_HEAD = 2500  # bytes in which the structure of a small file begins


def damaged(sound: bytes, others: Sequence[bytes], number: int) -> bytes:
    """The `number`-th damage to a file; pieces of the others may come into it."""
    draw = np.random.default_rng(number)
    content = bytearray(sound)
    if number % 10 == 0:
        return bytes(content[: draw.integers(len(content))])
    for _ in range(draw.integers(1, 6)):
        if len(content) < 8:
            break
        at = int(draw.integers(len(content) if draw.random() < 0.5 else min(_HEAD, len(content))))
        length = int(draw.integers(1, 64))
        kind = draw.choice(
            ["bit", "telling", "byte", "word", "cut", "double", "splice"], p=[0.3, 0.2, 0.2, 0.15, 0.05, 0.05, 0.05]
        )
        if kind == "bit":
            content[at] ^= 1 << int(draw.integers(8))
        elif kind == "telling":
            content[at] = int(draw.choice(_TELLING))
        elif kind == "byte":
            content[at] = int(draw.integers(256))
        elif kind == "word":
            content[at : at + 8] = (0, 1, 2**32 - 1, 2**63, 2**64 - 1)[draw.integers(5)].to_bytes(8, "little")
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "double":
            content[at:at] = content[at : at + length]
        else:
            other = others[draw.integers(len(others))]
            start = int(draw.integers(max(1, len(other) - length)))
            content[at : at + length] = other[start : start + length]
    return bytes(content)
