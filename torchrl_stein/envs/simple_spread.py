"""Agents that are to cover landmarks without bumping into each other, and their environment.

The cooperative navigation of Lowe et al. 2017 (arXiv:1706.02275), after the physics and rewards of
the particle environments that belong to the paper, ``simple_spread``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchrl_stein._checks import check_count

from .batched import ClassicEnv
from .drawing import Canvas
from .world import keep_numbers


@dataclass(frozen=True)
class SimpleSpreadWorld:
    r"""n round agents in a plane, which shall cover as many landmarks.

    With the force f = force_limit a + contacts on every agent, of mass 1, and a clipped to [-1, 1],

        v <- (1 - damping) v + h f,    x <- x + h v.

    Two agents i, j whose distance d is below 2 agent_radius push each other apart, softly,

        contact_force * contact_margin * softplus((2 agent_radius - d) / contact_margin),

    at the positions before the step. The reward, one for all, is the sum over the n agents of what
    each is paid in the state after the step,

        r = -n * sum over landmarks of the distance to the nearest agent - 2 * colliding pairs.

    The state [4 n + 2 m] of n agents and m = n landmarks is (positions, velocities, landmarks), row
    by row. Agent i sees, [4 + 2 m + 2 (n - 1)], its velocity, its position, and from there the
    landmarks and the other agents i + 1, i + 2, ..., the last followed by the first. Starts are
    uniform in [-1, 1]^2, at rest. No state is terminal.

    Differs from the published code: there every agent also collides with itself, -1 for each at
    every step; the others come in the order of their numbers; and silent agents see zeros of each
    other's messages.

    Args:
        num_agents: n.
        agent_radius: of the discs that collide.
        force_limit: the force of action 1; the published environment calls it sensitivity.
        damping: share of the speed that is lost at each step, at most 1.
        time_step: h.
        contact_force, contact_margin: of the contacts, see above.

    Example:
        >>> world = SimpleSpreadWorld(num_agents=3)
        >>> state = world.sample_state((64,))
        >>> world.observe(state).shape, world.step(state, torch.zeros(64, 3, 2))[1].shape
        (torch.Size([64, 3, 14]), torch.Size([64, 1]))
    """

    num_agents: int = 3
    agent_radius: float = 0.15
    force_limit: float = 5.0
    damping: float = 0.25
    time_step: float = 0.1
    contact_force: float = 100.0
    contact_margin: float = 1e-3

    def __post_init__(self) -> None:
        check_count(type(self).__name__, num_agents=self.num_agents)
        keep_numbers(self, "time_step", "contact_margin", above=0)
        keep_numbers(self, "agent_radius", "force_limit", "contact_force", at_least=0)
        keep_numbers(self, "damping", at_least=0, at_most=1)

    @property
    def state_dim(self) -> int:
        """4 n + 2 m: positions and velocities of agents, positions of landmarks."""
        return 6 * self.num_agents

    @property
    def observation_dim(self) -> int:
        """Of one agent."""
        return 4 * self.num_agents + 2

    @property
    def action_dim(self) -> int:
        """Of one agent: a force in the plane."""
        return 2

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw start states [*shape, 6 n]."""
        size = (*shape, 4 * self.num_agents)
        places = 2.0 * torch.rand(size, generator=generator, device=device, dtype=dtype) - 1.0
        agents, landmarks = places.chunk(2, -1)
        return torch.cat([agents, torch.zeros_like(agents), landmarks], -1)

    def split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, velocities and landmarks of a state, [..., n, 2] each."""
        parts = state.unflatten(-1, (3, self.num_agents, 2))
        return parts[..., 0, :, :], parts[..., 1, :, :], parts[..., 2, :, :]

    def observe(self, state: Tensor) -> Tensor:
        """What each agent sees of the state [..., 6 n], [..., n, 4 n + 2]."""
        x, v, landmarks = self.split(state)
        n = self.num_agents
        to_landmarks = landmarks.unsqueeze(-3) - x.unsqueeze(-2)
        others = [x.roll(-k, -2) - x for k in range(1, n)]
        return torch.cat([v, x, to_landmarks.flatten(-2), *others], -1)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move by one step; the action is [..., n, 2]. Pure: it compiles, vmaps, differentiates."""
        x, v, landmarks = self.split(state)
        h, margin, reach = self.time_step, self.contact_margin, 2.0 * self.agent_radius
        apart, distance = self._between(x)
        depth = margin * torch.nn.functional.softplus((reach - distance) / margin)
        # Agents in one place have no direction to part in; they must not become NaN for it.
        contacts = (apart * (depth / distance.clamp_min(1e-6)).unsqueeze(-1)).sum(-2)
        force = self.force_limit * action.clamp(-1.0, 1.0) + self.contact_force * contacts
        v = (1.0 - self.damping) * v + h * force
        x = x + h * v

        to_landmarks = torch.linalg.vector_norm(landmarks.unsqueeze(-2) - x.unsqueeze(-3), dim=-1)
        # Each pair stands twice among the distances, once for either agent.
        collisions = (self._between(x)[1] < reach).sum((-2, -1))
        uncovered = to_landmarks.amin(-1).sum(-1)
        reward = (-self.num_agents * uncovered - collisions).unsqueeze(-1)
        after = torch.cat([x.flatten(-2), v.flatten(-2), landmarks.flatten(-2)], -1)
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def _between(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x_i - x_j, [..., n, n, 2], and distances, of an agent to itself infinite: [..., n, n]."""
        apart = x.unsqueeze(-2) - x.unsqueeze(-3)
        same = torch.eye(self.num_agents, dtype=torch.bool, device=x.device)
        return apart, torch.linalg.vector_norm(apart, dim=-1).masked_fill(same, math.inf)

    def render(self, state: Tensor) -> Tensor:
        """Draw agents (blue) and landmarks (orange): RGB, uint8 [..., 120, 120, 3]."""
        x, _, landmarks = self.split(state)
        canvas = Canvas(state[..., 0], size=(120, 120), centre=(0.0, 0.0), width=3.0)
        for place in x.unbind(-2):
            canvas.disc((place[..., 0], place[..., 1]), self.agent_radius, "blue")
        for place in landmarks.unbind(-2):
            canvas.disc((place[..., 0], place[..., 1]), 0.05, "orange")
        return canvas.image


class SimpleSpreadEnv(ClassicEnv):
    """Agents that shall cover landmarks: ``SimpleSpreadWorld`` as a batched TorchRL environment.

    Reads ("agents", "action") [*B, n, 2], writes ("agents", "observation") [*B, n, 4 n + 2]. The
    constants of the world are keyword arguments; the others are those of ``BatchedEnv``. Episodes
    have 25 steps, as published.

    Example:
        >>> env = SimpleSpreadEnv((16,), seed=0)
        >>> data = env.rollout(5, break_when_any_done=False)
        >>> data["next", "agents", "observation"].shape, data["next", "reward"].shape
        (torch.Size([16, 5, 3, 14]), torch.Size([16, 5, 1]))
    """

    make_world = SimpleSpreadWorld

    def __init__(
        self,
        batch_size: Sequence[int] = (),
        device: torch.device | str | int | None = None,
        *,
        horizon: int = 25,
        seed: int | None = None,
        **world: Any,
    ) -> None:
        super().__init__(batch_size, device, horizon=horizon, seed=seed, **world)
