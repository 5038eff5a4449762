"""Before anything is computed: are all machines of a cluster fit for the work, and do they share a place for it?"""

from __future__ import annotations

import contextlib
import os
import platform
import uuid
from dataclasses import dataclass
from pathlib import Path

import torch

from invsolve._version import __version__
from invsolve.errors import OptionError, OutputError, first_line

_ANSWER = 60.0  # seconds that the machines of a cluster have for the first look at them


@dataclass
class Seen:
    """What a machine of the cluster tells of itself."""

    host: str
    versions: dict[str, str]
    missing: list[str]  # files that it does not see as the driver does
    shares: bool  # the folder of the pieces


def look(files: dict[str, int], folder: str | None, probe: str) -> Seen:
    """What a machine sees: run on each."""
    missing = [path for path, size in files.items() if not os.path.isfile(path) or os.path.getsize(path) != size]
    shares = False
    if folder is not None:
        with contextlib.suppress(OSError):
            shares = Path(folder, probe).read_text() == probe
            Path(folder, f"{probe}-{platform.node()}").touch()
            Path(folder, f"{probe}-{platform.node()}").unlink()
    return Seen(platform.node(), versions(), missing, shares)


def versions() -> dict[str, str]:
    """What has to be the same on all machines."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"invsolve": __version__, "torch": torch.__version__.partition("+")[0], "python": python}


def survey(files: list[Path], folder: Path | None) -> tuple[bool, list[Seen]]:
    """See that every machine can do its part: whether all share `folder`, and what they tell.

    Args:
        files: that are read everywhere.
        folder: where finished ranges are to be put.

    Raises:
        OptionError: versions differ, or a machine does not see a file.
        OutputError: the folder cannot be written to.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    sizes, probe = {str(path): os.path.getsize(path) for path in files}, f".probe-{uuid.uuid4().hex[:8]}.tmp"
    task = ray.remote(look)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    try:
        if folder is not None:
            (folder / probe).write_text(probe)
        there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        shared = None if folder is None else str(folder)
        answers = [
            task.options(num_cpus=0, max_retries=1, scheduling_strategy=one).remote(sizes, shared, probe)
            for one in there
        ]
        seen: list[Seen] = ray.get(answers, timeout=_ANSWER)
    except ray.exceptions.GetTimeoutError:
        raise OptionError(f"not all {len(nodes)} machines of the cluster answer within {_ANSWER:.0f} s") from None
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise OptionError(
            f"a machine of the cluster cannot run invsolve: {first_line(cause or error)}; install invsolve "
            f"{__version__} on all of them"
        ) from None
    except ConnectionError as error:  # Ray's client, though it is a kind of OSError
        raise OptionError(f"the connection to the cluster was lost: {first_line(error)}; run again") from None
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {first_line(error)}; choose another --out") from None
    finally:
        if folder is not None:
            (folder / probe).unlink(missing_ok=True)
    _compare(seen)
    return folder is not None and all(one.shares for one in seen), seen


def _compare(seen: list[Seen]) -> None:
    mine = versions()
    for one in seen:
        for what, version in mine.items():
            if one.versions.get(what) != version:
                raise OptionError(
                    f"{what} is {version} here and {one.versions.get(what)} on {one.host}; install the same on all "
                    f"machines"
                )
        if one.missing:
            raise OptionError(
                f"{one.missing[0]} is not to be seen on {one.host} as it is here; put it where all machines of the "
                f"cluster see it under the same path"
            )
