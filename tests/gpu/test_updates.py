"""Updates of every agent on a GPU: without waiting, compiled, and as CUDA graphs."""

import pytest
import torch
import torch._inductor.config

pytest.importorskip("hydra")

from tests.gpu.agents import OFF_POLICY_AGENTS, build_off_policy
from tests.training.population_cases import POPULATIONS, build_case
from torchrl_stein.kernels import MedianBandwidth, RBFKernel
from torchrl_stein.objectives import SinkhornCost
from torchrl_stein.regression import ParticleFlow, RegressionPosterior
from torchrl_stein.training import CompileSettings, make_capturable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(900),
]
# Graphs and fused kernels add up in another order, and Adam divides small numbers by each other.
CLOSE = {"rtol": 1e-2, "atol": 1e-3}
GRAPHS, FUSED = CompileSettings(cudagraphs=True), CompileSettings(compile=True)
BOTH = CompileSettings(compile=True, cudagraphs=True)
CASES = [("off_policy", case) for case in OFF_POLICY_AGENTS]
CASES += [("population", case) for case in POPULATIONS]


@pytest.fixture(autouse=True)
def _the_same_random_numbers():
    # The compiler draws its own otherwise.
    with torch._inductor.config.patch(fallback_random=True):
        torch.compiler.reset()
        yield


def build(kind, case):
    """An agent, and a function that gives the batch of an update by its number."""
    if kind == "off_policy":
        return build_off_policy(case, "cuda")
    agent, collector = build_case(case, "cuda")
    batches = [collector.collect() for _ in range(3)]
    return agent, lambda update: batches[update % 3]


def losses_of(agent, batch, seed):
    """Scalars that an update returns."""
    torch.manual_seed(seed)  # of the device's generator too, from which replays also draw
    written = agent.update(batch.clone())
    losses = written[0] if isinstance(written, tuple) else written
    return {name: value for name, value in losses.items() if value.ndim == 0}


def without_waiting(function):
    torch.cuda.set_sync_debug_mode("error")
    try:
        return function()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_an_update_does_not_wait(kind, case):
    agent, batch_of = build(kind, case)
    if case == "sac":  # TorchRL's TanhNormal looks at its bounds unless it is compiled
        agent.compile(FUSED)
    for update in range(3):  # the first calls may set up libraries, and read the count
        agent.update(batch_of(update).clone())
    batch = batch_of(3).clone()  # the fourth moves the actor of TD3, and replaces particles
    without_waiting(lambda: agent.update(batch))


@pytest.mark.parametrize("settings", [GRAPHS, FUSED, BOTH], ids=["graphs", "compiled", "both"])
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_a_faster_update_equals_the_plain_one(kind, case, settings):
    """Rates, temperatures and targets change on the way; each kind of update warms up five times.

    A replay waits by itself, for CudaGraphModule synchronises, so that waiting is not tested here.
    """
    (plain, batch_of), (fast, _) = build(kind, case), build(kind, case)
    fast.compile(settings)
    for update in range(14):
        want = losses_of(plain, batch_of(update), update)
        got = losses_of(fast, batch_of(update), update)
        torch.testing.assert_close(got, want, **CLOSE, msg=lambda m, k=update: f"update {k}: {m}")


def make_flow():
    torch.manual_seed(0)
    posterior = RegressionPosterior(3, 2, 4, num_cells=5).cuda()
    optimizer = torch.optim.RMSprop(posterior.parameters(), lr=1e-2, alpha=0.9, eps=1e-6)
    return ParticleFlow(posterior, RBFKernel(MedianBandwidth("log(n)")), optimizer, SinkhornCost())


@pytest.mark.parametrize("settings", [GRAPHS, FUSED, BOTH], ids=["graphs", "compiled", "both"])
def test_a_faster_flow_equals_the_plain_one(settings):
    plain, fast = make_flow(), make_flow()
    if settings.compile:
        fast.compile(settings.compiled)
    if settings.cudagraphs:
        make_capturable(fast.optimizer)

    def step(features, target):
        return fast.step(features, target, num_rows=30)

    move = settings.captured(step, tensors=True)
    for _ in range(10):
        batch = torch.randn(2, 6, 3, device="cuda"), torch.randn(2, 6, device="cuda")
        want, got = plain.step(*batch, num_rows=30), move(*batch)
        torch.testing.assert_close(got.total, want.total, **CLOSE)
    torch.testing.assert_close(fast.posterior.particles, plain.posterior.particles, **CLOSE)


def test_a_step_of_the_flow_does_not_wait():
    flow, batch = make_flow(), (torch.randn(2, 6, 3).cuda(), torch.randn(2, 6).cuda())
    flow.step(*batch, num_rows=30)
    without_waiting(lambda: flow.step(*batch, num_rows=30))
