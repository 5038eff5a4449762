"""Joint parameterized optimization: its promises on small budgets, and that it finds what BFGS does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import invsolve
from invsolve.data.solution import FoundBy, Status
from invsolve.engine import RowResults
from invsolve.methods.jpo import beginning
from invsolve.pipeline import compare
from invsolve.settings import Settings


def test_the_first_prediction_is_nearly_the_initial_guess() -> None:
    data = invsolve.generate("wave-packet", 8, seed=1)
    seen: list[Tensor] = []
    model = invsolve.load_model("wave-packet")
    forward = model.forward

    def recording(x: Tensor, identifiers: object) -> Tensor:
        seen.append(x.detach())
        return forward(x, identifiers)

    model.forward = recording
    invsolve.solve(data, model, "jpo", options={"steps": 1, "proposals": "none"}, refine="none")
    assert torch.equal(seen[0], torch.full((8, 1), 10.0, dtype=torch.float64))  # the scored start
    assert (seen[1] - 10).abs().max() < 0.2  # the first prediction, in a range of 20


def test_it_finds_better_solutions_than_bfgs() -> None:
    """Billiards: where the cue misses, the gradient is zero and BFGS ends at the start; the network does not."""
    data = invsolve.generate("billiards", 64, seed=9)
    result = compare(
        data, methods=["bfgs", "jpo"], options={"jpo": {"steps": 2000, "proposals": "none", "restarts": 0}}
    ).methods
    assert result["bfgs"]["solved"] < 0.85
    assert result["jpo"]["solved"] > 0.95
    assert result["jpo"]["better"] > result["jpo"]["worse"]


def test_it_tells_what_it_chose_and_why_it_ended() -> None:
    data = invsolve.generate("wave-packet", 32, seed=1)
    solution = invsolve.solve(data, method="jpo", refine="none")
    chosen = solution.attributes["chosen"]
    assert chosen["network"]["kind"] == "conv1d"
    assert chosen["training"] == {"passes": 10.0, "learning_rate": pytest.approx(9e-4), "ended": "after all steps"}
    proposals = chosen["proposals"]
    assert proposals["ended"] in ("as its error of new points fell no more", "as the network knew enough")
    assert proposals["error_at_last"] < 0.3 * proposals["error_at_first"]
    assert proposals["learning_rate"] in (3e-4, 1e-3, 3e-3)
    # Scored twice, asked once, trained for ten passes: all else are points.
    assert set(solution.evaluations) == {proposals["points"] + 13}

    curve = solution.attributes["training_curve"]
    assert set(curve) == {"proposals", "training"}
    points = proposals["points"]
    assert curve["proposals"]["evaluations"] == [2.0 + i for i in range(points)]
    errors = curve["proposals"]["error"]
    assert (errors[0], errors[-1]) == pytest.approx((proposals["error_at_first"], proposals["error_at_last"]), rel=1e-3)
    steps = 0.25 * np.arange(1, 41)  # four minibatches a pass
    np.testing.assert_allclose(curve["training"]["evaluations"], points + 2 + steps, rtol=1e-3)
    assert 0 < np.median(curve["training"]["loss"]) < 0.3


def test_x0_comes_first_where_the_network_learned_little_and_nothing_much_better_was_seen() -> None:
    z0, best, answer = (torch.full((2, 1), value) for value in (0.0, 1.0, 2.0))
    found = RowResults(
        z=best,
        status=torch.zeros(2, dtype=torch.int8),
        iterations=torch.zeros(2, dtype=torch.int64),
        best=torch.tensor([0.5, 0.05]),
        found_by=torch.full((2,), int(FoundBy.PROPOSAL), dtype=torch.int8),
    )
    for learned, expected in ((False, [[0, 1, 2], [1, 2, 0]]), (True, [[1, 2, 0], [1, 2, 0]])):
        begin = beginning(found, answer, z0, torch.ones(2), learned=learned)
        assert begin["candidates"][:, :, 0].tolist() == expected
        kinds = {0: FoundBy.LOCAL, 1: FoundBy.PROPOSAL, 2: FoundBy.NETWORK}
        assert begin["origins"].tolist() == [[int(kinds[k]) for k in row] for row in expected]


def test_every_example_is_evaluated_equally_often() -> None:
    data = invsolve.generate("billiards", 30, seed=2)
    solution = invsolve.solve(
        data, method="jpo", options={"steps": 40, "minibatch": 8, "proposals": "none"}, refine="none"
    )
    assert set(solution.evaluations) == {12}  # ten passes of four minibatches, and two scorings
    assert set(solution.iterations) == {10}
    assert set(solution.status) == {Status.BUDGET}


def test_refinement_keeps_the_better() -> None:
    data = invsolve.generate("billiards", 24, seed=3)
    rough = invsolve.solve(data, method="jpo", options={"steps": 200, "proposals": "none"}, refine="none")
    fine = invsolve.solve(data, method="jpo", options={"steps": 200, "proposals": "none"})
    assert (fine.loss <= rough.loss * (1 + 1e-9)).all()
    assert fine.loss.mean() < 0.5 * rough.loss.mean()


def test_what_a_local_solve_makes_of_the_start_is_told_as_local() -> None:
    """The network never gets a step: only the local solves find anything."""
    data = invsolve.generate("billiards", 12, seed=3)
    solution = invsolve.solve(data, method="jpo", options={"passes": 0, "proposals": "none", "restarts": 0})
    assert solution.found_by is not None
    moved = solution.loss < solution.loss_initial
    assert moved.any()
    assert set(solution.found_by[moved]) <= {FoundBy.LOCAL, FoundBy.NETWORK}
    assert FoundBy.LOCAL in solution.found_by[moved]
    assert set(solution.found_by[~moved]) <= {FoundBy.START}


@pytest.mark.parametrize("network", ["mlp", "conv1d"])
def test_networks_can_be_chosen_by_hand(network: str) -> None:
    data = invsolve.generate("wave-packet", 8, seed=1)
    options = {
        "network": network,
        "width": 16,
        "depth": 1,
        "channels": 4,
        "steps": 30,
        "schedule": "constant",
        "simulations": 10,
    }
    solution = invsolve.solve(data, method="jpo", options=options)
    assert solution.loss.mean() < solution.loss_initial.mean()


def test_a_network_that_does_not_fit_is_refused() -> None:
    data = invsolve.generate("wave-packet", 8, seed=1)
    with pytest.raises(invsolve.OptionError, match="conv2d.*does not fit.*valid here: mlp, conv1d"):
        invsolve.solve(data, method="jpo", options={"network": "conv2d"})


def test_gaps_and_groups_of_identifiers_reach_the_network() -> None:
    def shifted(x: Tensor, identifiers: dict[str, Tensor]) -> Tensor:
        return torch.sin(x * identifiers["rate"]) + identifiers["offset"][:, None]

    rng = np.random.default_rng(1)
    identifiers = {"rate": rng.uniform(0.5, 1, (12, 20)), "offset": rng.uniform(-1, 1, 12)}
    x = rng.uniform(-1, 1, (12, 1))
    targets = np.sin(x * identifiers["rate"]) + identifiers["offset"][:, None]
    targets[:, 3] = np.nan
    targets[4, :10] = np.nan
    data = invsolve.Dataset(targets=targets, identifiers=identifiers, x0=np.zeros(1))
    solution = invsolve.solve(data, shifted, "jpo", options={"steps": 200, "proposals": "none"})
    np.testing.assert_allclose(solution.x, x, atol=1e-3)


def test_a_single_example_can_be_trained_on() -> None:
    data = invsolve.generate("billiards", 1, seed=4)
    solution = invsolve.solve(data, method="jpo", options={"steps": 20})
    assert np.isfinite(solution.loss).all()


def test_the_seed_matters_and_is_all_that_does() -> None:
    data = invsolve.generate("billiards", 12, seed=1)
    torch.manual_seed(99)
    one = invsolve.solve(data, method="jpo", options={"steps": 30}, refine="none", seed=1)
    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    again = invsolve.solve(data, method="jpo", options={"steps": 30}, refine="none", seed=1)
    other = invsolve.solve(data, method="jpo", options={"steps": 30}, refine="none", seed=2)
    assert np.array_equal(one.x, again.x)
    assert not np.array_equal(one.x, other.x)
    torch.manual_seed(99)
    assert torch.equal(state, torch.random.get_rng_state())  # the caller's generator is left as it was


def test_settings_refuse_a_refinement_by_a_joint_method() -> None:
    with pytest.raises(invsolve.OptionError, match="cannot refine with 'jpo'.*; use bfgs, gd, lbfgs"):
        compare(invsolve.generate("billiards", 4), methods=["bfgs"], settings=replace(Settings(), refine="jpo"))
