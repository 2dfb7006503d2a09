"""The update of a population: coupling, forward and backward, optimizer, and whole iterations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, RewardSum, TransformedEnv
from torchrl.modules import MLP
from torchrl.objectives import A2CLoss, LossModule

from benchmarks.speed.agents import WAYS, Population, make_population
from benchmarks.speed.harness import Case, Roofline, interleave
from torchrl_stein.envs import CartpoleSwingUpEnv
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import SteinPolicyLoss
from torchrl_stein.runs import WorldCollector, make_gaussian_actor, make_linear_critic, make_task
from torchrl_stein.runs.process import prepare_cpu

__all__ = ["cases", "coupled_losses", "optimizers", "populations", "usual_collector"]

CELLS = [100, 50, 25]
N = 16
INPUTS, OUTPUTS = 20, 6
NETWORK = "-".join(str(width) for width in (INPUTS, *CELLS, OUTPUTS))

Networks = tuple[ParticleModule, list[nn.Module]]


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """All rows of this group."""
    prepare_cpu(1)
    for rows in (1000, 10_000):
        yield _coupling(rows, device)
    for rows in (1, 50, 1000, 10_000):
        yield _forward_and_backward(rows, device, roofline)
    yield _optimizer_step(device)
    if device.type == "cuda":
        for count in (16, 64, 256, 1024):
            for way in WAYS:
                yield _iteration(count, device, way)
    else:
        yield _iteration_beside_collector(device)


# Coupling: what SteinPolicyLoss adds to the loss that it wraps.


def coupled_losses(
    rows: int, device: torch.device
) -> tuple[SteinPolicyLoss, A2CLoss, TensorDictBase, Tensor]:
    """The wrapped loss, the bare one, data of that many rows per particle, and the particles.

    Raises:
        AssertionError: if the gradients are not those of the formula.
    """
    env = CartpoleSwingUpEnv((N, 10), device=device, seed=0)
    actor, critic = make_gaussian_actor(env, N, CELLS), make_linear_critic(env, N)
    frames = N * rows
    data = WorldCollector(env, actor, frames_per_batch=frames, total_frames=frames).collect()
    data["advantage"] = torch.randn_like(data["next", "reward"])
    bare = A2CLoss(actor, critic, entropy_bonus=False, critic_coeff=None)
    wrapped = SteinPolicyLoss(bare).to(device)
    population = actor[0].module
    _check_coupling(wrapped, bare, data, population)
    return wrapped, bare, data, population.particles


def _check_coupling(
    wrapped: SteinPolicyLoss, bare: A2CLoss, data: TensorDictBase, population: ParticleModule
) -> None:
    particles, d = population.particles, population.kernel_dim
    alone, together = (_gradient(loss, data, particles) for loss in (bare, wrapped))
    gram, repulsion = wrapped.kernel.gram_and_repulsion(particles.detach()[:, :d])
    alone[:, :d] = gram.mT @ alone[:, :d] - wrapped.temperature / N * repulsion
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


def _gradient(loss: LossModule, data: TensorDictBase, particles: Tensor) -> Tensor:
    particles.grad = None
    losses = loss(data)
    sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
    gradient, particles.grad = particles.grad, None
    return gradient


def _coupling(rows: int, device: torch.device) -> Case:
    wrapped, bare, data, particles = coupled_losses(rows, device)
    ours_ms, peers, memory = interleave(
        lambda: _gradient(wrapped, data, particles),
        {"the bare A2CLoss": lambda: _gradient(bare, data, particles)},
        device,
        rounds=15,
        memory=True,
    )
    overhead = {"overhead, %": 100 * (1 / peers[0].ratio - 1)}
    target = f"overhead at most {15 if rows == 1000 else 5} %"
    name = f"SteinPolicyLoss: loss and gradient, {N} x {rows} rows, {CELLS}"
    return Case("SVPG update", name, ours_ms, peers, memory, target=target, figures=overhead)


# n networks at once, or in turn.


def populations(rows: int, device: torch.device) -> tuple[Networks, Tensor]:
    """A population, the same networks one by one, and inputs.

    Raises:
        AssertionError: if their outputs or gradients differ.
    """
    network = partial(MLP, INPUTS, OUTPUTS, num_cells=CELLS, activation_class=nn.Tanh)
    together = ParticleModule(partial(network, device=device), N)
    plain = [together.particle(i) for i in range(N)]
    x = torch.randn(N, rows, INPUTS, device=device)
    # The mean of all is 1/n of each one's mean.
    _learn_together(together, x)
    found = N * together.particles.grad
    for net, row, gradient in zip(plain, x, found, strict=True):
        net(row).square().mean().backward()
        own = torch.cat([p.grad.flatten() for p in net.parameters()])
        torch.testing.assert_close(gradient, own, rtol=1e-3, atol=1e-5)
        net.zero_grad()
    together.particles.grad = None
    return (together, plain), x


def _learn_together(network: ParticleModule, x: Tensor) -> None:
    network(x).square().mean().backward()


def _forward_and_backward(rows: int, device: torch.device, roofline: Roofline) -> Case:
    (together, plain), x = populations(rows, device)

    def ours() -> None:
        _learn_together(together, x)
        together.particles.grad = None

    def loop() -> None:
        for net, row in zip(plain, x, strict=True):
            net(row).square().mean().backward()
            net.zero_grad()

    ours_ms, peers, memory = interleave(ours, {"a loop": loop}, device, rounds=15, memory=True)
    # Forward, gradient of the weights, gradient of the activations but not of the inputs.
    weights = [a * b for a, b in zip([INPUTS, *CELLS], [*CELLS, OUTPUTS], strict=True)]
    flops = 2 * N * rows * (3 * sum(weights) - weights[0])
    moved = 4 * N * (rows * INPUTS + 3 * sum(weights))
    near = ours_ms / roofline.least_ms(flops, moved)
    name = f"forward and backward of {N} networks {NETWORK}, {rows} rows each"
    target = {50: "at least 3 x a loop", 10_000: "at least 0.95 x a loop"}.get(rows, "")
    return Case("SVPG update", name, ours_ms, peers, memory, near, target)


# One optimizer, or n.


def optimizers(device: torch.device) -> tuple[Callable[[], object], dict[str, Callable]]:
    """One step of the fused Adam over all particles, and of n Adams, from the same gradients.

    Raises:
        AssertionError: if they take different steps.
    """
    (together, plain), x = populations(8, device)
    twins = [together.particle(i) for i in range(N)]
    _learn_together(together, x)
    together.particles.grad *= N  # of each network's own mean, as below
    for net, twin, row in zip(plain, twins, x, strict=True):
        net(row).square().mean().backward()
        twin(row).square().mean().backward()
    one = torch.optim.Adam(together.parameters(), fused=True)
    many = [torch.optim.Adam(net.parameters()) for net in plain]
    fused = [torch.optim.Adam(net.parameters(), fused=True) for net in twins]

    def in_turn(all_of_them: list[torch.optim.Adam]) -> None:
        for optimizer in all_of_them:
            optimizer.step()

    calls = {
        f"{N} Adams": partial(in_turn, many),
        f"{N} fused Adams": partial(in_turn, fused),
    }
    for call in (one.step, *calls.values()):
        call()
    for theirs in (plain, twins):
        outputs = torch.stack([net(row) for net, row in zip(theirs, x, strict=True)])
        torch.testing.assert_close(together(x), outputs, rtol=1e-3, atol=1e-4)
    return one.step, calls


def _optimizer_step(device: torch.device) -> Case:
    ours, theirs = optimizers(device)
    ours_ms, peers, _ = interleave(ours, theirs, device, rounds=15)
    name = f"Adam of {N} networks {NETWORK}: one, fused, on the flat parameter"
    return Case("SVPG update", name, ours_ms, peers, target=f"at least 30 x {N} Adams")


# Whole iterations: data, advantages, loss, step.


def _population(device: torch.device, sizes: tuple[int, int, int], way: str) -> Population:
    """Policies of the recipe, environments of each, and steps of these per iteration."""
    count, envs, steps = sizes
    settings = ["selection=none", f"population.num_particles={count}", f"training.steps={steps}"]
    settings += [f"population.envs_per_particle={envs}", *WAYS[way]]
    return make_population(device, settings)


def usual_collector(env: EnvBase, population: Population, frames: int) -> Collector:
    """TorchRL's collector of the same data as ours."""
    return Collector(
        TransformedEnv(env, RewardSum()),
        population.parts["actor"],
        frames_per_batch=frames,
        total_frames=-1,
        auto_register_policy_transforms=False,
        track_traj_ids=False,
    )


