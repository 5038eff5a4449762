"""The global heaps of an HDF5 file, where texts of any length lie, looked through before HDF5 is asked for one.

libhdf5 2.0 walks a heap by the sizes that stand in it, and never ends where one of them is 0: a single flipped bit is
enough. Here the same walk is made with an end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MOST_SEARCHED = 2**33  # bytes of a file, some seconds; to read a larger one may take longer than what is asked of it
_BLOCK = 2**20
_MAGIC = b"GCOL"
_VERSION = 1
_HEADER = struct.Struct("<4sB3xQ")  # magic, version, size of the whole heap
_OBJECT = struct.Struct("<HH4xQ")  # number, references, size of the object


def heaps_end(path: Path, width: int = 8) -> bool:
    """Whether a walk through each global heap of a file comes to its end (HDF5 File Format Specification 3.0, III.E).

    `width` are the bytes that the file writes a size in. Whatever looks like a heap is walked through, for a damaged
    file may refer to any place. A file of more than `MOST_SEARCHED` bytes is not looked at.
    """
    low = 256**width - 1
    size = path.stat().st_size
    if size > MOST_SEARCHED:
        return True
    steps = size // 4 + 1000  # heaps that lie one inside another are none that HDF5 writes
    with path.open("rb") as file:
        for start in _heaps(path):
            file.seek(start)
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                continue
            _, version, length = _HEADER.unpack(head)
            length &= low
            if version != _VERSION or not _HEADER.size <= length <= size - start:
                continue  # that HDF5 sees, too
            heap = file.read(length - _HEADER.size)
            steps -= len(heap) // 512
            at = 0
            while at + _OBJECT.size <= len(heap):
                number, _, taken = _OBJECT.unpack_from(heap, at)
                taken &= low
                step = taken if number == 0 else _OBJECT.size + (taken + 7) // 8 * 8
                steps -= 1
                if step == 0 or at + step > len(heap) or steps < 0:
                    return False
                at += step
    return True


def _heaps(path: Path) -> Iterator[int]:
    """Where a file holds the four bytes that a global heap begins with."""
    (magic,) = struct.unpack("<I", _MAGIC)
    with path.open("rb") as file:
        start, kept = 0, b""
        while block := file.read(_BLOCK):
            held = kept + block
            hits = []
            for shift in range(min(4, len(held) - 3)):
                found = np.frombuffer(held, "<u4", (len(held) - shift) // 4, shift) == np.uint32(magic)
                if found.any():
                    hits += [start + shift + 4 * int(i) for i in np.flatnonzero(found)]
            yield from sorted(hits)
            kept = held[-3:]
            start += len(held) - len(kept)
