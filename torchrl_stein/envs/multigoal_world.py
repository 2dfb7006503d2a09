"""The multi-goal world itself: dynamics, reward and goals as pure functions of tensors.

A point mass in the plane and several equally good goals: the test bed of Haarnoja et al. 2017
(arXiv:1702.08165), section 5 and appendix D.2, for policies with several modes. The text of the
paper calls the reward a mixture of Gaussians, whereas the code its authors released charges the
squared distance to the nearest goal and the squared action; this module follows the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor

from torchrl_stein._checks import check_number, check_type
from torchrl_stein.envs.constants import keep_numbers
from torchrl_stein.envs.drawing import Canvas

FOUR_GOALS = ((5.0, 0.0), (-5.0, 0.0), (0.0, 5.0), (0.0, -5.0))


class MultiGoalOptions(TypedDict, total=False):
    """Keyword arguments of ``MultiGoalWorld``, which the environments pass through.

    Example:
        >>> options: MultiGoalOptions = {"action_cost": 0.0}
        >>> MultiGoalWorld(**options).action_cost
        0.0
    """

    goals: Sequence[Sequence[float | None]]
    goal_reward: float
    action_cost: float
    distance_cost: float
    goal_threshold: float
    position_limit: float
    ends_at_goal: bool


@dataclass(frozen=True)
class MultiGoalWorld:
    """Dynamics and reward of the multi-goal world, without any state of its own.

    With L the position limit, g the goals and 1[.] the indicator,

        a  <- clip(a, -1, 1)
        s' =  clip(s + a, -L, L)
        r  =  -action_cost |a|^2 - distance_cost min_g |s' - g|^2 + goal_reward 1[reached]

    where "reached" is min_g |s' - g| < goal_threshold; it ends the episode if ``ends_at_goal``. A
    goal may leave a coordinate open: it is a line then, and the distance that to it. Reward and
    termination look at the state after the step (Haarnoja et al. 2017, arXiv:1702.08165, section 5
    and appendix D.2; constants of the released code, see the description of this module).

    Args:
        goals: positions of the G goals, [G, 2], in units of length; (x, None) is a vertical line.
        goal_reward: paid on a step that reaches a goal.
        action_cost: charged per unit of squared action.
        distance_cost: charged per unit of squared distance to the nearest goal.
        goal_threshold: a goal is reached strictly within this distance.
        position_limit: half the side of the square that holds the point mass.
        ends_at_goal: whether reaching a goal ends the episode; if not, it pays in each step.

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if ``goals`` is not a [G, 2] array of finite numbers inside the square, with
            at most one None in each row, if a reward constant is not finite, or if a length is
            not positive and finite.

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

    def __post_init__(self) -> None:
        owner = type(self).__name__
        keep_numbers(self, "goal_reward")
        keep_numbers(self, "action_cost", "distance_cost", at_least=0)
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
        init_sigma: float = 0.1,
    ) -> Tensor:
        """Draws start positions, N(0, init_sigma^2 I) clipped to the square.

        Args:
            shape: leading dimensions.
            generator: source of the randomness; None means torch's global generator.
            device: where the result shall live.
            dtype: of the result.
            init_sigma: standard deviation, in units of length.

        Returns:
            Positions, [*shape, 2].

        Raises:
            TypeError: if ``init_sigma`` is no number.
            ValueError: if it is negative or not finite.

        Example:
            >>> MultiGoalWorld().sample_state((16, 4)).shape
            torch.Size([16, 4, 2])
        """
        check_number(type(self).__name__, at_least=0, init_sigma=init_sigma)
        start = torch.randn((*shape, 2), generator=generator, device=device, dtype=dtype)
        return (init_sigma * start).clamp(-self.position_limit, self.position_limit)

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees: all of the state.

        Args:
            state: positions, [..., 2].

        Returns:
            The same positions.

        Example:
            >>> MultiGoalWorld().observe(torch.ones(2)).tolist()
            [1.0, 1.0]
        """
        return state

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moves every row by one step; pure, so it compiles, vmaps and differentiates.

        Args:
            state: positions, [..., 2], floating point.
            action: displacements, [..., 2], broadcastable against ``state``; clipped to [-1, 1].

        Returns:
            The next state [..., 2], the reward [..., 1] and ``terminated`` [..., 1] (bool).

        Example:
            >>> MultiGoalWorld().step(torch.zeros(64, 2), torch.zeros(64, 2))[1].shape
            torch.Size([64, 1])
        """
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
        """Squared distance of every position to every goal.

        Args:
            state: positions, [..., 2].

        Returns:
            |s - g|^2, [..., G], in squared units of length.

        Example:
            >>> MultiGoalWorld().squared_distances(torch.tensor([1.0, 0.0])).tolist()
            [16.0, 36.0, 26.0, 26.0]
        """
        return torch.stack([_squared_distance(state, goal) for goal in self.goals], -1)

    def goal_reached(self, observation: Tensor) -> Tensor:
        """Tells which goal a position has reached.

        Args:
            observation: positions, [..., 2].

        Returns:
            Index into ``goals`` of the nearest goal, or -1 where none is within the threshold;
            [...], int64.

        Example:
            >>> MultiGoalWorld().goal_reached(torch.tensor([[-4.5, 0.1], [0.0, 0.0]])).tolist()
            [1, -1]
        """
        nearest, index = self.squared_distances(observation).min(-1)
        return torch.where(nearest < self.goal_threshold**2, index, -1)

    def render(self, state: Tensor) -> Tensor:
        """Draws the goals, as far as they reach, and the point.

        Args:
            state: positions, [..., 2].

        Returns:
            RGB image, uint8 [..., 160, 160, 3].

        Example:
            >>> MultiGoalWorld().render(torch.zeros(5, 2)).shape
            torch.Size([5, 160, 160, 3])
        """
        limit = self.position_limit
        canvas = Canvas(state[..., 0], size=(160, 160), centre=(0.0, 0.0), width=2.1 * limit)
        for goal in self.goals:
            low, high = ([end if g is None else g for g in goal] for end in (-limit, limit))
            canvas.line((low[0], low[1]), (high[0], high[1]), self.goal_threshold, "green")
        canvas.disc((state[..., 0], state[..., 1]), 0.03 * limit, "orange")
        return canvas.image


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
