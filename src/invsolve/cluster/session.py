"""The connection to a Ray cluster: found or started, fit for the work, and the same on all of its machines."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invsolve.cluster.code import code_of
from invsolve.errors import OptionError, first_line
from invsolve.settings import Cluster

_LEAST_RAY = (2, 40)
_KNOCK = 10.0  # seconds in which an address has to answer


@dataclass
class Session:
    """A cluster that this process is connected to, until it ends or asks for another."""

    cluster: Cluster
    code: Path | None  # the user's own, that every machine was given

    def count_workers(self) -> int:
        """How many ranges are solved at a time.

        Raises:
            OptionError: there is no room for as many as asked.
        """
        import ray

        there, asked = ray.cluster_resources(), self.cluster
        wanted = {"CPU": float(asked.cpus_per_worker), "GPU": asked.gpus_per_worker}
        room = min(int(there.get(kind, 0.0) / each) for kind, each in wanted.items() if each)
        least = asked.workers or 1
        for kind, each in wanted.items():
            if each * least > there.get(kind, 0.0):
                raise OptionError(
                    f"{least} {'worker' if least == 1 else 'workers'} of {each:g} {kind}s each: the cluster has "
                    f"{there.get(kind, 0.0):g} {kind}s; ask for fewer"
                )
        return asked.workers or room

    def name_there(self, model: Any) -> Any:
        """What `model` is called where the user's code has been brought to."""
        if self.code is not None and isinstance(model, str) and ".py:" in model:
            path, _, name = model.rpartition(":")
            return f"{Path(path).name}:{name}"
        return model


_session: Session | None = None


def connect(cluster: Cluster, model: Any) -> Session:
    """Connect to a cluster, or start one; `model` is as the user names it, whose code is brought along.

    Raises:
        OptionError: Ray is not installed, or nobody answers at the address.
    """
    global _session  # noqa: PLW0603 (a process has one connection, whoever asks for it)
    code = code_of(model)
    if _session is not None and (_session.cluster.address, _session.code) == (cluster.address, code):
        _session.cluster = cluster
        return _session
    ray = _ray()
    if ray.is_initialized():
        if _session is None:  # the caller's own
            return Session(cluster, None)
        ray.shutdown()
    _start(ray, cluster, code)
    _session = Session(cluster, code)
    return _session


def disconnect() -> None:
    """Leave the cluster that `connect` has found or started; a run after that connects anew."""
    global _session  # noqa: PLW0603
    if _session is not None:
        _ray().shutdown()
    _session = None


def _ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise OptionError("--cluster needs Ray, which is not installed: pip install 'invsolve[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
    found = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if found < _LEAST_RAY:
        raise OptionError(f"--cluster needs ray 2.40 or later, found {ray.__version__}: pip install 'invsolve[ray]'")
    return ray


def _start(ray: Any, cluster: Cluster, code: Path | None) -> None:
    more: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    if cluster.address == "ray":
        more["address"] = "local"  # whatever else runs on this machine
        more["num_cpus"] = max(len(os.sched_getaffinity(0)), cluster.cpus_per_worker * (cluster.workers or 1))
    else:
        more = {"address": cluster.address, "logging_level": logging.ERROR, "log_to_driver": False}
    if code is not None:
        more["runtime_env"] = {"working_dir": str(code)}
    try:
        _knock(cluster.address)
        with _own_signals(), _silent(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(**more)
    except Exception as error:  # of many kinds, by address
        raise OptionError(
            f"no Ray cluster answers at '{cluster.address}': {first_line(error)}; see `ray status` there, or give "
            f"--cluster ray for one on this machine"
        ) from None


def _knock(address: str) -> None:
    """See that somebody is there: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """What a signal does stays as it was: Ray would end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without Ray's words about itself, some of which it prints."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        yield
