"""ShardedSteinPolicyLoss: two real processes, compared with SteinPolicyLoss in one."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close
from torchrl.objectives import ReinforceLoss

from tests.objectives.sharded_worker import CASES, WIDTH, WORLD, N, make_networks, prepare, train
from tests.objectives.stein_builders import NO_UPDATER, gaussian, run, total, value
from torchrl_stein.kernels import BehaviourKernel, RBFKernel
from torchrl_stein.modules import shard_particles
from torchrl_stein.modules.population import find_population
from torchrl_stein.objectives import (
    NaturalGradientStep,
    ShardedSteinPolicyLoss,
    SteinPolicyLoss,
    TRPOLoss,
)

pytestmark = [
    pytest.mark.skipif(not dist.is_gloo_available(), reason="needs the backend gloo"),
    pytest.mark.filterwarnings(NO_UPDATER),
]
ROOT = Path(__file__).parents[2]
GATHER = ("all_gather_single", "all_gather_into_tensor")  # by the version of torch
EXACT = {"rtol": 1e-10, "atol": 1e-12}
# Adam divides by the gradient's size, so that rounding counts where a gradient is nearly zero.
SINGLE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # also where the host's name has no address
    command = [sys.executable, "-m", "tests.objectives.sharded_worker"]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(folder)],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * WORLD, "\n".join(errors)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD)]


def joined(name, parts, whole):
    """Rows of all ranks; of what every rank has as a whole, that."""
    if parts[0].shape == whole.shape:
        for part in parts[1:]:
            assert part.equal(parts[0]), name
        return parts[0]
    return torch.cat(parts)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_do_what_one_does(ranks, case):
    alone, parts = train(CASES[case]), [rank["runs"][case] for rank in ranks]
    single = CASES[case].get("dtype") is torch.float32
    close = SINGLE if single else EXACT
    for i, update in enumerate(alone["updates"]):
        shares = [part["updates"][i] for part in parts]
        for name, expected in update["gradients"].items():
            rows = joined(name, [share["gradients"][name] for share in shares], expected)
            assert_close(rows, expected, **close, msg=lambda text, name=name: f"{name}: {text}")
        for name, expected in update["losses"].items():
            found = torch.stack([share["losses"][name] for share in shares])
            if name.startswith("loss"):
                assert_close(found.sum(0), expected, **close)
            elif name in ("temperature", "kernel_offdiag", "kernel_bandwidth"):
                assert_close(found, expected.expand(WORLD), **close)
        for name, expected in update["figures"].items():
            found = torch.stack([share["figures"][name] for share in shares])
            assert_close(found, expected.expand(WORLD), **close)
    for name, expected in alone["parameters"].items():
        rows = joined(name, [part["parameters"][name] for part in parts], expected)
        assert_close(rows, expected, **(SINGLE if single else {"rtol": 0, "atol": 1e-6}))


def test_what_comes_from_the_other_process_matters():
    """Half of a population alone has other gradients: the comparison above says something."""
    whole, data = prepare(CASES["reinforce"])
    networks, make = make_networks(CASES["reinforce"])
    half = SteinPolicyLoss(make(*(shard_particles(network, 0, WORLD) for network in networks)))
    own = slice(0, N // WORLD)
    total(whole(data[0])).backward()
    total(half(data[0][own])).backward()
    assert (half.particles.grad / WORLD - whole.particles.grad[own]).abs().max() > 1e-2


def test_an_update_gathers_twice(ranks):
    own = N // WORLD * WIDTH * 8  # this rank's rows, in double precision
    for rank in ranks:
        calls = rank["calls"]
        for part in ("forward", "backward"):
            ((name, size),) = calls[part]
            assert (name in GATHER, size) == (True, own)
        assert calls["diagnose"] == [("all_reduce", 2 * 8)]
        assert calls["steps"] == []


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("number", "number of particles is 3 on rank 0 and 1 on rank 1"),
        ("same", "got particle 0 of rank 1 equal to particle 0 of rank 0; build the whole"),
        ("temperature", "temperature is 0.7"),
        ("kernel", "kernel is RBFKernel"),
        ("dtype", "dtype is torch.float64 on rank 0 and torch.float32 on rank 1"),
    ],
)
def test_all_ranks_refuse_what_does_not_fit_together(ranks, case, message):
    found = [rank["refusals"][case] for rank in ranks]
    assert found[0] == found[1]
    assert message in found[0]


def test_a_group_of_some_processes(ranks):
    assert ranks[0]["outsider"] == 1
    assert "process_group must contain this process, global rank 1" in ranks[1]["outsider"]


# One process


@pytest.fixture
def world_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def one_rank(**options):
    return ShardedSteinPolicyLoss(ReinforceLoss(gaussian(), value()), **options)


@pytest.fixture
def pair(monkeypatch):
    """The sharded loss with one rank, the loss of one process, and their data."""
    monkeypatch.setattr("tests.objectives.sharded_worker.WORLD", 1)
    sharded, data = prepare(CASES["a2c"], rank=0)
    return sharded, prepare(CASES["a2c"])[0], data


def test_one_rank_is_one_process(world_of_one, pair):
    sharded, plain, data = pair
    assert type(sharded) is not type(plain)
    found, expected = sharded(data[0]), plain(data[0])
    assert sorted(found.keys()) == sorted(expected.keys())
    for name, losses in expected.items():
        assert found[name].equal(losses), name
    for own, other in zip(
        torch.autograd.grad(total(found), list(sharded.parameters())),
        torch.autograd.grad(total(expected), list(plain.parameters())),
        strict=True,
    ):
        assert_close(own, other, **EXACT)


def test_losses_may_be_scaled_and_gradients_accumulated(world_of_one, pair):
    sharded, plain, data = pair
    for loss in (sharded, plain):
        first = loss(data[0])  # two graphs at once
        (0.5 * total(loss(data[1]))).backward()
        (2.0 * total(first)).backward()
    assert_close(sharded.particles.grad, plain.particles.grad, **EXACT)


def test_a_state_is_that_of_the_loss_it_stands_for(world_of_one, pair):
    sharded, plain, data = pair
    with torch.no_grad():
        plain.particles.add_(1.0)
    sharded.load_state_dict(plain.state_dict())
    copied = deepcopy(sharded)
    assert_close(run(copied, data[0])["loss_repulsion"], run(plain, data[0])["loss_repulsion"])


def test_figures_want_a_gradient(world_of_one):
    with pytest.raises(RuntimeError, match=r"call diagnose\(\) after backward\(\)"):
        one_rank().diagnose()


def test_there_must_be_processes():
    with pytest.raises(RuntimeError, match=r"process_group must be initialised.*there is none"):
        one_rank()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda actor: BehaviourKernel(actor), r"must not observe.*got BehaviourKernel"),
        (lambda actor: RBFKernel() * BehaviourKernel(actor), r"must not observe.*BehaviourKernel"),
    ],
)
def test_kernels_that_cannot_span_processes(world_of_one, kernel, message):
    actor = gaussian()
    with pytest.raises(ValueError, match=message):
        ShardedSteinPolicyLoss(ReinforceLoss(actor, value()), kernel=kernel(actor))


def test_several_seeds_are_refused(world_of_one):
    with pytest.raises(ValueError, match=r"population of one seed \[n, d\] .* got 2 seeds"):
        ShardedSteinPolicyLoss(ReinforceLoss(gaussian(n=(2, 3)), value(n=(2, 3))))


def test_natural_steps_need_all_particles(world_of_one):
    loss = ShardedSteinPolicyLoss(TRPOLoss(gaussian(), normalize_advantage=False))
    with pytest.raises(TypeError, match="NaturalGradientStep: loss must have all particles"):
        NaturalGradientStep(loss)


def test_shared_parameters_are_refused(world_of_one):
    actor = gaussian(shared=["0.bias"])
    with pytest.raises(ValueError, match=r"without shared parameters.*shared of size 4"):
        ShardedSteinPolicyLoss(ReinforceLoss(actor, value()))


# Rows of a population


def test_shards_are_the_population():
    whole = gaussian(6)
    before = {name: tensor.clone() for name, tensor in whole.named_parameters()}
    parts = [shard_particles(whole, rank, 3) for rank in range(3)]
    populations = [find_population("test", "network", p)[1] for p in parts]
    particles = find_population("test", "network", whole)[1].particles
    assert torch.cat([p.particles for p in populations]).equal(particles)
    assert all(isinstance(p.particles, torch.nn.Parameter) for p in populations)
    with torch.no_grad():
        populations[0].particles.zero_()
    assert all(tensor.equal(before[name]) for name, tensor in whole.named_parameters())


@pytest.mark.parametrize(
    ("network", "rank", "world_size", "message"),
    [
        (lambda: gaussian(5), 0, 2, r"world_size must divide the number of particles 5, got 2"),
        (lambda: gaussian(4), 2, 2, r"rank must be >= 0 and <= 1, got 2"),
        (lambda: gaussian(4), 0, 0, r"world_size must be >= 1, got 0"),
        (lambda: gaussian(4), -1, 2, r"rank must be .* got -1"),
        (lambda: torch.nn.Linear(1, 1), 0, 1, r"must contain a ParticleModule, got Linear"),
    ],
)
def test_parts_that_cannot_be(network, rank, world_size, message):
    with pytest.raises(ValueError, match=message):
        shard_particles(network(), rank, world_size)


@pytest.mark.parametrize(
    ("network", "rank", "world_size", "message"),
    [
        (lambda: gaussian(4), 0.0, 2, "rank must be an integer >= 0 and <= 1, got 0.0"),
        (lambda: gaussian(4), True, 2, "rank must be an integer .*, got True"),
        (lambda: gaussian(4), 0, "2", "world_size must be an integer >= 1, got '2'"),
        (lambda: gaussian, 0, 2, "network must be a module, got function"),
    ],
)
def test_parts_of_another_kind(network, rank, world_size, message):
    with pytest.raises(TypeError, match=f"shard_particles: {message}"):
        shard_particles(network(), rank, world_size)
