"""The connection to a Ray cluster: found or started, fit for the work, and the same on all of its machines."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import random
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invsolve.cluster.code import code_of
from invsolve.cluster.host import Host
from invsolve.errors import OptionError, first_line
from invsolve.settings import Cluster

_LEAST_RAY = (2, 40)
_KNOCK = 10.0  # seconds in which an address has to answer
_CLIENT = "ray://"  # as an address begins that Ray's client connects to


@dataclass
class Session:
    """A cluster that this process is connected to, until it ends or asks for another."""

    cluster: Cluster
    code: Path | None  # the user's own, that every machine was given
    host: Host | None = None  # of the cluster, if this process has started it

    def count_workers(self) -> int:
        """How many work at a time.

        Raises:
            OptionError: there is no room for as many as asked.
        """
        asked = self.cluster
        wanted = {"CPU": float(asked.cpus_per_worker), "GPU": asked.gpus_per_worker}
        machines = self._resources()
        least = asked.workers or 1
        who = "1 worker" if least == 1 else f"{least} workers"
        for kind, each in wanted.items():
            if each * least > (there := sum(one.get(kind, 0.0) for one in machines)):
                raise OptionError(f"{who} of {each:g} {kind}s each: the cluster has {there:g} {kind}s; ask for fewer")
        room = self.room()
        if room < least:
            words = " and ".join(f"{amount:g} {kind}s" for kind, amount in wanted.items() if amount)
            raise OptionError(f"{who} of {words} each: the machines of the cluster have room for {room}; ask for less")
        return asked.workers or room

    def room(self) -> int:
        """For how many workers there is, whatever is running."""
        return sum(map(self._room, self._resources()))

    def _resources(self) -> list[dict[str, float]]:
        """Of each machine."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def machines(self) -> list[dict[str, Any]]:
        """Those on which there is room for a worker, as Ray tells of them; in another order every time."""
        import ray

        there = [node for node in ray.nodes() if node["Alive"] and self._room(node["Resources"])]
        return random.sample(there, len(there))

    def _room(self, resources: dict[str, float]) -> int:
        """For how many workers there is on a machine."""
        asked = {"CPU": self.cluster.cpus_per_worker, "GPU": self.cluster.gpus_per_worker}
        return min(int(resources.get(kind, 0.0) / amount + 1e-9) for kind, amount in asked.items() if amount)

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
    _check_address(cluster.address)
    code = code_of(model)
    ray = _ray()
    if ray.is_initialized():
        if _session is not None and (_session.cluster.address, _session.code) == (cluster.address, code):
            _session.cluster = cluster
            return _session
        if _session is None:  # the caller's own
            return Session(cluster, None)
    disconnect()
    host = _host(ray, cluster) if cluster.address == "ray" else None
    _session = Session(cluster, code, host)
    atexit.register(disconnect)
    try:
        _join(ray, cluster.address if host is None else host.address, code)
    except BaseException:
        disconnect()
        raise
    # It would print what befalls other machines, on standard output, which is the result's; no public switch ends it.
    ray._private.worker._worker_logs_enabled = False
    return _session


def beside_driver() -> Any:
    """Where to put what is to live as long as the driver: on the machine that it is connected to, and on no other."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)


def disconnect() -> None:
    """Leave the cluster that `connect` has found, or end what it has started; a run after that connects anew."""
    global _session
    left, _session = _session, None
    if left is None:
        return
    atexit.unregister(disconnect)
    ray = _ray()
    ray.shutdown()
    ray._private.worker._worker_logs_enabled = True
    if left.host is not None:
        left.host.end()


def _ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise OptionError("--cluster needs Ray, which is not installed: pip install 'invsolve[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # once a connection is lost, each call would try for another
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
    found = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if found < _LEAST_RAY:
        raise OptionError(f"--cluster needs ray 2.40 or later, found {ray.__version__}: pip install 'invsolve[ray]'")
    return ray


def _check_address(address: str) -> None:
    if address.startswith(_CLIENT) and not address.rpartition(":")[2].isdecimal():
        raise OptionError(f"cluster '{address}' has no port: ray://host:10001 is where Ray's client server listens")


def _host(ray: Any, cluster: Cluster) -> Host:
    cores = max(len(os.sched_getaffinity(0)), cluster.cpus_per_worker * (cluster.workers or 1))
    try:
        with _environment(cluster.address):
            host = Host(cores)
    except ConnectionError as error:
        raise OptionError(f"Ray cannot begin on this machine: {first_line(error)}") from None
    os.environ.update(host.environment)
    if host.environment:  # has been read by now where Ray was imported before; no public call reads it again
        with contextlib.suppress(AttributeError):
            ray._raylet.Config.initialize("")
    return host


def _join(ray: Any, address: str, code: Path | None) -> None:
    more: dict[str, Any] = {} if code is None else {"runtime_env": {"working_dir": str(code)}}
    with _silent() as words:
        try:
            _knock(address)
            with _own_signals(), _environment(address):
                ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **more)
        except Exception as error:  # of many kinds, by address
            raise OptionError(f"no Ray cluster answers at '{address}': {first_line(error)}; {_hint(words())}") from None


def _hint(words: str) -> str:
    """What to do, by what Ray has said."""
    if "AuthToken" in words:
        return "it asks for a token: RAY_AUTH_MODE=token, and Ray's documentation of token authentication"
    token = "" if "RAY_AUTH_MODE" in os.environ else ", set RAY_AUTH_MODE=token if it asks for a token"
    return f"see `ray status` there{token}, or give --cluster ray for one on this machine"


def _knock(address: str) -> None:
    """See that somebody is there who speaks as Ray does, by HTTP/2: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdecimal():
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK) as line:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")  # RFC 9113, 3.4
        if line.recv(9)[3:4] != b"\4":
            raise ConnectionError("what listens there is not Ray")


@contextlib.contextmanager
def _environment(address: str) -> Iterator[None]:
    """What Ray reads from the environment while it connects, where the user has not said otherwise."""
    ours = {"RAY_BACKEND_LOG_LEVEL": "fatal"}  # of its C++, which would write on our screen of all that is lost
    if address != "ray":  # one that is being started may take its time; whom `_knock` has heard answers soon
        ours["RAY_gcs_server_port_wait_time_s"] = "5"  # times that it tries, once a second
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """What a signal does stays as it was: Ray would end the process. One that comes meanwhile is heard afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, before)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def _silent() -> Iterator[Callable[[], str]]:
    """Without Ray's words about itself, printed, warned of, or written by its C++; these last can be read."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        written = stack.enter_context(tempfile.TemporaryFile())
        with contextlib.suppress(OSError):  # closed by the shell (2>&-)
            kept = os.dup(2)
            os.dup2(written.fileno(), 2)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)

        def words() -> str:
            written.seek(0)
            return written.read().decode(errors="replace")

        yield words