def _iteration_beside_collector(device: torch.device, envs: int = 10, steps: int = 100) -> Case:
    """The same policies' iterations, fed by ours and by TorchRL's collector."""
    frames = N * envs * steps
    population, peer = (_population(device, (N, envs, steps), "eager") for _ in range(2))
    env = make_task(peer.settings.env, (N, envs), device=device.type, seed=0)
    usual = iter(usual_collector(env, peer, frames))
    ours_ms, peers, _ = interleave(
        lambda: population.update(population.collect()),
        {"fed by TorchRL's Collector": lambda: peer.update(next(usual))},
        device,
    )
    figures = {"iterations/s": 1e3 / ours_ms, "env steps/s": 1e3 * frames / ours_ms}
    name = f"whole iteration, {N} particles x {envs} environments x {steps} steps, A2C"
    return Case("SVPG iterations", name, ours_ms, peers, figures=figures)


def _iteration(count: int, device: torch.device, way: str) -> Case:
    """Whole iterations on a GPU."""
    envs, steps = 16, 500
    frames = count * envs * steps
    population = _population(device, (count, envs, steps), way)
    for _ in range(8):  # captured in the fifth
        population.update(population.collect())
    ours_ms, _, memory = interleave(
        lambda: population.update(population.collect()), {}, device, rounds=5, memory=True
    )
    name = f"{way}: whole iteration, {count} particles x {envs} x {steps} steps, A2C"
    target = "under 2000 ms" if count == 256 else ""
    figures = {"iterations/s": 1e3 / ours_ms, "env steps/s": 1e3 * frames / ours_ms}
    return Case("SVPG iterations", name, ours_ms, (), memory, None, target, figures)
