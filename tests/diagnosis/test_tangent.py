"""The joint update is what one small step of gradient descent makes of a network's outputs."""

from __future__ import annotations

import torch

import invsolve
from invsolve.diagnosis.sample import draw_sample
from invsolve.diagnosis.tangent import joint_update
from invsolve.methods.jpo import Jpo
from invsolve.methods.solver_network import fresh_network
from invsolve.registry import load_model


def test_it_is_the_change_by_a_small_step() -> None:
    data = invsolve.generate("wave-packet", 6, seed=0, model_options={"samples": 32})
    sample = draw_sample(data, load_model("wave-packet", samples=32), 6, 0, torch.device("cpu"))
    rows = torch.tensor([4, 1, 2])
    update = joint_update(sample.problem, sample.gradient, seed=3)(rows)
    torch.manual_seed(3)
    network, features = fresh_network(Jpo().options, sample.problem)
    network, seen = network.double(), features[rows]
    seen = type(seen)(seen.grid.double(), seen.flat.double())
    before = network(seen)
    scale = sample.gradient.abs().max()
    before.backward(sample.gradient[rows] / scale)
    with torch.no_grad():
        step = 1e-7
        for p in network.parameters():
            p.sub_(step * p.grad)
        change = (network(seen) - before) / step
    torch.testing.assert_close(update.double(), change, rtol=1e-4, atol=1e-4)  # that is in float32


def test_it_leaves_the_random_numbers_of_others_alone() -> None:
    data = invsolve.generate("billiards", 3, seed=0)
    sample = draw_sample(data, load_model("billiards"), 3, 0, torch.device("cpu"))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    joint_update(sample.problem, sample.gradient, seed=5)
    assert torch.rand(1) == expected
