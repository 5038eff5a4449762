"""A crew of workers trains on a Ray cluster: what it finds, and what becomes of it where some of it is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invsolve
from invsolve.control import Control
from invsolve.data.solution import Solution
from invsolve.events import Event
from tests.test_cluster import nodes, own_model, pytestmark, sine, waves  # noqa: F401
from tests.test_cluster import on as solved_on

OPTIONS = {"proposals": "none", "steps": 60}
SLOW = "time.sleep(0.02)"


def on(nodes: Any, model: Any = sine, **more: Any) -> Solution:  # noqa: F811
    more = {"options": OPTIONS, **more}
    return solved_on(nodes, waves(), model, "jpo", **more)


@pytest.fixture(scope="module")
def alone() -> Solution:
    """What one process finds."""
    return invsolve.solve(waves(), sine, "jpo", options=OPTIONS, threads=1)


def near(found: Solution, alone: Solution) -> None:
    """The same but for how sums are rounded, of which a training makes more."""
    for name in ("x", "loss", "loss_initial"):
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(found.history[:, :5], alone.history[:, :5], rtol=1e-2, err_msg="history")


@pytest.mark.slow
def test_a_crew_finds_what_one_process_finds(nodes: Any, alone: Solution) -> None:  # noqa: F811
    found = on(nodes)
    near(found, alone)
    assert found.attributes["chosen"] == alone.attributes["chosen"]


@pytest.mark.parametrize("workers", [2, pytest.param(None, marks=pytest.mark.slow)], ids=["room for all", "fewer"])
def test_a_node_lost_while_it_trains_costs_nothing(
    nodes: Any,  # noqa: F811
    alone: Solution,
    workers: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three, on which two train, or all: those that are left make a smaller crew."""
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")  # in which Ray waits for a node that is gone
    nodes.add_node(num_cpus=1)
    members, network, heard = tmp_path / "members", tmp_path / "network.safetensors", list[Event]()
    members.mkdir()
    seen = f"import ray; Path({str(members)!r}, ray.get_runtime_context().get_node_id()).touch()"

    def losing(event: Event) -> None:
        if event.kind == "checkpoint" and not any(e.kind == "checkpoint" for e in heard):
            one = next(node for node in nodes.worker_nodes if (members / node.node_id).exists())
            threading.Thread(target=nodes.remove_node, args=(one,), kwargs={"allow_graceful": False}).start()
        heard.append(event)

    model = own_model(tmp_path, f"{SLOW}; {seen}")
    found = on(
        nodes, model, workers=workers, out=tmp_path / "out.h5", checkpoint_every=0.1,
        save_network=network, control=Control(listeners=[losing]),
    )  # fmt: skip
    kinds = [event.kind for event in heard]
    assert "lost" in kinds[: kinds.index("trained")]
    near(found, alone)
    assert sorted(tmp_path.glob("out.h5*")) == [tmp_path / "out.h5"]
    own_model(tmp_path)
    asked = invsolve.predict(network, waves(), model)
    assert np.median(asked.loss) < np.median(asked.loss_initial)


@pytest.mark.slow
def test_a_worker_that_dies_in_training_is_followed_by_another(
    nodes: Any,  # noqa: F811
    alone: Solution,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where machines share no folder, so that the driver keeps the checkpoints."""
    monkeypatch.setattr("invsolve.remote_work.survey", lambda files, folder: (False, []))
    died, calls = tmp_path / "died", tmp_path / "calls"
    kill = f"c = Path({str(calls)!r}); c.open('a').write('x'); p = Path({str(died)!r}); "
    kill += "len(c.read_text()) < 30 or p.exists() or (p.touch(), os.kill(os.getpid(), 9))"
    out, heard = tmp_path / "out.h5", []
    found = on(
        nodes, own_model(tmp_path, f"{SLOW}; {kill}"), out=out, checkpoint_every=0.01,
        control=Control(listeners=[heard.append]),
    )  # fmt: skip
    assert died.exists()
    assert "lost" in [event.kind for event in heard]
    near(found, alone)


@pytest.mark.slow
def test_a_training_goes_on_with_and_without_a_cluster(nodes: Any, alone: Solution, tmp_path: Path) -> None:  # noqa: F811
    model, out, control = own_model(tmp_path, SLOW), tmp_path / "out.h5", Control()

    def stopping(event: Event) -> None:
        control.interrupted = control.interrupted or event.kind == "checkpoint"

    control.listeners = (stopping,)
    part = on(nodes, model, out=out, checkpoint_every=0.1, control=control)
    assert part.status_counts()["budget"] == 40
    assert (tmp_path / "out.h5.parts/checkpoint.safetensors").exists()
    heard: list[Event] = []
    whole = invsolve.solve(
        waves(), model, "jpo", options=OPTIONS, out=out, resume=True, threads=1,
        control=Control(listeners=[heard.append]),
    )  # fmt: skip
    assert "resumed" in [event.kind for event in heard]
    near(whole, alone)


@pytest.mark.slow
def test_what_cannot_be_trained_ends_as_at_home(nodes: Any, tmp_path: Path) -> None:  # noqa: F811
    model = own_model(tmp_path, "raise ValueError('no')")
    with pytest.raises(invsolve.ModelError) as here:
        invsolve.solve(waves(), model, "jpo", options=OPTIONS)
    with pytest.raises(invsolve.ModelError) as there:
        on(nodes, model)
    assert str(there.value).partition(" raises ")[2] == str(here.value).partition(" raises ")[2] != ""


@pytest.mark.slow
def test_what_kills_all_who_train_ends_in_one_line(
    nodes: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("invsolve.cluster.training.MOST_BEGUN", 2)
    with pytest.raises(invsolve.WorkerError, match="workers died 2 times while they trained"):
        on(nodes, own_model(tmp_path, "os.kill(os.getpid(), 9)"))


@pytest.mark.slow
def test_an_evaluation_that_hangs_ends_the_training(nodes: Any, tmp_path: Path) -> None:  # noqa: F811
    began = tmp_path / "began"
    hang = f"p = Path({str(began)!r}); p.open('a').write('x'); len(p.read_text()) < 40 or time.sleep(3600)"
    with pytest.warns(UserWarning, match="had not come back after"):
        found = on(nodes, own_model(tmp_path, hang), evaluation_timeout=1.0)
    assert (found.status == invsolve.Status.NOT_RUN).all()
