"""Steps of the flow, compiled: traced without a graph break, and by code that was generated."""

import pytest
import torch

from tests.regression.test_flow import N, draw_batch, make_flow, make_posterior
from torchrl_stein.objectives import SinkhornCost

STEPS = 3


def run(cost, fuse=None):
    torch.manual_seed(0)
    flow = make_flow(make_posterior(), cost)
    if fuse is not None:
        flow.compile(fuse)
    directions = [flow.step(*draw_batch(), num_rows=N) for _ in range(STEPS)]
    return [d.stein for d in directions], [d.transport for d in directions], flow.posterior


def test_it_traces_without_a_graph_break():
    torch.compiler.reset()
    cost = SinkhornCost(num_iterations=4)  # each is traced
    want = run(cost)
    got = run(cost, lambda f: torch.compile(f, fullgraph=True, backend="aot_eager"))
    torch.testing.assert_close(got[:2], want[:2])
    torch.testing.assert_close(got[2].particles, want[2].particles)


@pytest.mark.slow
def test_generated_code_gives_the_same_steps():
    """The one test here that runs the compiler to the end."""
    torch.compiler.reset()
    want, got = run(None), run(None, lambda f: torch.compile(f, fullgraph=True))
    torch.testing.assert_close(got[2].particles, want[2].particles)
