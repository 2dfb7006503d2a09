"""Cells, walls and goals: a world with four actions, whose soft optimum can be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torchrl.data import OneHot, TensorSpec

from torchrl_stein._checks import check_type

from .batched import ClassicEnv
from .drawing import Canvas
from .world import keep_numbers

__all__ = ["FOUR_ROOMS", "GridWorld", "GridWorldEnv"]

FOUR_ROOMS = (
    "G..#...",
    "...#...",
    ".......",
    "##.#.##",
    "...#...",
    ".......",
    "...#..G",
)
"""Four rooms with doors between them, and a goal in two opposite corners."""

_FREE, _WALL, _GOAL = ".#G"


class GridTransitions(NamedTuple):
    """All that can happen in a grid of M states, as tables."""

    states: Tensor  # the cells where an episode goes on, (row, column), [M, 2]
    rewards: Tensor  # [M, 4]
    following: Tensor  # index of the state after each action, 0 where it ends, [M, 4], int64
    terminated: Tensor  # [M, 4], bool


@dataclass(frozen=True)
class GridWorld:
    """A grid of cells, of which one walks to the goals, without any state of its own.

    A state is (row, column); the four actions, one-hot, go up, down, left and right by one cell.
    Walls and the edge stop the move. Each step costs ``step_cost``; one that reaches a goal pays
    ``goal_reward`` and ends the episode. Episodes start at a free cell, each with the same chance.
    Nothing is random but the start, so that ``transitions()`` and
    :func:`~torchrl_stein.functional.soft_value_iteration` give the soft optimum exactly.

    What is observed is the cell, one-hot [..., H W], row after row: a linear network is a table.

    Args:
        rows: H strings of W characters: "." is free, "#" a wall, "G" a goal.
        step_cost: charged in each step. Where it is below alpha log 4, the entropy of going on is
            worth more than to arrive.
        goal_reward: paid at a goal.

    Example:
        >>> world = GridWorld(("..G",))
        >>> right = torch.tensor([0, 0, 0, 1])
        >>> state, reward, terminated = world.step(torch.tensor([0.0, 1.0]), right)
        >>> state.tolist(), reward.item(), terminated.item()
        ([0.0, 2.0], -1.0, True)
    """

    state_dim: ClassVar[int] = 2
    action_dim: ClassVar[int] = 4

    rows: Sequence[str] = FOUR_ROOMS
    step_cost: float = 1.0
    goal_reward: float = 0.0

    def __post_init__(self) -> None:
        keep_numbers(self, "step_cost", "goal_reward")
        check_type("GridWorld", "a list of strings", (list, tuple), rows=self.rows)
        for row in self.rows:
            check_type("GridWorld", "a list of strings", str, rows=row)
        object.__setattr__(self, "rows", tuple(self.rows))
        cells = "".join(self.rows)
        if len({len(row) for row in self.rows}) != 1 or not set(cells) <= {_FREE, _WALL, _GOAL}:
            raise ValueError(
                f"GridWorld: rows must be of one length and of '.', '#' and 'G', got {self.rows}"
            )
        if _FREE not in cells:
            raise ValueError(f"GridWorld: rows must have a free cell, got {self.rows}")

    @property
    def observation_dim(self) -> int:
        """H W, the number of cells."""
        return len(self.rows) * len(self.rows[0])

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw start cells, [*shape, 2]."""
        free = _cells(self.rows, _FREE, torch.device(device or "cpu")).nonzero().to(dtype)
        index = torch.randint(len(free), tuple(shape), generator=generator, device=device)
        return free[index]

    def observe(self, state: Tensor) -> Tensor:
        """The cell, one-hot, [..., H W], dtype of the state."""
        cells = torch.arange(self.observation_dim, device=state.device)
        return (self._number(state).unsqueeze(-1) == cells).to(state.dtype)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move every row by one step; actions are one-hot, [..., 4]."""
        up, down, left, right = action.to(state.dtype).unbind(-1)
        height, width = len(self.rows), len(self.rows[0])
        row = (state[..., 0] + down - up).clamp(0, height - 1)
        column = (state[..., 1] + right - left).clamp(0, width - 1)
        moved = torch.stack((row, column), -1)
        blocked = self._is(_WALL, moved)
        after = torch.where(blocked, state, moved)
        terminated = self._is(_GOAL, after)
        reward = self.goal_reward * terminated.to(state.dtype) - self.step_cost
        return after, reward, terminated

    def transitions(self) -> GridTransitions:
        """All states and what each of the four actions does there, in float64."""
        states = _cells(self.rows, _FREE, torch.device("cpu")).nonzero().double()
        actions = torch.eye(4, dtype=torch.float64)
        after, rewards, terminated = self.step(
            states.unsqueeze(1).expand(-1, 4, 2), actions.expand(len(states), 4, 4)
        )
        index = torch.zeros(self.observation_dim, dtype=torch.int64)
        index[self._number(states)] = torch.arange(len(states))
        following = index[self._number(after)]
        return GridTransitions(states, rewards.squeeze(-1), following, terminated.squeeze(-1))

    def render(self, state: Tensor) -> Tensor:
        """Draw walls, goals and where one is: RGB, uint8 [..., 20 H, 20 W, 3]."""
        height, width = len(self.rows), len(self.rows[0])
        centre = (0.5 * (width - 1), 0.5 * (1 - height))
        canvas = Canvas(
            state[..., 0], size=(20 * height, 20 * width), centre=centre, width=float(width)
        )
        for r, row in enumerate(self.rows):
            for c, cell in enumerate(row):
                if cell != _FREE:
                    canvas.box((c, -r), 0.5, 0.5, "grey" if cell == _WALL else "green")
        canvas.disc((state[..., 1], -state[..., 0]), 0.3, "orange")
        return canvas.image

    def _number(self, state: Tensor) -> Tensor:
        return (state[..., 0] * len(self.rows[0]) + state[..., 1]).round().long()

    def _is(self, kind: str, state: Tensor) -> Tensor:
        """Whether cells [..., 2] are of a kind, [..., 1]."""
        return _cells(self.rows, kind, state.device).flatten()[self._number(state)].unsqueeze(-1)


@lru_cache
def _cells(rows: tuple[str, ...], kind: str, device: torch.device) -> Tensor:
    """Which cells are of a kind, [H, W]; kept, as a copy to a device would make it wait."""
    return torch.tensor([[cell == kind for cell in row] for row in rows], device=device)


class GridWorldEnv(ClassicEnv):
    """A grid world with one-hot actions: ``GridWorld`` as a batched TorchRL environment.

    Its arguments are keyword arguments; the others are those of ``BatchedEnv``.

    Example:
        >>> env = GridWorldEnv((64,), seed=0, step_cost=0.5)
        >>> env.rollout(5, break_when_any_done=False)["action"].shape
        torch.Size([64, 5, 4])
    """

    world: GridWorld
    make_world = GridWorld

    def _make_action_leaf(self) -> TensorSpec:
        shape = (*self.batch_size, self.world.action_dim)
        return OneHot(self.world.action_dim, shape=shape, device=self.device, dtype=torch.int64)
