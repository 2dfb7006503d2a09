"""Updates of the off-policy agents beside other people's: ours, TorchRL's, stable-baselines3's.

Soft Q-learning has peers that do the same, checked gradient by gradient: in the way of public
PyTorch code and, on a CPU, jitted in JAX; so has SAC. The others are other algorithms at the same
sizes, for scale: SAC has two Q-networks and one action per state where soft Q-learning has one
network and K + M + K' actions.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import cycle

import numpy as np
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.modules import MLP
from torchrl.objectives import SACLoss, SoftUpdate

from benchmarks.speed.agents import (
    HALF_CHEETAH,
    MULTI_GOAL,
    WAYS,
    Agent,
    Sizes,
    make_agent,
    random_transitions,
)
from benchmarks.speed.harness import (
    Call,
    Case,
    Peer,
    Roofline,
    interleave,
    ours_without_fast_products,
)
from benchmarks.speed.peers import available, jax_runs_on
from benchmarks.speed.plain_soft_q import PlainSoftQ
from torchrl_stein.runs.process import prepare_cpu

__all__ = ["cases", "plain_peer", "torchrl_sac"]

BATCH = 256
SOFT_Q = ["loss.num_action_samples=16", "loss.num_value_samples=16"]
DEFAULTS = ["loss.num_action_samples=4", "loss.num_value_samples=1", "loss.num_qvalue_nets=2"]
DEFAULTS += ["loss.value_target=expected"]
WGF_V = ["loss.num_action_samples=16", "loss.num_value_samples=16"]
CONTEXT = "another algorithm: "
JAX = "the same update jitted in JAX"
ALONE = "its passes through networks alone"
STEP_ALONE = "its Adam and averages of targets alone"
GROUP = "Off-policy updates"


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """All rows of this group."""
    prepare_cpu(1)
    yield _soft_q(HALF_CHEETAH, device, roofline)
    yield _soft_q(MULTI_GOAL, device, roofline)
    for name, weight in (("DP-WGF-V", 0.4), ("DP-WGF-V without its trust region", 0)):
        yield _soft_qv(name, [*WGF_V, f"trust_region.weight={weight}"], device)
    yield from _ways_of_soft_q(device)
    for way in ("eager", "compiled"):
        yield _sac(device, way)
    for recipe in ("td3", "ddpg"):
        for way in ("eager", "compiled"):
            yield _deterministic(recipe, device, way)


# Soft Q-learning.


def plain_peer(agent: Agent, batch: TensorDict) -> PlainSoftQ:
    """Public code's way of the agent's update, with its networks.

    Raises:
        AssertionError: if, from the same random numbers, losses or gradients differ.
    """
    loss = agent.loss
    peer = PlainSoftQ(
        loss.actor_network.network,
        loss.qvalue_network.module,
        alpha=float(loss.temperature),
        gamma=float(loss.value_estimator.gamma),
        particles=loss.num_moved,
        value_samples=loss.num_value_samples,
    )
    torch.manual_seed(0)
    losses = loss(batch)
    (losses["loss_qvalue"] + losses["loss_actor"]).backward()
    torch.manual_seed(0)
    torch.testing.assert_close(losses["loss_qvalue"], peer.compute_gradients(batch))
    _check_gradients(loss.actor_network_params.parameters(), peer.actor)
    _check_gradients(loss.qvalue_network_params.parameters(), peer.qvalue)
    agent.parts["optim"].zero_grad()
    return peer


def _check_gradients(ours: Iterator[torch.Tensor], theirs: nn.Module) -> None:
    for own, other in zip(ours, theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)


def _soft_q(sizes: Sizes, device: torch.device, roofline: Roofline) -> Case:
    agent = make_agent("soft_q", sizes, device, SOFT_Q)
    batch = random_transitions(BATCH, sizes, device)
    peer = plain_peer(agent, batch)
    name = "public code's way, an Adam for each network"
    theirs = {name: lambda: peer.update(batch), **_in_jax(agent, batch)}
    if sizes is HALF_CHEETAH:
        theirs |= _context(sizes, device)
    ours_ms, peers, memory = interleave(
        lambda: agent.update(batch), theirs, device, rounds=11, memory=True
    )
    peers = (*_memory_told(peers), *ours_without_fast_products(lambda: agent.update(batch), device))
    name = f"SoftQLoss, {sizes.name}, 2 x 128, B = {BATCH}, K = M = 16"
    # Public code reaches 20 updates/s on the core where 60 are asked for.
    target = "at least 3 x public code"
    figures = {"updates/s": 1e3 / ours_ms}
    near = ours_ms / roofline.least_ms(_flops(sizes, agent), 0.0)
    return Case(GROUP, name, ours_ms, peers, memory, near, target, figures)


def _flops(sizes: Sizes, agent: Agent) -> float:
    """Of the matrix products alone; 2 for each weight and row, and as often for its gradient."""
    actor, qvalue = (
        sum(p.numel() for p in parameters.parameters() if p.ndim == 2)
        for parameters in (agent.loss.actor_network_params, agent.loss.qvalue_network_params)
    )
    loss = agent.loss
    pushing, moved, targets = loss.num_pushing, loss.num_moved, loss.num_value_samples
    # Of Q: targets; score forward and with respect to actions; the Bellman error's own.
    of_qvalue = qvalue * (targets + 2 * pushing + 3)
    of_actor = actor * (pushing + 3 * moved)
    return 2.0 * BATCH * (of_qvalue + of_actor)


# The others.


def _soft_qv(name: str, overrides: list[str], device: torch.device) -> Case:
    agent = make_agent("soft_qv", HALF_CHEETAH, device, overrides)
    batch = random_transitions(BATCH, HALF_CHEETAH, device)
    ours_ms, peers, memory = interleave(
        lambda: agent.update(batch), _context(HALF_CHEETAH, device), device, memory=True
    )
    title = f"{name}, 16 networks, {HALF_CHEETAH.name}, 2 x 128, B = {BATCH}, K = M = 16"
    return Case(GROUP, title, ours_ms, peers, memory, figures={"updates/s": 1e3 / ours_ms})


def _sac(device: torch.device, way: str) -> Case:
    batch = random_transitions(BATCH, HALF_CHEETAH, device)
    agent = make_agent("sac", HALF_CHEETAH, device)
    by_hand = torchrl_sac(agent, batch)
    theirs = {"TorchRL's SAC, put together by hand": by_hand, **_in_jax(agent, batch)}
    theirs |= _sb3("SAC", HALF_CHEETAH, device) | _least("sac", device)
    ours = _warm_update("sac", WAYS[way], batch, device)
    ours_ms, peers, memory = interleave(ours, theirs, device, memory=True)
    title = f"recipes/sac.py, {HALF_CHEETAH.name}, 2 x 128, B = {BATCH}, {way}"
    peers = _memory_told(peers)
    return Case(GROUP, title, ours_ms, peers, memory, figures={"updates/s": 1e3 / ours_ms})


def _deterministic(recipe: str, device: torch.device, way: str) -> Case:
    """TD3, whose actor learns in every second update, of both, and DDPG."""
    # torch compiles one piece of code, which all losses share, for eight of them at most.
    torch.compiler.reset()
    batch = random_transitions(BATCH, HALF_CHEETAH, device)
    ours = _warm_update(recipe, WAYS[way], batch, device)
    theirs = _sb3(recipe.upper(), HALF_CHEETAH, device) | _least(recipe, device)
    ours_ms, peers, memory = interleave(ours, theirs, device, memory=True)
    title = f"recipes/{recipe}.py, {HALF_CHEETAH.name}, 2 x 128, B = {BATCH}, {way}"
    target = "at least 1.2 x stable-baselines3" if way == "compiled" else ""
    figures = {"updates/s": 1e3 / ours_ms}
    return Case(GROUP, title, ours_ms, peers, memory, target=target, figures=figures)


def _least(recipe: str, device: torch.device) -> dict[str, Call]:
    """What an update with one action of each state can't do without, in two parts.

    Passes are those of networks of these sizes, with the gradients that are needed, on random
    rows. The delay of TD3's actor is followed.
    """
    observation, action = HALF_CHEETAH.observation, HALF_CHEETAH.action
    inputs, outputs = observation + action, 2 * action if recipe == "sac" else action
    shapes = [(observation, outputs), *[(inputs, 1)] * (1 if recipe == "ddpg" else 2)]
    actor, *critics = (
        MLP(size, out, num_cells=[128, 128], activation_class=nn.ReLU, device=device)
        for size, out in shapes
    )
    states, pairs = (torch.randn(BATCH, size, device=device) for size in (observation, inputs))
    chosen = torch.randn(BATCH, inputs, device=device, requires_grad=True)
    averaged = [part for part in (actor, *critics) if recipe != "sac" or part is not actor]
    learnt = [*actor.parameters(), *(p for critic in critics for p in critic.parameters())]
    for parameter in learnt:
        parameter.grad = torch.randn_like(parameter)
    optim = torch.optim.Adam(learnt, fused=True)
    current = [p.detach() for part in averaged for p in part.parameters()]
    targets = [p.clone() for p in current]
    turns = cycle([False, True] if recipe == "td3" else [True])

    def passes() -> None:
        with torch.no_grad():
            actor(states)
            for critic in critics:
                critic(pairs)
        for critic in critics:
            torch.autograd.grad(critic(pairs).sum(), list(critic.parameters()))
        if next(turns):
            for critic in critics[: 1 if recipe == "td3" else None]:
                torch.autograd.grad(critic(chosen).sum(), chosen)
            torch.autograd.grad(actor(states).sum(), list(actor.parameters()))

    def step() -> None:
        optim.step()
        torch._foreach_lerp_(targets, current, 0.005)

    return {ALONE: passes, STEP_ALONE: step}


def _warm_update(
    recipe: str, overrides: list[str], batch: TensorDict, device: torch.device
) -> Call:
    agent = make_agent(recipe, HALF_CHEETAH, device, overrides)
    for _ in range(8):  # compiled in the first, captured in the fifth
        agent.update(batch)
    return lambda: agent.update(batch)


def _context(sizes: Sizes, device: torch.device) -> dict[str, Call]:
    agent = make_agent("sac", sizes, device)
    batch = random_transitions(BATCH, sizes, device)
    by_hand = {f"{CONTEXT}TorchRL's SAC": torchrl_sac(agent, batch)}
    return by_hand | {CONTEXT + name: call for name, call in _sb3("SAC", sizes, device).items()}


def torchrl_sac(agent: Agent, batch: TensorDict) -> Call:
    """TorchRL's loss with an Adam for each of actor and critics and SoftUpdate, as its scripts do.

    Raises:
        AssertionError: if gradients are not those of the agent, which has the same networks.
    """
    loss = deepcopy(agent.loss)
    assert isinstance(loss, SACLoss)
    critics = torch.optim.Adam(loss.qvalue_network_params.parameters(), lr=3e-4)
    actor = torch.optim.Adam(loss.actor_network_params.parameters(), lr=3e-4)
    targets = SoftUpdate(loss, tau=0.005)
    for each in (agent.loss, loss):
        torch.manual_seed(0)
        found = each(batch)
        (found["loss_actor"] + found["loss_qvalue"]).backward()
    for own, other in zip(agent.loss.parameters(), loss.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None)
        if own.grad is not None:
            torch.testing.assert_close(own.grad, other.grad)
    for optimizer in (agent.parts["optim"], critics, actor):
        optimizer.zero_grad()

    def update() -> None:
        losses = loss(batch)
        (losses["loss_actor"] + losses["loss_qvalue"]).backward()
        for optimizer in (critics, actor):
            optimizer.step()
            optimizer.zero_grad()
        targets.step()

    return update


def _in_jax(agent: Agent, batch: TensorDict) -> dict[str, Call]:
    """The same update, checked; nothing on another device than a CPU, or where it is missing."""
    if batch["action"].device.type != "cpu" or not (jax_runs_on("cpu") and available("optax")):
        return {}
    from benchmarks.speed.jax_updates import jax_sac, jax_soft_q

    make = jax_sac if isinstance(agent.loss, SACLoss) else jax_soft_q
    return {JAX: make(agent, batch)}


def _memory_told(peers: tuple[Peer, ...]) -> tuple[Peer, ...]:
    """JAX keeps memory of its own between calls, so that what the process gains says nothing."""
    return tuple(replace(p, memory_mb=None) if p.name == JAX else p for p in peers)


def _sb3(name: str, sizes: Sizes, device: torch.device) -> dict[str, Call]:
    """One gradient step of an agent of stable-baselines3, SAC with a fixed temperature."""
    if not available("stable_baselines3"):
        return {}
    import gymnasium
    import stable_baselines3
    from stable_baselines3.common.logger import Logger

    class Spaces(gymnasium.Env):
        """Nothing but the two spaces."""

        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (sizes.observation,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (sizes.action,), np.float32)

    model = getattr(stable_baselines3, name)(
        "MlpPolicy",
        Spaces(),
        buffer_size=10_000,
        batch_size=BATCH,
        policy_kwargs={"net_arch": [128, 128]},
        device=device,
        **({"ent_coef": 0.1} if name == "SAC" else {}),
    )
    model.set_logger(Logger(None, []))
    draw = np.random.default_rng(0).standard_normal
    for _ in range(2000):
        states, following = draw((2, 1, sizes.observation))
        action = np.tanh(draw((1, sizes.action)))
        model.replay_buffer.add(states, following, action, draw(1), np.zeros(1), [{}])

    def update() -> None:
        model.train(1, BATCH)

    return {f"stable-baselines3's {name}, sampling included": update}


# Fewer launches.


def networks_alone(agent: Agent, sizes: Sizes, device: torch.device) -> Call:
    """What no way of programming saves: an update's passes through networks of these sizes.

    With the gradients that it needs, on random rows; no loss, kernel, optimizer or container.
    """
    loss = agent.loss
    size = sizes.observation + sizes.action  # as many numbers of noise
    actor, *critics = (
        MLP(size, out, num_cells=[128, 128], activation_class=nn.ReLU, device=device)
        for out in (sizes.action, *[1] * loss.num_qvalue_nets)
    )

    def rows(number: int) -> torch.Tensor:
        return torch.randn(BATCH * number, size, device=device)

    stored, drawn, moved = rows(1), rows(loss.num_pushing), rows(loss.num_moved)
    targets, pushing = rows(loss.num_value_samples), rows(loss.num_pushing).requires_grad_()

    def passes() -> None:
        for critic in critics:
            with torch.no_grad():
                critic(targets)
            torch.autograd.grad(critic(pushing).sum(), pushing)
            torch.autograd.grad(critic(stored).sum(), list(critic.parameters()))
        with torch.no_grad():
            actor(drawn)
        torch.autograd.grad(actor(moved).sum(), list(actor.parameters()))

    return passes


def _ways_of_soft_q(device: torch.device) -> Iterator[Case]:
    batch = random_transitions(BATCH, HALF_CHEETAH, device)
    ways = WAYS if device.type == "cuda" else {way: WAYS[way] for way in ("eager", "compiled")}
    for title, overrides in (("K = M = 16", SOFT_Q), ("defaults of SoftQLoss, two Q", DEFAULTS)):
        calls = {
            way: _warm_update("soft_q", [*overrides, *settings], batch, device)
            for way, settings in ways.items()
        }
        agent = make_agent("soft_q", HALF_CHEETAH, device, overrides)
        in_jax = _in_jax(agent, batch)
        for way, call in calls.items():
            others = {name: other for name, other in calls.items() if name != way} | in_jax
            others |= {ALONE: networks_alone(agent, HALF_CHEETAH, device)}
            ours_ms, peers, memory = interleave(call, others, device, memory=True)
            name = f"SoftQLoss, {HALF_CHEETAH.name}, 2 x 128, B = {BATCH}, {title}, {way}"
            target = "at least as fast as JAX" if way == "compiled" and in_jax else ""
            figures = {"updates/s": 1e3 / ours_ms}
            peers = _memory_told(peers)
            yield Case(GROUP, name, ours_ms, peers, memory, target=target, figures=figures)
