"""Soft Q-learning and SAC as one writes them in JAX: the peers of our compiled updates.

Pure functions over networks that are lists of (weight, bias), one jitted function per update:
random numbers, losses, gradients, optax's Adam and target networks. The maths is that of our
agents, so that both can be compared number by number; they report the losses alone, without the
diagnostics of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from jax import Array
from jax.lax import stop_gradient
from tensordict import TensorDictBase
from torchrl.objectives import HardUpdate

from benchmarks.speed.agents import Agent
from benchmarks.speed.harness import Call
from torchrl_stein.functional import expected_value

__all__ = ["jax_sac", "jax_soft_q"]

Network = list[tuple[Array, Array]]
Params = tuple[Network, list[Network]]  # the actor's, and those of each Q-network
Batch = dict[str, Array]
Draws = tuple[Array, Array]  # for the values of the next states, for the actor's step


@dataclass(frozen=True)
class Rules:
    """Of an agent; Q-networks are as many as there are parameters of."""

    alpha: float
    gamma: float
    action: int
    samples: int = 1  # K = M
    value_samples: int = 1
    expected: bool = False  # the value of the actor's own actions, not the soft one of uniform ones
    floor: float = 0.0  # of the bandwidth


class State(NamedTuple):
    """What an update reads and writes."""

    params: Params
    targets: list[Network]
    adam: optax.OptState
    key: Array
    count: Array


def mlp(network: Network, *inputs: Array) -> Array:
    """Of inputs side by side; those without the dimension of actions are repeated along it."""
    width = max(x.ndim for x in inputs)
    rows = next(x.shape[:-1] for x in inputs if x.ndim == width)
    wide = (x if x.ndim == width else x[:, None] for x in inputs)
    x = jnp.concatenate([jnp.broadcast_to(x, (*rows, x.shape[-1])) for x in wide], -1)
    for weight, bias in network[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = network[-1]
    return x @ weight + bias


def qvalues(networks: list[Network], states: Array, actions: Array) -> Array:
    """``[N, B]``, or ``[N, B, K]`` of K actions per state."""
    return jnp.stack([mlp(network, states, actions)[..., 0] for network in networks])


def log_volume(u: Array) -> Array:
    """log abs det of tanh."""
    return (2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))).sum(-1)


# Soft Q-learning.


def soft_q_loss(
    params: Params, targets: list[Network], batch: Batch, draws: Draws, rules: Rules
) -> tuple[Array, Array]:
    """Their sum, which is differentiated, and that of Q."""
    actor, critics = params
    frozen_actor, frozen_critics = stop_gradient(params)
    of_values, noise = draws
    following, alpha = batch["following"], rules.alpha
    if rules.expected:
        actions = jnp.tanh(mlp(frozen_actor, following, of_values))
        value = qvalues(targets, following, actions).min(0).mean(-1)
    else:
        q = qvalues(targets, following, 2.0 * of_values - 1.0).min(0)
        log_mean = jax.nn.logsumexp(q / alpha, -1) - math.log(rules.value_samples)
        value = alpha * (log_mean + rules.action * math.log(2.0))
    goal = batch["reward"] + rules.gamma * (1.0 - batch["terminated"]) * value
    q = qvalues(critics, batch["observation"], batch["action"])
    loss_qvalue = 0.5 * jnp.square(stop_gradient(goal) - q).sum(0).mean()

    states = batch["observation"]
    pushing = mlp(frozen_actor, states, noise[:, : rules.samples])
    moved = mlp(actor, states, noise[:, rules.samples :])

    def log_density(u: Array) -> Array:
        q = qvalues(frozen_critics, states, jnp.tanh(u)).min(0)
        return (q / alpha + log_volume(u)).sum()

    phi = svgd(pushing, stop_gradient(moved), jax.grad(log_density)(pushing), rules.floor)
    loss_actor = -(moved * stop_gradient(phi)).sum(-1).mean()
    return loss_qvalue + loss_actor, loss_qvalue


def svgd(x: Array, y: Array, scores: Array, floor: float) -> Array:
    """The force of x ``[B, K, A]`` on y ``[B, M, A]``."""
    count = x.shape[1]
    square = jnp.square(x[:, :, None] - y[:, None]).sum(-1)
    h = jnp.maximum(lower_median(square.reshape(len(x), -1)) / math.log(count + 1), floor)
    h = h[:, None, None]
    gram = jnp.exp(-square / h)
    repulsion = 2.0 / h * (gram.sum(1)[..., None] * y - jnp.einsum("bji,bja->bia", gram, x))
    return (jnp.einsum("bji,bja->bia", gram, scores) + repulsion) / count


def lower_median(values: Array) -> Array:
    """Of each row ``[B, P]``."""
    return jnp.sort(values, -1)[:, (values.shape[-1] - 1) // 2]


def draw_soft_q(key: Array, batch: int, rules: Rules) -> Draws:
    """As many as :func:`soft_q_loss` reads."""
    first, second = jax.random.split(key)
    draw = jax.random.normal if rules.expected else jax.random.uniform
    return (
        draw(first, (batch, rules.value_samples, rules.action)),
        jax.random.normal(second, (batch, 2 * rules.samples, rules.action)),
    )


# SAC.


def sac_loss(
    params: Params, targets: list[Network], batch: Batch, draws: Draws, rules: Rules
) -> tuple[Array, Array]:
    """Their sum, which is differentiated, and that of Q."""
    actor, critics = params
    frozen_actor, frozen_critics = stop_gradient(params)
    following, states = batch["following"], batch["observation"]
    action, log_prob = sample(frozen_actor, following, draws[0])
    value = qvalues(targets, following, action).min(0) - rules.alpha * log_prob
    goal = batch["reward"] + rules.gamma * (1.0 - batch["terminated"]) * value
    q = qvalues(critics, states, batch["action"])
    loss_qvalue = jnp.square(q - stop_gradient(goal)).sum(0).mean()
    action, log_prob = sample(actor, states, draws[1])
    loss_actor = (rules.alpha * log_prob - qvalues(frozen_critics, states, action).min(0)).mean()
    return loss_qvalue + loss_actor, loss_qvalue


def sample(actor: Network, states: Array, noise: Array) -> tuple[Array, Array]:
    """Squashed Gaussian actions ``[B, A]`` and their log densities; the scale is 1 at 0."""
    loc, raw = jnp.split(mlp(actor, states), 2, -1)
    scale = jax.nn.softplus(raw + math.log(math.expm1(0.99))) + 0.01
    u = loc + scale * noise
    normal = -0.5 * jnp.square(noise) - jnp.log(scale) - 0.5 * math.log(2.0 * math.pi)
    return jnp.tanh(u), normal.sum(-1) - log_volume(u)


def draw_sac(key: Array, batch: int, rules: Rules) -> Draws:
    """As many as :func:`sac_loss` reads."""
    first, second = jax.random.split(key)
    shape = (batch, rules.action)
    return jax.random.normal(first, shape), jax.random.normal(second, shape)


# Both.


def make_update(
    loss: Callable[..., Any],
    draw: Callable[..., Draws],
    adam: optax.GradientTransformation,
    follow: Callable[[Array, Array, Array], Array],
    rules: Rules,
) -> Callable[[State, Batch], tuple[State, Array]]:
    """A jitted update; ``follow(target, parameter, number of the update)`` is the new target."""

    @partial(jax.jit, donate_argnums=0)
    def update(state: State, batch: Batch) -> tuple[State, Array]:
        key, own = jax.random.split(state.key)
        draws = draw(own, len(batch["reward"]), rules)
        differentiate = jax.grad(loss, has_aux=True)
        gradients, losses = differentiate(state.params, state.targets, batch, draws, rules)
        change, moments = adam.update(gradients, state.adam)
        params = optax.apply_updates(state.params, change)
        count = state.count + 1
        targets = jax.tree.map(partial(follow, count), state.targets, params[1])
        return State(params, targets, moments, key, count), losses

    return update


def jax_soft_q(agent: Agent, batch: TensorDictBase) -> Call:
    """The update of an agent of recipes/soft_q.py.

    Raises:
        AssertionError: if, from the same random numbers, losses or gradients differ.
    """
    loss = agent.loss
    rules = Rules(
        alpha=float(loss.temperature),
        gamma=float(loss.value_estimator.gamma),
        action=batch["action"].shape[-1],
        samples=loss.num_moved,
        value_samples=loss.num_value_samples,
        expected=loss.value_target is expected_value,
        floor=loss.kernel.rule.floor,
    )
    torch.manual_seed(0)
    first = torch.randn if rules.expected else torch.rand
    size, action = batch["action"].shape
    draws = first(size, rules.value_samples, action), torch.randn(size, 2 * rules.samples, action)
    return _checked(agent, batch, soft_q_loss, draw_soft_q, draws, rules)


def jax_sac(agent: Agent, batch: TensorDictBase) -> Call:
    """The update of an agent of recipes/sac.py; see :func:`jax_soft_q`."""
    alpha, gamma = float(agent.loss.alpha_init), float(agent.loss.value_estimator.gamma)
    rules = Rules(alpha, gamma, batch["action"].shape[-1])
    torch.manual_seed(0)
    draws = torch.randn_like(batch["action"]), torch.randn_like(batch["action"])
    return _checked(agent, batch, sac_loss, draw_sac, draws, rules)


def _checked(
    agent: Agent,
    batch: TensorDictBase,
    loss: Callable[..., Any],
    draw: Callable[..., Draws],
    draws: tuple[torch.Tensor, ...],
    rules: Rules,
) -> Call:
    rows = {
        "observation": batch["observation"],
        "action": batch["action"],
        "following": batch["next", "observation"],
        "reward": batch["next", "reward"].squeeze(-1),
        "terminated": batch["next", "terminated"].squeeze(-1).float(),
    }
    data = {name: _to_jax(tensor) for name, tensor in rows.items()}
    (actor,) = _networks(agent.loss.actor_network_params)
    params = actor, _networks(agent.loss.qvalue_network_params)
    targets = _networks(agent.loss.target_qvalue_network_params)
    given = tuple(_to_jax(tensor) for tensor in draws)
    found = jax.jit(jax.grad(loss, has_aux=True), static_argnums=4)
    _check(agent, batch, *found(params, targets, data, given, rules))

    optimizer, schedule, target = (agent.parts[name] for name in ("optim", "schedule", "target"))
    lr = optimizer.param_groups[0]["initial_lr"]
    falling = optax.linear_schedule(lr, schedule.end_factor * lr, schedule.total_iters)
    adam = optax.adam(falling)
    if isinstance(target, HardUpdate):
        follow = partial(_copy, target.value_network_update_interval)
    else:
        follow = partial(_move, 1.0 - target.eps)
    update = make_update(loss, draw, adam, follow, rules)
    state = State(params, targets, adam.init(params), jax.random.key(0), jnp.zeros((), jnp.int32))

    def call() -> None:
        nonlocal state
        state, losses = update(state, data)
        jax.block_until_ready((state, losses))

    return call


def _copy(interval: int, count: Array, target: Array, own: Array) -> Array:
    return jnp.where(count % interval == 0, own, target)


def _move(tau: float, count: Array, target: Array, own: Array) -> Array:
    return target + tau * (own - target)


def _check(agent: Agent, batch: TensorDictBase, gradients: Params, loss_qvalue: Array) -> None:
    loss = agent.loss
    torch.manual_seed(0)
    losses = loss(batch)
    (losses["loss_qvalue"] + losses["loss_actor"]).backward()
    np.testing.assert_allclose(loss_qvalue, losses["loss_qvalue"].item(), rtol=1e-3)
    (actor,) = _networks(loss.actor_network_params, gradients=True)
    own = actor, _networks(loss.qvalue_network_params, gradients=True)
    for ours, theirs in zip(jax.tree.leaves(own), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    agent.parts["optim"].zero_grad()


def _networks(params: TensorDictBase, *, gradients: bool = False) -> list[Network]:
    """Weights and biases of one network, or of an ensemble's in the first dimension."""
    entries = params.flatten_keys(".").items()
    found = [(name, p.grad if gradients else p.detach()) for name, p in entries]
    weights, biases = (
        [tensor for name, tensor in found if name.endswith(kind)] for kind in (".weight", ".bias")
    )
    if weights[0].ndim == 2:
        weights, biases = ([tensor[None] for tensor in tensors] for tensors in (weights, biases))
    layers = list(zip(weights, biases, strict=True))
    return [
        [(_to_jax(weight[i].mT), _to_jax(bias[i])) for weight, bias in layers]
        for i in range(len(weights[0]))
    ]


def _to_jax(tensor: torch.Tensor) -> Array:
    """A copy of its own."""
    return jnp.array(tensor.numpy(force=True))
