"""Ranges on a Ray cluster: two nodes in one process, as Ray itself tests."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve import ranges
from invsolve.cluster import code, session, team, worker
from invsolve.control import Control
from invsolve.data.dataset import Dataset
from invsolve.data.solution import COLUMNS, Solution
from invsolve.events import Event
from invsolve.models.base import Identifiers
from invsolve.settings import Cluster

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.xdist_group("ray"),
]
COMPARED = [*(c for c in COLUMNS if c != "example"), "history"]
MODEL = """
import os, time
from pathlib import Path
import torch
from neighbour import gain

def F(x, identifiers):
    exec(Path({behaviour!r}).read_text())
    return gain() * torch.sin(x * identifiers)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head without cores for workers, and two nodes with one each."""
    from ray.cluster_utils import Cluster as Machines

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    quickly = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quickly}
    machines = Machines(initialize_head=True, head_node_args=head)
    for _ in range(2):
        machines.add_node(num_cpus=1)
    yield machines
    session.disconnect()
    machines.shutdown()


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE", 5)
    monkeypatch.setattr(ranges, "PATIENCE", 0)  # they do not grow


def waves(n: int = 40) -> Dataset:
    rng = np.random.default_rng(2)
    known = rng.uniform(1, 2, (n, 2))
    return Dataset(targets=np.sin(known * rng.uniform(-0.7, 0.7, (n, 2))), identifiers=known, x0=np.zeros(2))


def sine(x: Tensor, identifiers: Identifiers) -> Tensor:
    assert isinstance(identifiers, Tensor)
    return torch.sin(x * identifiers)


def write_code(folder: Path, behaviour: Path) -> str:
    """A model in a file that no machine knows, with a neighbour that it imports; what else it does is in a file too."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "own.py").write_text(MODEL.format(behaviour=str(behaviour)))
    (folder / "neighbour.py").write_text("def gain():\n    return 1.0\n")
    return f"{folder / 'own.py'}:F"


def own_model(tmp_path: Path, extra: str = "pass") -> str:
    """A user's model that does `extra`. All tests have the same code, which processes have loaded then."""
    behaviour = tmp_path.parent / "behaviour.py"
    behaviour.write_text(extra)
    return write_code(tmp_path.parent / "code", behaviour)


def on(
    nodes: Any, data: Any, model: Any = sine, method: str = "bfgs", workers: int | None = None, **more: Any
) -> Solution:
    more = {"compile": "off"} | more  # of models that are made slow it would pay
    return invsolve.solve(data, model, method, cluster=Cluster(nodes.address, workers=workers), **more)


def assert_same(a: Solution, b: Solution, columns: list[str] = COMPARED) -> None:
    for name in columns:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("method", ["bfgs", "lm", "multistart"])
def test_a_cluster_changes_no_solution(nodes: Any, method: str, tmp_path: Path) -> None:
    data, out = waves(), tmp_path / "out.h5"
    heard: list[Event] = []
    found = on(nodes, data, method=method, out=out, control=Control(listeners=[heard.append]))
    # How the Jacobian can be had, each process finds out by an evaluation more of one example.
    counts = ("evaluations", "gradients", "history") if method == "lm" else ()
    there = [name for name in COMPARED if name not in counts]
    assert_same(found, invsolve.solve(data, sine, method, threads=1), there)
    assert sum(event.kind == "range" for event in heard) >= 8
    assert json.loads(found.attributes["cluster"])["workers"] == 2
    assert list(tmp_path.iterdir()) == [out]


class Loaded:
    """A job, as whose data are opened where it is loaded."""

    beat = 0.5
    times = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Loaded.again, ()

    @staticmethod
    def again() -> Loaded:
        Loaded.times += 1
        return Loaded()

    def make(self) -> object:
        return object()


