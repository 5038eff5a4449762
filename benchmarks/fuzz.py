"""Coverage-guided fuzzing of all that reads files: datasets, solutions, networks and configurations.

`python -m benchmarks.fuzz --minutes 10` runs a process for each kind, one after the other, and another behind each
input that ends in a fault. Needs `pip install atheris` (CPython 3.11 to 3.13 on Linux). Coverage is that of our own
code; libhdf5 is not instrumented, and is reached by the damage that `tests.fuzz.mutations` knows as well.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

KINDS = ("dataset", "packed", "solution", "network", "config")
MEMORY = 2**31  # bytes that a process may grow by
SECONDS = 30  # of the processor, for one input


def readers(kind: str, path: Path) -> Callable[[], None]:
    """What is done with an input: all that a command does with it before it computes."""
    import numpy as np

    from invsolve.config import load_config
    from invsolve.data.store import read_dataset, read_solution
    from invsolve.inspection import inspect_file
    from invsolve.reuse import open_network

    def dataset() -> None:
        json.dumps(inspect_file(path), allow_nan=False)
        data = read_dataset(path)
        np.asarray(data.rows(0, min(len(data), 64)).targets)

    def solution() -> None:
        json.dumps(inspect_file(path), allow_nan=False)
        read_solution(path)

    def network() -> None:
        open_network(path)
        json.dumps(inspect_file(path), allow_nan=False)

    def config() -> None:
        load_config(path, {"seed": False, "model": False, "prior": True, "max_evaluations": False, "as_json": True})

    return {"dataset": dataset, "packed": dataset, "solution": solution, "network": network, "config": config}[kind]


def fuzz(kind: str, folder: Path, seconds: float, seed: int) -> None:
    """Fuzz one kind in this process until the time is up; it ends at the first fault, whose input is kept."""
    import atheris

    suffix = {"network": ".safetensors", "config": ".toml"}.get(kind, ".h5")
    path, ran = folder / f"input{suffix}", folder / "ran"
    with atheris.instrument_imports(include=["invsolve"], exclude=["invsolve.methods", "invsolve.models"]):
        read = readers(kind, path)
    from tests.fuzz.mutations import damaged

    from invsolve.errors import InvsolveError

    sound = [path.read_bytes() for path in sorted(folder.glob("sound.*"))]
    mine = (folder / f"sound.{kind}").read_bytes()
    until, count = time.monotonic() + seconds, 0
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.RLIM_INFINITY))

    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # tell where it was, and die
    faulthandler.dump_traceback_later(seconds + 60, exit=True)

    def one(data: bytes) -> None:
        nonlocal count
        if time.monotonic() > until:
            os._exit(0)  # atheris has no end of its own but a number of inputs
        path.write_bytes(data)
        count += 1
        if count % 100 == 0:
            ran.write_text(str(count))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        with contextlib.suppress(InvsolveError):
            read()
        signal.setitimer(signal.ITIMER_PROF, 0)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        """Half by what libFuzzer knows, half by what we know of files."""
        if number % 2:
            return damaged(data or mine, sound, number)[:most]
        return atheris.Mutate(data or mine, most)

    corpus = folder / f"corpus.{kind}"
    corpus.mkdir(exist_ok=True)
    (corpus / "sound").write_bytes(mine)
    flags = [f"-seed={seed}", "-max_len=65536", "-verbosity=0", "-rss_limit_mb=0", "-len_control=0"]
    atheris.Setup([sys.argv[0], str(corpus), *flags], one, custom_mutator=mutate)
    atheris.Fuzz()


def make_sound(folder: Path) -> None:
    """A sound file of each kind to begin from."""
    import h5py
    import numpy as np
    from tests.fuzz import datasets, others

    with h5py.File(folder / "sound.dataset", "w") as file:
        datasets.sound(file)
    with h5py.File(folder / "sound.packed", "w", libver="latest") as file:
        datasets.sound(file)
        for i in range(12):
            values = np.ones((datasets.N, 9))
            file.create_dataset(f"identifiers/a{i}", data=values, chunks=(3, 4), compression="gzip", fletcher32=True)
    (folder / "d.h5").write_bytes((folder / "sound.dataset").read_bytes())
    solution, network = others.make_sound(folder, folder / "d.h5")
    solution.rename(folder / "sound.solution")
    network.rename(folder / "sound.network")
    (folder / "sound.config").write_bytes(others.SOUND_CONFIG)


def run_child(words: list[str], seconds: float) -> tuple[int | str, str]:
    """Exit code of a process, and what it told of its end; one that does not end is ended."""
    with tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=err)
        try:
            code: int | str = child.wait(seconds + 90)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = "no end"
        err.seek(0)
        lines = [
            line.strip() for line in err if line.lstrip().startswith("File") or "Error" in line or "Exception" in line
        ]
    return code, " | ".join(lines[:1] + lines[-3:])[:600]


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz all that reads files.")
    parser.add_argument("--minutes", type=float, default=10, help="in all, shared by the kinds")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder for inputs that end in a fault")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kind, folder, seconds = given.child
        fuzz(kind, Path(folder), float(seconds), given.seed)
        return 0
    kinds, found = given.kinds.split(","), 0
    with tempfile.TemporaryDirectory() as place:
        make_sound(folder := Path(place))
        for kind in kinds:
            until, seed, total = time.monotonic() + 60 * given.minutes / len(kinds), given.seed, 0
            faults = 0
            while (left := until - time.monotonic()) > 1:
                (folder / "ran").write_text("0")
                words = [
                    sys.executable,
                    "-m",
                    "benchmarks.fuzz",
                    "--seed",
                    str(seed),
                    "--child",
                    kind,
                    place,
                    str(left),
                ]
                code, told = run_child(words, left)
                total += int((folder / "ran").read_text())
                if code != 0:
                    faults += 1
                    given.keep.mkdir(exist_ok=True)
                    kept = given.keep / f"{kind}-{seed}"
                    kept.write_bytes(next(folder.glob("input*")).read_bytes())
                    print(f"{kept}: ended in {code}; {told}", flush=True)
                seed += 1
                for path in folder.glob("input*"):
                    path.unlink()
            print(f"{kind}: {total} inputs, {faults} faults", flush=True)
            found += faults
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
