"""A point mass and several equally good goals: the world, and its two environments.

The test bed of Haarnoja et al. 2017 (arXiv:1702.08165), section 5 and appendix D.2, for policies
with several modes. The text of the paper calls the reward a mixture of Gaussians; the code that its
authors released charges the squared distance to the nearest goal and the squared action. This
module follows the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, TensorSpec

from torchrl_stein._checks import check_count, check_number, check_type

from .batched import ClassicEnv
from .drawing import Canvas
from .world import keep_numbers

FOUR_GOALS = ((5.0, 0.0), (-5.0, 0.0), (0.0, 5.0), (0.0, -5.0))

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MultiGoalWorld:
    """Starts, dynamics and reward of the multi-goal world, without any state of its own.

    The start is N(0, init_sigma^2 I), clipped to the square. With L the position limit, g the goals
    and 1[.] the indicator,

        a  <- clip(a, -1, 1)
        s' =  clip(s + a, -L, L)
        r  =  -action_cost |a|^2 - distance_cost min_g |s' - g|^2 + goal_reward 1[reached]

    where "reached" is min_g |s' - g| < goal_threshold; it ends the episode if ``ends_at_goal``. A
    goal that leaves a coordinate open is a line. Reward and termination look at the state after the
    step (Haarnoja et al. 2017, arXiv:1702.08165, section 5 and appendix D.2; reward and constants
    of the released code, which differs from the text).

    Args:
        goals: positions of the G goals, [G, 2], in units of length; (x, None) is a vertical line.
        goal_reward: paid on a step that reaches a goal.
        action_cost: charged per unit of squared action.
        distance_cost: charged per unit of squared distance to the nearest goal.
        goal_threshold: a goal is reached strictly within this distance.
        position_limit: half the side of the square that holds the point mass.
        ends_at_goal: whether reaching a goal ends the episode; if not, it pays in each step.
        init_sigma: standard deviation of the start.

    Example:
        >>> world = MultiGoalWorld()
        >>> state, reward, terminated = world.step(torch.zeros(2), torch.tensor([1.0, 0.0]))
        >>> state.tolist(), reward.item(), terminated.item()  # -30 * 1^2 - (5 - 1)^2
        ([1.0, 0.0], -46.0, False)
    """

    state_dim: ClassVar[int] = 2
    observation_dim: ClassVar[int] = 2
    action_dim: ClassVar[int] = 2

    goals: Sequence[Sequence[float | None]] = FOUR_GOALS
    goal_reward: float = 10.0
    action_cost: float = 30.0
    distance_cost: float = 1.0
    goal_threshold: float = 1.0
    position_limit: float = 7.0
    ends_at_goal: bool = True
    init_sigma: float = 0.1

    def __post_init__(self) -> None:
        owner = type(self).__name__
        keep_numbers(self, "goal_reward")
        keep_numbers(self, "action_cost", "distance_cost", "init_sigma", at_least=0)
        keep_numbers(self, "goal_threshold", "position_limit", above=0)
        check_type(owner, "a bool", bool, ends_at_goal=self.ends_at_goal)
        object.__setattr__(self, "goals", _as_goals(owner, self.goals, self.position_limit))

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw start positions, [*shape, 2]."""
        start = torch.randn((*shape, 2), generator=generator, device=device, dtype=dtype)
        return (self.init_sigma * start).clamp(-self.position_limit, self.position_limit)

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees: all of the state, [..., 2]."""
        return state

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move every row by one step; pure, so it compiles, vmaps and differentiates."""
        action = action.clamp(-1.0, 1.0)
        next_state = (state + action).clamp(-self.position_limit, self.position_limit)
        nearest = self.squared_distances(next_state).amin(-1, keepdim=True)
        reached = nearest < self.goal_threshold**2
        reward = (
            self.goal_reward * reached
            - self.action_cost * action.square().sum(-1, keepdim=True)
            - self.distance_cost * nearest
        )
        return next_state, reward, reached & self.ends_at_goal

    def squared_distances(self, state: Tensor) -> Tensor:
        """|s - g|^2 of every position [..., 2] to every goal, [..., G]."""
        return torch.stack([_squared_distance(state, goal) for goal in self.goals], -1)

    def goal_reached(self, observation: Tensor) -> Tensor:
        """Index of the goal that positions [..., 2] have reached, or -1; [...], int64."""
        nearest, index = self.squared_distances(observation).min(-1)
        return torch.where(nearest < self.goal_threshold**2, index, -1)

    def render(self, state: Tensor, size: int = 160) -> Tensor:
        """Draw the goals, as far as they reach, and the point: RGB, uint8 [..., size, size, 3]."""
        check_count(type(self).__name__, size=size)
        limit = self.position_limit
        width = 2.1 * limit
        canvas = Canvas(state[..., 0], size=(size, size), centre=(0.0, 0.0), width=width)
        for goal in self.goals:
            low, high = ([end if g is None else g for g in goal] for end in (-limit, limit))
            canvas.line((low[0], low[1]), (high[0], high[1]), self.goal_threshold, "green")
        # Of a small picture enough pixels that they tell where between them the point is.
        radius = max(0.03 * limit, 1.5 * width / size)
        canvas.disc((state[..., 0], state[..., 1]), radius, "orange")
        return canvas.image