def test_a_process_loads_a_job_once(nodes: Any) -> None:
    session.connect(Cluster(nodes.address), None)
    one, other = [ray.put(Loaded())], [ray.put(Loaded())]
    first = worker._work(one)
    assert worker._work(one) is first
    assert Loaded.times == 1
    assert worker._work(other) is not first
    assert Loaded.times == 2


def test_what_machines_do_not_share_is_returned(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invsolve.remote_work.survey", lambda files, folder: (False, []))
    out = tmp_path / "out.h5"
    found = on(nodes, waves(), out=out)
    assert_same(found, invsolve.solve(waves(), sine, "bfgs", threads=1))
    assert list(tmp_path.iterdir()) == [out]


def test_bits_do_not_depend_on_where_they_are_computed(nodes: Any) -> None:
    data = waves(150)
    here, there = invsolve.solve(data, sine, "lm", deterministic=True), on(nodes, data, method="lm", deterministic=True)
    for name in COMPARED:
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name), err_msg=name)


def test_what_the_model_does_wrong_is_told_as_at_home(nodes: Any) -> None:
    def mixing(x: Tensor, identifiers: Identifiers) -> Tensor:
        return x - x.mean(0)

    with pytest.raises(invsolve.InvsolveError, match="mixes rows"):
        on(nodes, waves(), mixing)


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ({"workers": 9}, "9 workers of 1 CPUs each: the cluster has 2 CPUs; ask for fewer"),
        ({"gpus_per_worker": 1}, "1 worker of 1 GPUs each: the cluster has 0 GPUs"),
        ({"cpus_per_worker": 2}, "1 worker of 2 CPUs each: the machines of the cluster have room for 0; ask for less"),
        ({"gpus_per_worker": -1}, "gpus_per_worker must be a whole number or from 0 to 1, found -1"),
        ({"workers": 0}, "workers must be auto, or from 1"),
        ({"cpus_per_worker": 0}, "cpus_per_worker must be from 1"),
        ({"gpus_per_worker": 1.5}, "gpus_per_worker must be a whole number or from 0 to 1"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(nodes: Any, cluster: dict[str, Any], says: str) -> None:
    with pytest.raises(invsolve.OptionError, match=says):
        invsolve.solve(waves(), sine, "bfgs", cluster=Cluster(nodes.address, **cluster))


def test_versions_must_be_the_same(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invsolve.cluster.survey.__version__", "9.9")
    with pytest.raises(invsolve.OptionError, match="invsolve is 9.9 here and .* install the same on all"):
        on(nodes, waves())


def test_data_must_be_seen_by_all(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "d.h5"
    invsolve.write_dataset(data, waves())
    monkeypatch.setattr("invsolve.cluster.survey.os.path.getsize", lambda path: 1)
    with pytest.raises(invsolve.OptionError, match="d.h5 is not to be seen on"):
        on(nodes, data)


def test_the_users_code_is_brought_along(nodes: Any, tmp_path: Path) -> None:
    """By Ray: what the file was when the run began counts, wherever it was."""
    place = f"Path({str(tmp_path / 'seen')!r}).write_text(__file__)"
    model = own_model(tmp_path, place)
    found = on(nodes, waves(), model)
    assert_same(found, invsolve.solve(waves(), sine, "bfgs", threads=1))
    assert not (tmp_path / "seen").read_text().startswith(str(tmp_path))


def solve_while_losing(nodes: Any, tmp_path: Path, lose: Callable[[Any], None]) -> list[Event]:
    """Lose a third node after two ranges; no example is missing, none is there twice. What was heard meanwhile."""
    model, out = own_model(tmp_path, "time.sleep(0.05)"), tmp_path / "out.h5"
    third = nodes.add_node(num_cpus=1)
    heard: list[Event] = []

    def losing(event: Event) -> None:
        heard.append(event)
        if event.kind == "range" and sum(e.kind == "range" for e in heard) == 2:
            lose(third)

    found = on(nodes, waves(), model, out=out, control=Control(listeners=[losing]))
    assert_same(found, invsolve.solve(waves(), sine, "bfgs", threads=1))
    assert sorted(s for e in heard if e.kind == "range" for s in range(e.told["start"], e.told["stop"])) == [*range(40)]
    return heard


def test_a_node_that_is_lost_costs_no_example(nodes: Any, tmp_path: Path) -> None:
    def kill(node: Any) -> None:
        threading.Thread(target=nodes.remove_node, args=(node,), kwargs={"allow_graceful": False}).start()

    solve_while_losing(nodes, tmp_path, kill)


def processes(name: str) -> list[int]:
    """Those that Ray has given this name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [int(path.parent.name)] if path.read_bytes().startswith(name.encode()) else []
    return found


def children(process: int) -> list[int]:
    """A process, and all that it has begun."""
    found = [process]
    for of in found:
        for path in Path(f"/proc/{of}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


@pytest.mark.slow
def test_a_node_that_falls_silent_costs_no_example(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its network is gone: nothing closes the connections to it, and Ray waits for answers for minutes."""
    monkeypatch.setattr(team, "_SILENT", 3.0)
    handed, hand = list[ranges.Range](), team._Team._hand

    def noting(self: Any, given: ranges.Range, strategy: Any) -> None:
        handed.append(given)
        hand(self, given, strategy)

    monkeypatch.setattr(team._Team, "_hand", noting)

    def stop(node: Any) -> None:
        stopped.append(node)
        for process in children(node.all_processes["raylet"][0].process.pid):
            os.kill(process, signal.SIGSTOP)

    stopped: list[Any] = []
    heard = solve_while_losing(nodes, tmp_path, stop)
    nodes.remove_node(stopped[0], allow_graceful=False)
    assert len(handed) > len(set(handed))  # Ray alone would do it after minutes
    assert any(e.kind == "lost" for e in heard)


@pytest.mark.slow
def test_a_board_that_is_lost_is_followed_by_another(nodes: Any, tmp_path: Path) -> None:
    """As where memory runs out on a machine that has no other worker. It is told to stop again, too."""
    slow = "time.sleep(0.5 if float(identifiers.max()) > 3 else 0)"
    data, model, control, lost = waves(400), own_model(tmp_path, slow), Control(), list[int]()
    data.identifiers = np.array(data.identifiers)
    data.identifiers[7::10] = 3.5

    def losing(event: Event) -> None:
        if event.kind == "range" and not lost:
            lost.extend(processes("ray::Board"))
            control.interrupted = True
            for process in lost:
                os.kill(process, signal.SIGKILL)

    control.listeners = (losing,)
    part = on(nodes, data, model, control=control)
    assert lost
    assert 0 < part.status_counts()["not_run"] < 400
    assert part.status_counts()["budget"] > 0  # of the range that another board has told to stop


def test_a_cluster_that_ends_is_told_in_one_line(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = team._Team.look

    def losing(self: Any) -> None:
        ray.kill(self._board)
        begin(self)

    monkeypatch.setattr(team._Team, "look", losing)
    monkeypatch.setattr(team, "_LOOK", 0.0)
    with pytest.raises(invsolve.WorkerError, match="connected to was lost: ActorDiedError.*--resume goes on"):
        on(nodes, waves(), own_model(tmp_path, "time.sleep(0.05)"))


@pytest.mark.slow
def test_a_worker_that_dies_is_followed_by_another(nodes: Any, tmp_path: Path) -> None:
    died = tmp_path / "died"
    kill = f"p = Path({str(died)!r}); p.exists() or (p.touch(), os.kill(os.getpid(), 9))"
    heard: list[Event] = []
    found = on(nodes, waves(), own_model(tmp_path, kill), control=Control(listeners=[heard.append]))
    assert_same(found, invsolve.solve(waves(), sine, "bfgs", threads=1))
    assert died.exists()
    assert any(event.kind == "lost" for event in heard)


GREEDY = """
import os, resource
from multiprocessing import parent_process

def F(x, identifiers):
    in_worker = parent_process() is not None or "ray::" in open("/proc/self/cmdline").read()
    ROOM
    return (x * identifiers).sin()
"""
ALLOCATES = """
    if in_worker:
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, limits[1]))
        try:
            bytearray(len(x) * 2**24)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
"""
KILLED = """
    if in_worker and len(x) > 2:
        open(__DIED__, "a").write(f"{os.getpid()} ")
        os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("room", [ALLOCATES, KILLED], ids=["allocation fails", "killed by the system"])
def test_a_worker_without_memory_solves_less_together(nodes: Any, tmp_path: Path, room: str) -> None:
    """Really: more than 7 rows do not fit under RLIMIT_AS; or SIGKILL with more than 2, as of an OOM killer."""
    died = tmp_path / "died"
    (tmp_path / "greedy.py").write_text(GREEDY.replace("    ROOM", room).replace("__DIED__", repr(str(died))))
    data, heard = waves(32 if room == ALLOCATES else 12), list[Event]()
    told = pytest.warns(UserWarning, match="there was not enough memory for") if room == ALLOCATES else nullcontext()
    with told, mock.patch("invsolve.ranges.RANGE", 16):
        found = on(nodes, data, f"{tmp_path / 'greedy.py'}:F", control=Control(listeners=[heard.append]))
    assert_same(found, invsolve.solve(data, sine, "bfgs", threads=1), ["x", "loss", "status"])
    if room == KILLED:
        assert len(died.read_text().split()) >= 2
        assert any(event.kind == "lost" for event in heard)


@pytest.mark.slow
def test_a_model_that_raises_on_one_machine_only_costs_no_example(nodes: Any, tmp_path: Path) -> None:
    """On that of the first process which asks."""
    chosen = tmp_path / "chosen"
    extra = (
        f"chosen = Path({str(chosen)!r}); 'ray::' in open('/proc/self/cmdline').read() and not chosen.exists() and "
        "chosen.write_text(str(os.getpid()))\n"
        "if chosen.exists() and chosen.read_text() == str(os.getpid()): raise ValueError('a broken machine')"
    )
    heard: list[Event] = []
    found = on(nodes, waves(), own_model(tmp_path, extra), control=Control(listeners=[heard.append]))
    assert_same(found, invsolve.solve(waves(), sine, "bfgs", threads=1))
    assert any(event.kind == "lost" and "a broken machine" in event.told["text"] for event in heard)


@pytest.mark.slow
def test_what_kills_every_worker_ends_the_run_in_one_line(nodes: Any, tmp_path: Path) -> None:
    with pytest.raises(invsolve.InvsolveError, match="4 workers died while they solved examples [0-9]+ to"):
        on(nodes, waves(8), own_model(tmp_path, "os.kill(os.getpid(), 9)"))


def test_rows_that_raise_are_nonfinite_there_too(nodes: Any, tmp_path: Path) -> None:
    data = waves()
    data.identifiers = np.array(data.identifiers)
    data.identifiers[7] = -1.0
    raising = "assert bool((identifiers > 0).all()), 'negative'"
    found = on(nodes, data, own_model(tmp_path, raising))
    assert list(np.flatnonzero(found.status == invsolve.Status.NONFINITE)) == [7]
    rest = np.arange(40) != 7
    np.testing.assert_allclose(found.loss[rest], invsolve.solve(waves(), sine, "bfgs").loss[rest], atol=1e-12)


def test_a_stop_leaves_what_was_reached_and_another_machine_goes_on(nodes: Any, tmp_path: Path) -> None:
    model, out, control = own_model(tmp_path, "time.sleep(0.02)"), tmp_path / "out.h5", Control()

    def stopping(event: Event) -> None:
        control.interrupted = control.interrupted or event.kind == "range"

    control.listeners = (stopping,)
    part = on(nodes, waves(), model, out=out, control=control)
    assert 0 < part.status_counts()["not_run"] < 40
    whole = invsolve.solve(waves(), model, "bfgs", out=out, resume=True, threads=1)
    assert_same(whole, invsolve.solve(waves(), sine, "bfgs", threads=1))


@pytest.mark.slow
def test_a_driver_that_is_killed_loses_no_finished_range(nodes: Any, tmp_path: Path) -> None:
    model, out, data = own_model(tmp_path, "time.sleep(0.05)"), tmp_path / "out.h5", tmp_path / "d.h5"
    invsolve.write_dataset(data, waves())
    words = [
        "solve",
        str(data),
        "--model",
        model,
        "--out",
        str(out),
        "--quiet",
        "--compile",
        "off",
        "--cluster",
        nodes.address,
    ]
    script = (
        "from invsolve import ranges; ranges.RANGE = 5; ranges.PATIENCE = 0; from invsolve.__main__ import main; main()"
    )
    driver = subprocess.Popen([sys.executable, "-c", script, *words, "--cluster", nodes.address])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("out.h5.parts/rows-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    kept = len(list(tmp_path.glob("out.h5.parts/rows-*")))
    assert kept >= 2
    heard: list[Event] = []
    found = on(nodes, data, model, out=out, resume=True, control=Control(listeners=[heard.append]))
    assert sum(event.kind == "kept" for event in heard) >= kept
    assert_same(found, invsolve.solve(waves(), sine, "bfgs", threads=1))


def test_an_evaluation_that_hangs_ends_the_run(nodes: Any, tmp_path: Path) -> None:
    hang = "time.sleep(0 if float(identifiers.max()) < 3 else 3600)"
    data = waves(30)
    data.identifiers = np.array(data.identifiers)
    data.identifiers[25] = 3.5
    with pytest.warns(UserWarning, match="had not come back after"):
        found = on(nodes, data, own_model(tmp_path, hang), evaluation_timeout=1.0)
    assert found.status[25] == invsolve.Status.NOT_RUN
    assert (found.status[:5] != invsolve.Status.NOT_RUN).all()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
        ("ray://127.0.0.1:1", "no Ray cluster answers at 'ray://127.0.0.1:1'"),
        ("nobody.invalid:6379", "no Ray cluster answers at 'nobody.invalid:6379'"),
        ("ray://head", "cluster 'ray://head' has no port"),
    ],
)
def test_an_address_must_answer(address: str, says: str) -> None:
    session.disconnect()
    with pytest.raises(invsolve.OptionError, match=says):
        invsolve.solve(waves(), sine, "bfgs", cluster=address)


def test_another_server_is_not_taken_for_ray() -> None:
    """Ray itself would try for minutes."""
    session.disconnect()
    with socketserver.TCPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(invsolve.OptionError, match="what listens there is not Ray"):
            invsolve.solve(waves(), sine, "bfgs", cluster=f"127.0.0.1:{server.server_address[1]}")


def test_code_is_copied_as_it_is_now_and_no_more_than_python_files(tmp_path: Path) -> None:
    folder = tmp_path / ".hidden" / "code"
    model = write_code(folder, tmp_path)
    for name in ("data.csv", ".secret.d/x.py", "venv/pyvenv.cfg", "venv/lib.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    first = code.code_of(model)
    assert first is not None
    assert sorted(path.name for path in first.rglob("*")) == ["neighbour.py", "own.py"]
    assert code.code_of(model) == first
    (folder / "neighbour.py").write_text("def gain():\n    return 2.0\n")
    assert code.code_of(model) != first


def test_ray_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    session.disconnect()
    monkeypatch.setattr("invsolve.cluster.session.importlib.util.find_spec", lambda name: None)
    with pytest.raises(invsolve.OptionError, match=r"needs Ray, .*: pip install 'invsolve\[ray\]'"):
        invsolve.solve(waves(), sine, "bfgs", cluster="ray")
