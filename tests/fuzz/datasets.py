"""Hostile dataset files, each by its name: what an attacker, a broken disk or another program might write."""

from __future__ import annotations

import functools
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

N, SAMPLES = 4, 32
Change = Callable[[h5py.File, Path], None]
"""Makes a sound dataset file hostile; the path is that of the canary, an HDF5 file that must not be read."""

CASES: dict[str, Change] = {}
SPECIAL = ("fifo", "folder", "device", "socket", "own memory", "unreadable", "symlink loop", "absent", "empty")
"""Paths that are no file to read, see `make_special`."""


def sound(file: h5py.File) -> None:
    """A dataset of wave packets."""
    draw = np.random.default_rng(0)
    file.attrs["format"], file.attrs["format_version"] = "invsolve-dataset", 1
    file.attrs["model"], file.attrs["model_options"] = "wave-packet", json.dumps({"samples": SAMPLES})
    file["targets"] = draw.normal(size=(N, SAMPLES))
    file["x_true"] = draw.uniform(5, 15, size=(N, 1))
    file["names"] = [f"packet {i}" for i in range(N)]


def case(name: str) -> Callable[[Change], Change]:
    def keep(change: Change) -> Change:
        CASES[name] = change
        return change

    return keep


def put(name: str, key: str, value: Any) -> None:
    """A case in which `key` has this value."""

    def change(file: h5py.File, canary: Path) -> None:
        if key in file:
            del file[key]
        file[key] = value

    CASES[name] = change


def put_attribute(name: str, key: str, value: Any, **how: Any) -> None:
    def change(file: h5py.File, canary: Path) -> None:
        if key in file.attrs:
            del file.attrs[key]
        file.attrs.create(key, value, **how)

    CASES[name] = change


def declared(name: str, key: str, shape: tuple[int, ...], dtype: Any = "f8", **how: Any) -> None:
    """A case in which an array is declared, and nothing of it written."""

    def change(file: h5py.File, canary: Path) -> None:
        if key in file:
            del file[key]
        file.create_dataset(key, shape, dtype, **how)

    CASES[name] = change


def of_type(name: str, key: str, kind: h5py.h5t.TypeID, shape: tuple[int, ...] = (N,)) -> None:
    """A case in which an array is of a type that NumPy may not have."""

    def change(file: h5py.File, canary: Path) -> None:
        if key in file:
            del file[key]
        h5py.h5d.create(file.id, key.encode(), kind, h5py.h5s.create_simple(shape))
        held = h5py.h5a.create(file.id, f"of {name}".encode(), kind, h5py.h5s.create_simple((2,)))
        held.close()

    CASES[name] = change


# What leads out of the file.


@case("external link")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    file["targets"] = h5py.ExternalLink(str(canary), "/secret")


@case("soft link to an external link")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    file["way"], file["targets"] = h5py.ExternalLink(str(canary), "/"), h5py.SoftLink("/way/secret")


@case("external link in the identifiers")
def _(file: h5py.File, canary: Path) -> None:
    file.create_group("identifiers")["a"] = h5py.ExternalLink(str(canary), "/secret")


@case("external link to a pipe")
def _(file: h5py.File, canary: Path) -> None:
    pipe = canary.with_name("pipe")
    if not pipe.exists():
        os.mkfifo(pipe)
    file["sigma"] = h5py.ExternalLink(str(pipe), "/secret")


@case("external storage")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    file.create_dataset("targets", (N, SAMPLES), "u1", external=[(str(canary), 0, N * SAMPLES)])


@case("external storage of the names")
def _(file: h5py.File, canary: Path) -> None:
    del file["names"]
    file.create_dataset("names", (N,), "S8", external=[(str(canary), 0, N * 8)])


@case("virtual dataset")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    layout = h5py.VirtualLayout((N, SAMPLES), dtype="f8")
    layout[:] = h5py.VirtualSource(str(canary), "secret", (N, SAMPLES))
    file.create_virtual_dataset("targets", layout)


@case("virtual dataset without an end, whose shape other files tell")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    source = h5py.h5s.create_simple((N, SAMPLES), (h5py.h5s.UNLIMITED, SAMPLES))
    source.select_hyperslab((0, 0), (1, 1), block=(h5py.h5s.UNLIMITED, SAMPLES))
    whole = h5py.h5s.create_simple((N, SAMPLES), (h5py.h5s.UNLIMITED, SAMPLES))
    whole.select_hyperslab((0, 0), (1, 1), block=(h5py.h5s.UNLIMITED, SAMPLES))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(whole, str(canary).encode(), b"secret", source)
    space = h5py.h5s.create_simple((N, SAMPLES), (h5py.h5s.UNLIMITED, SAMPLES))
    h5py.h5d.create(file.id, b"targets", h5py.h5t.IEEE_F64LE, space, plist)