class MultiGoalEnv(ClassicEnv):
    """Batched TorchRL environment of ``MultiGoalWorld``.

    The observation [*B, 2] is the position, all of the state: there is no entry "state". With
    ``pixels=P`` there is a picture of it beside, "pixels", RGB, uint8 [*B, 3, P, P].

    ``**world`` are arguments of ``MultiGoalWorld``, the others those of ``BatchedEnv``.

    Example:
        >>> env = MultiGoalEnv(batch_size=(64,), seed=0, init_sigma=0.5)
        >>> env.rollout(20, break_when_any_done=False)["next", "reward"].shape
        torch.Size([64, 20, 1])
    """

    world: MultiGoalWorld
    make_world = MultiGoalWorld
    state_key = "observation"

    def __init__(
        self,
        batch_size: Sequence[int] = (),
        device: torch.device | str | int | None = None,
        *,
        horizon: int = 20,
        pixels: int | None = None,
        **others: Any,
    ) -> None:
        if pixels is not None:
            check_count(type(self).__name__, pixels=pixels)
        super().__init__(batch_size, device, horizon=horizon, **others)
        self.pixels = pixels
        if pixels is not None:
            shape = (*self.batch_size, 3, pixels, pixels)
            spec = self.observation_spec.clone()
            spec["pixels"] = Bounded(0, 255, shape=shape, device=self.device, dtype=torch.uint8)
            self.observation_spec = spec

    def goal_reached(self, observation: Tensor) -> Tensor:
        """Index of the goal that positions [..., 2] have reached, or -1; [...], int64."""
        return self.world.goal_reached(observation)

    def _pack(
        self, state: Tensor, elapsed: Tensor, terminated: Tensor, **reward: Tensor
    ) -> TensorDictBase:
        packed = super()._pack(state, elapsed, terminated, **reward)
        if self.pixels is not None:
            packed.set("pixels", self.world.render(state, self.pixels).movedim(-1, -3))
        return packed

    def _make_observation_leaf(self) -> TensorSpec:
        limit, shape = self.world.position_limit, (*self.batch_size, 2)
        return Bounded(-limit, limit, shape=shape, device=self.device, dtype=torch.float32)


class MultiGoalGymEnv(gymnasium.Env[Array, Array]):
    """Gymnasium environment of one ``MultiGoalWorld``.

    Observations are positions [2] and actions displacements [2], both float32; ``info`` has the
    index of the "goal" reached, or -1. Reaching a goal terminates. Made by
    ``gymnasium.make("torchrl_stein/MultiGoal-v0")``, it is truncated after 20 steps by gymnasium's
    ``TimeLimit``; the class alone never truncates.

    ``**world`` are arguments of ``MultiGoalWorld``.

    Example:
        >>> env = gymnasium.make("torchrl_stein/MultiGoal-v0", init_sigma=0.0)
        >>> observation, info = env.reset(seed=0)
        >>> env.step(np.array([1.0, 0.0], dtype=np.float32))[1], info["goal"]
        (-46.0, -1)
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's own attribute

    def __init__(self, **world: Any) -> None:
        self.world = MultiGoalWorld(**world)
        limit = self.world.position_limit
        self.observation_space = gymnasium.spaces.Box(-limit, limit, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._position = torch.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Draw a start; without a seed the environment's generator goes on."""
        if seed is not None:
            check_count(type(self).__name__, at_least=0, seed=seed)
        super().reset(seed=seed, options=options)
        limit = self.world.position_limit
        start = self.np_random.normal(0.0, self.world.init_sigma, size=2).clip(-limit, limit)
        self._position = torch.as_tensor(start, dtype=torch.float32)
        return self._observe()

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move by a displacement [2], clipped to [-1, 1]."""
        displacement = torch.as_tensor(action, dtype=torch.float32)
        self._position, reward, terminated = self.world.step(self._position, displacement)
        position, info = self._observe()
        return position, float(reward), bool(terminated), False, info

    def _observe(self) -> tuple[Array, dict[str, Any]]:
        goal = int(self.world.goal_reached(self._position))
        return self._position.numpy().copy(), {"goal": goal}


def _squared_distance(state: Tensor, goal: Sequence[float | None]) -> Tensor:
    pairs = zip(state.unbind(-1), goal, strict=True)
    first, *others = [(x - g).square() for x, g in pairs if g is not None]
    return first + others[0] if others else first


def _as_goals(owner: str, goals: Any, limit: float) -> tuple[tuple[float | None, ...], ...]:
    rows = goals.tolist() if hasattr(goals, "tolist") else goals  # of an array
    if not _is_list(rows) or not all(map(_is_list, rows)):
        raise TypeError(f"{owner}: goals must be numbers of shape [G, 2], got {goals!r}")
    if not rows or any(len(row) != 2 for row in rows):
        raise ValueError(f"{owner}: goals must have shape [G, 2] with G >= 1, got {goals!r}")
    if any(row[0] is None and row[1] is None for row in rows):
        raise ValueError(f"{owner}: goals must have at most one None each, got {goals!r}")
    for value in (value for row in rows for value in row if value is not None):
        check_number(owner, at_least=-limit, at_most=limit, goals=value)
    return tuple(tuple(None if v is None else float(v) for v in row) for row in rows)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