@case("virtual dataset in the identifiers")
def _(file: h5py.File, canary: Path) -> None:
    layout = h5py.VirtualLayout((N, SAMPLES), dtype="f8")
    layout[:] = h5py.VirtualSource(str(canary), "secret", (N, SAMPLES))
    file.create_group("identifiers").create_virtual_dataset("a", layout)


put_attribute("model that is a path", "model", "evil.py:F")
put_attribute("model that is a module", "model", "os:system")
put_attribute("model that is a URL", "model", "https://example.org/evil.py:F")
put_attribute("model that goes up", "model", "../../evil.py:F")
put_attribute("model in code", "model", "__import__('os').system('true')")
put_attribute("model with a NUL and escapes", "model", b"wave\x1b]0;owned\x07-packet")
put_attribute("model of a megabyte", "model", "m" * 2**20)


# Links and groups.


@case("loop of soft links")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    file["targets"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/targets")


@case("soft link to itself and further")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    file["targets"] = h5py.SoftLink("/targets/targets/targets")


@case("soft links that double")
def _(file: h5py.File, canary: Path) -> None:
    file.create_group("l0")
    for i in range(1, 40):
        file[f"l{i}"] = h5py.SoftLink("/".join(["", *[f"l{i - 1}"] * 2]))
    del file["targets"]
    file["targets"] = h5py.SoftLink("/l39")


@case("group that contains itself twice")
def _(file: h5py.File, canary: Path) -> None:
    file["a"] = file["b"] = file["/"]


@case("groups that contain each other")
def _(file: h5py.File, canary: Path) -> None:
    groups = [file.create_group(f"g{i}") for i in range(6)]
    for group in groups:
        for i, other in enumerate(groups):
            group[f"to{i}"] = other
    file["identifiers"] = groups[0]


@case("groups 2000 deep")
def _(file: h5py.File, canary: Path) -> None:
    group: h5py.Group = file
    for _ in range(2000):
        group = group.create_group("d")
    group["targets"] = np.ones(3)


@case("groups with long names, deep")
def _(file: h5py.File, canary: Path) -> None:
    group: h5py.Group = file
    for _ in range(40):
        group = group.create_group("d" * 5000)


@case("20000 empty groups")
def _(file: h5py.File, canary: Path) -> None:
    for i in range(20_000):
        h5py.h5g.create(file.id, b"g%d" % i)


@case("5000 identifiers")
def _(file: h5py.File, canary: Path) -> None:
    group = file.create_group("identifiers")
    for i in range(5000):
        group[str(i)] = file["targets"]


@case("identifiers in a loop")
def _(file: h5py.File, canary: Path) -> None:
    group = file.create_group("identifiers")
    group["again"] = group


@case("committed type in place of an array")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    file["targets"] = np.dtype("f8")


put("group in place of an array", "targets", h5py.SoftLink("/"))
put("link to nothing", "targets", h5py.SoftLink("/nowhere"))
put("link to above", "targets", h5py.SoftLink("../../../targets"))
put("sigma that is the targets", "sigma", h5py.SoftLink("targets"))


# Shapes and sizes.

declared("2^60 rows", "targets", (2**60,), "u1", chunks=(2**10,), maxshape=(None,))
declared("2^40 rows of nothing", "targets", (2**40, 0))
declared("2^61 bytes, contiguous", "targets", (2**58,))
declared("2^40 rows of sigma", "sigma", (2**40,), chunks=(2**10,), maxshape=(None,))
declared("2^40 names", "names", (2**40,), h5py.string_dtype(), chunks=(2**10,), maxshape=(None,))
declared("2^33 names", "names", (2**33,), "S4", chunks=(2**10,), maxshape=(None,))
declared("2^40 x0", "x0", (2**40,), chunks=(2**10,), maxshape=(None,))
declared("2^40 x_true", "x_true", (N, 2**38), chunks=(1, 2**10), maxshape=(None, None))
declared("2^40 identifiers", "identifiers", (N, 2**38), chunks=(1, 2**10), maxshape=(None, None))
declared("32 dimensions of one", "targets", (N, *(1,) * 31))
declared("32 dimensions of many", "targets", (N, *(4,) * 31), "f4", chunks=(1,) * 32)
declared("zero-size", "targets", (0, SAMPLES))
declared("no samples", "targets", (N, 0))
declared("scalar", "targets", ())
declared("a chunk of 2 GB", "targets", (N, SAMPLES), chunks=(2**24, 16), maxshape=(None, None))
declared("a chunk of 3 GB, compressed", "sigma", (N,), chunks=(3 * 2**27,), maxshape=(None,), compression="gzip")
declared("text of 1 GB", "names", (N,), "S1000000000")
declared("8 million rows", "targets", (2**23,))
put("no values", "targets", h5py.Empty("f8"))
put("names without an end", "names", h5py.Empty(h5py.string_dtype()))
put("more names than examples", "names", [b"a"] * (N + 1))
put("names in two dimensions", "names", [[b"a"] * N] * N)


@functools.cache
def bomb(size: int, times: int = 1) -> bytes:
    """`size` zeros, compressed by zlib, and again."""
    packer = zlib.compressobj(1)
    packed = b"".join([packer.compress(bytes(2**20)) for _ in range(size // 2**20)]) + packer.flush()
    for _ in range(times - 1):
        packed = zlib.compress(packed, 9)
    return packed


def compressed(
    file: h5py.File, key: str, shape: tuple[int, ...], chunk: tuple[int, ...], packed: bytes, again: bool
) -> None:
    """An array whose first chunk is written as it is."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(chunk)
    plist.set_deflate(9)
    if again:
        plist.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    array = h5py.h5d.create(file.id, key.encode(), h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple(shape), plist)
    array.write_direct_chunk((0,) * len(shape), packed)


@case("bomb of 256 MB, as declared")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    compressed(file, "targets", (N, 2**23), (N, 2**23), bomb(2**28), again=False)


@case("bomb of 256 MB, undeclared")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    compressed(file, "targets", (N, SAMPLES), (N, SAMPLES), bomb(2**28), again=False)


@case("bomb of 256 MB, compressed twice")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    compressed(file, "targets", (N, SAMPLES), (N, SAMPLES), bomb(2**28, 2), again=True)


@case("no zlib at all")
def _(file: h5py.File, canary: Path) -> None:
    del file["targets"]
    compressed(file, "targets", (N, SAMPLES), (N, SAMPLES), b"not compressed", again=False)


@case("filter that is not there")
def _(file: h5py.File, canary: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((N, SAMPLES))
    plist.set_filter(31_999, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    del file["targets"]
    h5py.h5d.create(file.id, b"targets", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((N, SAMPLES)), plist)


# Types.

ARRAYS = ("targets", "names", "sigma", "x0")
TYPES: dict[str, h5py.h5t.TypeID] = {
    "compound": h5py.h5t.py_create(np.dtype([("a", "f8"), ("b", "S3")])),
    "array": h5py.h5t.array_create(h5py.h5t.IEEE_F64LE, (3,)),
    "enum": h5py.h5t.py_create(h5py.enum_dtype({"A": 1, "B": 2}), logical=True),
    "boolean": h5py.h5t.py_create(np.dtype(bool), logical=True),
    "opaque": h5py.h5t.create(h5py.h5t.OPAQUE, 7),
    "object reference": h5py.h5t.STD_REF_OBJ,
    "region reference": h5py.h5t.STD_REF_DSETREG,
    "sequence": h5py.h5t.vlen_create(h5py.h5t.IEEE_F64LE),
    "sequence of sequences": h5py.h5t.vlen_create(h5py.h5t.vlen_create(h5py.h5t.IEEE_F64LE)),
    "text of any length": h5py.h5t.py_create(h5py.string_dtype(), logical=True),
    "text of fixed length": h5py.h5t.py_create(h5py.string_dtype(length=5), logical=True),
    "time": h5py.h5t.UNIX_D32LE,
    "bits": h5py.h5t.STD_B32LE,
    "float16": h5py.h5t.IEEE_F16LE,
    "long double": h5py.h5t.py_create(np.dtype(np.longdouble)),
    "complex": h5py.h5t.py_create(np.dtype(complex)),
    "big-endian": h5py.h5t.IEEE_F64BE,
    "uint64": h5py.h5t.STD_U64LE,
    "int8": h5py.h5t.STD_I8LE,
}
if hasattr(h5py.h5t, "FLOAT_BFLOAT16LE"):
    TYPES["bfloat16"] = h5py.h5t.FLOAT_BFLOAT16LE


def _odd_float(bits: int) -> h5py.h5t.TypeID:
    """A float of other fields than any processor has."""
    kind = h5py.h5t.IEEE_F64LE.copy()
    kind.set_fields(63, 63 - bits, bits, 0, 63 - bits)
    return kind


TYPES |= {f"float with {bits} bits of exponent": _odd_float(bits) for bits in (3, 20, 40)}
for _name, _kind in TYPES.items():
    for _key in ARRAYS:
        of_type(f"{_name} as {_key}", _key, _kind, (N,) if _key == "names" else (N, SAMPLES))

put("names that are no UTF-8", "names", np.array([b"\xff\xfe"] * N, "S2"))
put("names with NUL", "names", np.array([b"a\0b"] * N, "S3"))
put("names of escapes", "names", ["\x1b[2J\x1b]0;owned\x07", "a\nb", "\u202egnp.exe", "\x9b31m"])
put("names of surrogates", "names", np.array(["\udc80".encode(errors="surrogatepass")] * N, "S3"))
put("names that are numbers", "names", np.arange(N))
put("NaN everywhere", "targets", np.full((N, SAMPLES), np.nan))
put("infinity everywhere", "targets", np.full((N, SAMPLES), np.inf))
put("the largest numbers", "targets", np.full((N, SAMPLES), 1.7e308))
put("sigma of NaN", "sigma", np.full((N, SAMPLES), np.nan))
put("sigma of zero", "sigma", np.zeros((N, SAMPLES)))
put("sigma below all", "sigma", np.full((N, SAMPLES), 5e-324))
put("x0 of infinity", "x0", np.full((N, 1), np.inf))
put("x_true of NaN", "x_true", np.full((N, 1), np.nan))
put("identifiers nobody asked for", "identifiers", np.full((N, 3), np.nan))


@case("50000 references to one text")
def _(file: h5py.File, canary: Path) -> None:
    """Written by HDF5 with as many texts, whose references are then all made those of the first, which is long."""
    rows = 50_000
    del file["targets"], file["names"], file["x_true"]
    file["targets"] = np.zeros(rows)
    names = file.create_dataset("names", (rows,), h5py.string_dtype())
    names[0] = "x" * 200_000
    names[1:2] = ["y"]
    file.flush()
    start = names.id.get_offset()
    with open(file.filename, "r+b") as raw:
        raw.seek(start)
        one = raw.read(16)
        raw.seek(start)
        raw.write(one * rows)


@case("a text that claims 4 GB")
def _(file: h5py.File, canary: Path) -> None:
    file.flush()
    with open(file.filename, "r+b") as raw:
        raw.seek(file["names"].id.get_offset())
        raw.write(struct.pack("<I", 2**32 - 1))


@case("heap whose object has no size")
def _(file: h5py.File, canary: Path) -> None:
    file.flush()
    with open(file.filename, "r+b") as raw:
        content = raw.read()
        raw.seek(content.index(b"GCOL") + 16)
        raw.write(bytes(16))


# Attributes.

for _name, _kind in TYPES.items():

    def _typed(file: h5py.File, canary: Path, kind: h5py.h5t.TypeID = _kind) -> None:
        for key in ("model", "model_options", "format_version"):
            del file.attrs[key]
            h5py.h5a.create(file.id, key.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR)).close()

    CASES[f"attributes of type {_name}"] = _typed

put_attribute("another format", "format", "invsolve-solution")
put_attribute("a format that is a number", "format", 7)
put_attribute("a version of tomorrow", "format_version", 2)
put_attribute("a version that is NaN", "format_version", np.nan)
put_attribute("versions", "format_version", np.arange(3))
put_attribute("no model", "model", h5py.Empty("S4"))
put_attribute("models", "model", ["wave-packet", "sine"])
put_attribute("model_options that are not JSON", "model_options", "{")
put_attribute("model_options that are a list", "model_options", "[1]")
put_attribute("model_options 100000 deep", "model_options", '{"a":' * 100_000 + "1" + "}" * 100_000)
put_attribute("model_options 500 deep", "model_options", '{"a":' * 500 + "1" + "}" * 500)
put_attribute("model_options with a list 900 deep", "model_options", '{"a":' + "[" * 900 + "]" * 900 + "}")
put_attribute("model_options of NaN", "model_options", '{"samples": NaN}')
put_attribute("model_options beyond infinity", "model_options", '{"width": 1e999}')
put_attribute("model_options of 10000 digits", "model_options", '{"samples": ' + "9" * 10_000 + "}")
put_attribute("model_options for 8 TB", "model_options", '{"samples": 1000000000000}')
put_attribute("model_options for 8 GB", "model_options", '{"samples": 1000000000}')
put_attribute("model_options twice", "model_options", '{"samples": 32, "samples": 1e999}')
put_attribute("model_options nobody knows", "model_options", '{"\\u001b[2J": 1}')
put_attribute("model_options of another type", "model_options", '{"samples": {"a": [1]}}')
put_attribute("model_options of a megabyte", "model_options", json.dumps({"a": "x" * 2**20}))
put_attribute("text of 2 MB", "remark", "x" * 2**21)
put_attribute("text of no UTF-8", "remark", np.bytes_(b"\xff\xfe"))
put_attribute("text of escapes", "re\x1b[2Jmark", "\x1b]0;owned\x07\n\n\u202e")
put_attribute("many texts", "remark", ["x"] * 1000)
put_attribute("numbers", "remark", np.arange(1000.0))
put_attribute("infinite number", "remark", np.inf)
put_attribute("attribute without a value", "remark", h5py.Empty("f8"))


@case("attribute of a megabyte")
def _(file: h5py.File, canary: Path) -> None:
    file.attrs["remark"] = np.zeros(8000)  # with libver=earliest one has 64 KB at most


@case("2000 attributes")
def _(file: h5py.File, canary: Path) -> None:
    group = file.create_group("identifiers")
    for i in range(2000):
        group.attrs.create(f"a{i}", i)
        if i < 1500:
            file.attrs.create(f"a{i}", i)


@case("units of another type")
def _(file: h5py.File, canary: Path) -> None:
    file["targets"].attrs["units"] = np.zeros((3, 3))
    file["x_true"].attrs["units"] = "\x1b[31mm\x07"
    file["names"].attrs["units"] = h5py.Empty("S1")


@case("array with a name of no UTF-8")
def _(file: h5py.File, canary: Path) -> None:
    h5py.h5d.create(file.id, b"\xff\xfe", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((N,)))


@case("identifiers with a name of no UTF-8")
def _(file: h5py.File, canary: Path) -> None:
    group = file.create_group("identifiers")
    h5py.h5d.create(group.id, b"\xff\xfe", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((N,)))


@case("attribute with a name of no UTF-8")
def _(file: h5py.File, canary: Path) -> None:
    h5py.h5a.create(file.id, b"\xff\xfe", h5py.h5t.STD_I8LE, h5py.h5s.create(h5py.h5s.SCALAR))


for _label, _text in {
    "escapes": "\x1b[2J\x1b]8;;http://example.org\x07",
    "newlines": "a\nb\rc",
    "right to left": "\u202egnp.exe\u202c",
    "markup": "[bold red]a[/][link=x]\\",
    "a dot": "a.b..c",
}.items():
    put(f"array with a name of {_label}", _text, np.ones(N))
    put(f"group with a name of {_label}", f"identifiers/{_text}", np.ones(N))


# How the file is laid out.

LAYOUTS: dict[str, dict[str, Any]] = {
    "user block": {"userblock_size": 1024},
    "latest format": {"libver": "latest"},
    "format 1.8": {"libver": ("v108", "v108")},
    "pages": {"fs_strategy": "page", "fs_page_size": 4096},
    "order kept": {"track_order": True, "libver": "latest"},
}


def make(path: Path, name: str, canary: Path) -> None:
    """Write the hostile file of this name."""
    if name in LAYOUTS or name == "family":
        driver: dict[str, Any] = {"driver": "family", "memb_size": 2**20} if name == "family" else LAYOUTS[name]
        with h5py.File(f"{path}%d" if name == "family" else path, "w", **driver) as file:
            sound(file)
        if name == "family":
            os.replace(f"{path}0", path)
        return
    large = name in ("text of 2 MB", "model of a megabyte", "model_options of a megabyte", "attribute of a megabyte")
    dense = large or name.startswith("model_options ") or name in ("many texts", "numbers", "2000 attributes")
    with h5py.File(path, "w", libver="latest" if dense else "earliest") as file:
        sound(file)
        CASES[name](file, canary)


NAMES = [*CASES, *LAYOUTS, "family"]


def make_special(path: Path, name: str) -> None:
    """Make `path` what no file is read from."""
    if name == "fifo":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    elif name == "device":
        path.symlink_to("/dev/zero")
    elif name == "socket":
        import socket

        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
        os.chdir(here)
    elif name == "own memory":
        path.symlink_to("/proc/self/mem")
    elif name == "unreadable":
        path.write_bytes(b"\x89HDF")
        path.chmod(0)
    elif name == "symlink loop":
        path.symlink_to(path.name)
    elif name == "empty":
        path.touch()
