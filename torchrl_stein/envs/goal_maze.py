"""A point mass among walls and several equally good goals: maps, batched world and environment.

The mazes of Wang et al. 2025 (arXiv:2511.01374) for policies with several modes. The maps stand
here alone; ``torchrl_stein.envs.mujoco.PointGoalMazeEnv`` reads them too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchrl.data import Bounded, TensorSpec

from torchrl_stein._checks import check_count, check_type

from .batched import BatchedEnv
from .drawing import Canvas

# The point mass, which ``mujoco/point_mass.xml`` repeats: kg, m, N at action 1, N s/m, s.
RADIUS = 0.1
MASS = 4.18879020478639  # of a ball of water with this radius
FORCE = 100.0
DAMPING = 1.0
TIME_STEP = 0.01
FRAME_SKIP = 2
SPEED_LIMIT = 5.0  # m/s, of the faster axis
GOAL_REWARD = 100.0

_HALF = 0.5  # m, half the side of a cell
_KEEP = MASS / (MASS + TIME_STEP * DAMPING)
_PUSH = TIME_STEP * FORCE / (MASS + TIME_STEP * DAMPING)
_FAR = 1e3  # m, where a wall stands that there is not
_NEAR = 1e-9  # m, at least so far is a ball from a wall, for it has no direction from inside of one

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class GoalMaze:
    """Map of a maze, in cells of 1 m; the start is the origin, x points right and y up.

    Args:
        text: rows of the map from the top, separated by white space, of ``1`` wall, ``0`` free,
            ``G`` goal, ``R`` start, ``2`` free or an obstacle, ``o`` outside.
        horizon: steps of an episode.

    Raises:
        TypeError: if ``text`` is no string or ``horizon`` no integer.
        ValueError: if ``horizon`` < 1, rows differ in length, hold another letter, not one start or
            no goal, or a way leads out of the map.

    Example:
        >>> maze = GoalMaze("11111 1R0G1 11111", horizon=50)
        >>> maze.goals, maze.walls[0]
        (((2.0, 0.0),), (-1.5, 3.5, 0.5, 1.5))
    """

    text: str
    horizon: int

    def __post_init__(self) -> None:
        check_type("GoalMaze", "a string", str, text=self.text)
        check_count("GoalMaze", horizon=self.horizon)
        wrong = self._fault()
        if wrong:
            raise ValueError(f"GoalMaze: text must {wrong}, got {self.text!r}")

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The lines of the map, from the top."""
        return tuple(self.text.split())

    @cached_property
    def goals(self) -> tuple[Point, ...]:
        """Middles of the G goals, row by row from the top, in metres."""
        return self._find("G")

    @cached_property
    def obstacles(self) -> tuple[Point, ...]:
        """Middles of the cells that may be obstacles, likewise."""
        return self._find("2")

    @cached_property
    def walls(self) -> tuple[Box, ...]:
        """Walls as boxes (x_min, x_max, y_min, y_max) in metres, one for each run of a row."""
        boxes = []
        for row, cells in enumerate(self.rows):
            for run in re.finditer("1+", cells):
                (left, y), (right, _) = self.middle(row, run.start()), self.middle(row, run.end())
                boxes.append((left - _HALF, right - _HALF, y - _HALF, y + _HALF))
        return tuple(boxes)

    @cached_property
    def extent(self) -> Box:
        """Edges of the map (x_min, x_max, y_min, y_max) in metres."""
        (left, top), (right, bottom) = self.middle(0, 0), self.middle(*self.size)
        return left - _HALF, right - _HALF, bottom + _HALF, top + _HALF

    def middle(self, row: int, column: int) -> Point:
        """Where a cell has its middle, (x, y) in metres."""
        start = next(i for i, cells in enumerate(self.rows) if "R" in cells)
        return float(column - self.rows[start].index("R")), float(start - row)

    def is_wall(self, row: int, column: int) -> bool:
        """Whether a cell is a wall; what lies outside of the map is none."""
        rows, columns = self.size
        return 0 <= row < rows and 0 <= column < columns and self.rows[row][column] == "1"

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return len(self.rows), len(self.rows[0])

    def _find(self, letter: str) -> tuple[Point, ...]:
        return tuple(
            self.middle(i, j)
            for i, cells in enumerate(self.rows)
            for j, cell in enumerate(cells)
            if cell == letter
        )

    def _fault(self) -> str | None:
        rows, letters = self.rows, "".join(self.rows)
        if len({len(row) for row in rows}) != 1:
            return "have rows of one length"
        if not set(letters) <= set("10GR2o"):
            return "consist of 1, 0, G, R, 2 and o"
        if letters.count("R") != 1 or "G" not in letters:
            return "have one R and at least one G"
        around = ((0, 1), (0, -1), (1, 0), (-1, 0))
        height, width = self.size
        for i, j in ((i, j) for i in range(height) for j in range(width)):
            if rows[i][j] in "1o":
                continue
            if not all(
                0 <= i + di < height and 0 <= j + dj < width and rows[i + di][j + dj] != "o"
                for di, dj in around
            ):
                return "have walls between free cells and the outside"
        return None


SIMPLE_MAZE = GoalMaze(
    """
    11111111111
    1G0000000G1
    10000000001
    10020002001
    10000000001
    10000R00001
    10000000001
    10020002001
    10000000001
    1G0000000G1
    11111111111
    """,
    horizon=150,
)
"""An open room with four goals in its corners, 150 steps."""

MEDIUM_MAZE = GoalMaze(
    """
    1111111111111
    1G001000100G1
    1000100010001
    1000200020001
    1000000000001
    100111R111001
    1000000000001
    1000200020001
    1000100010001
    1G001000100G1
    1111111111111
    """,
    horizon=300,
)
"""Four goals behind walls, 300 steps."""

HARD_MAZE = GoalMaze(
    """
    ooo1111o1111ooo
    ooo10G111G01ooo
    oo11001010011oo
    111002101200111
    100000000000001
    1G02000000020G1
    111100101001111
    o100000R000001o
    111100101001111
    1G02000000020G1
    100000000000001
    111002101200111
    oo11001010011oo
    ooo10G111G01ooo
    ooo1111o1111ooo
    """,
    horizon=600,
)
"""Eight goals in chambers, 600 steps."""


class _Tables(NamedTuple):
    """What a world knows of its map, in one dtype and on one device; N quarters of cells."""

    walls: Tensor  # [N, 8]: lower and upper bounds of free ground; those of a box of wall
    goals: Tensor  # [N, 1]: index of the goal, or -1
    offset: Tensor  # [2]: of the origin from the left bottom corner, in halves of cells
    obstacles: Tensor  # [number of obstacles, 2]: their middles


@dataclass(frozen=True)
class GoalMazeWorld:
    """Starts, dynamics and reward of a point mass in a maze, without any state of its own.

    The start is the origin at rest. With m the mass, d the damping, F the force of action 1 and h
    the time step, each of two substeps moves a ball of radius 0.1 m by

        v  <-  (m v + h F clip(a, -1, 1)) / (m + h d),    p  <-  P(p + h v)

    where P is the nearest point at which the ball does not overlap a wall; at a wall, the velocity
    along it stays and that into it is lost. After both, v is scaled down so that no component
    exceeds 5 m/s.
    A step that ends within 0.5 m (maximum norm) of a goal pays 100 and ends the episode; all
    others pay 0. With ``obstacles``, a step that ends with the ball touching an obstacle ends the
    episode without reward.

    Maps, goals, reward, speed limit and two substeps are those of Wang et al. 2025
    (arXiv:2511.01374); so is the ball, which they take from D4RL's maze2d (0.1 m, 4.19 kg, 100 N,
    1 N s/m, 0.01 s). Off the walls this is exactly MuJoCo's Euler step. Ours: the observation has
    the limited velocity, obstacles are looked at after both substeps, and contacts are hard. In
    MuJoCo's, which are soft, a ball at full speed sinks in by 4 cm and bounces back at 1 m/s.

    The state [4], which is all observed, is (x, y, v_x, v_y) in m and m/s.

    Args:
        maze: the map.
        obstacles: whether the cells ``2`` of the map are obstacles.

    Raises:
        TypeError: naming the argument that is of another kind.

    Example:
        >>> world = GoalMazeWorld(HARD_MAZE)
        >>> state, reward, terminated = world.step(world.sample_state((64,)), torch.ones(64, 2))
        >>> state.shape, terminated.any().item()
        (torch.Size([64, 4]), False)
    """

    state_dim: ClassVar[int] = 4
    observation_dim: ClassVar[int] = 4
    action_dim: ClassVar[int] = 2

    maze: GoalMaze = SIMPLE_MAZE
    obstacles: bool = False
    _tables: dict[Any, _Tables] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_type(owner, "a GoalMaze", GoalMaze, maze=self.maze)
        check_type(owner, "a bool", bool, obstacles=self.obstacles)
        x_min, _, y_min, _ = self.maze.extent
        corner = (-2 * x_min, -2 * y_min)
        made = (*self._quarters(), corner, self.maze.obstacles)
        for dtype in (torch.float64, torch.float32):
            tables = (torch.tensor(table, device="cpu", dtype=dtype) for table in made)
            self._tables[torch.device("cpu"), dtype] = _Tables(*tables)

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The start, [*shape, 4]: nothing is drawn."""
        start = torch.zeros((*shape, 4), device=device, dtype=dtype)
        self._constants(start)
        return start

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees: all of the state, [..., 4]."""
        return state

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move every row by one step; pure, so it compiles and vmaps."""
        push = action.clamp(-1.0, 1.0) * _PUSH
        position, velocity = state.chunk(2, -1)
        walls = F.embedding(self._quarter(position), self._constants(position).walls).chunk(4, -1)
        for _ in range(FRAME_SKIP):
            velocity = torch.add(push, velocity, alpha=_KEEP)
            position = torch.add(position, velocity, alpha=TIME_STEP)
            position, velocity = _leave_walls(position, velocity, *walls)
        fastest = velocity.abs().amax(-1, keepdim=True)
        velocity = velocity / (fastest / SPEED_LIMIT).clamp_min(1.0)
        return torch.cat((position, velocity), -1), *self.judge(position)

    def judge(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Reward [..., 1] and end [..., 1] (bool) of a step to positions [..., 2]."""
        reached = self._goal_at(position) >= 0
        ended = reached
        if self.obstacles and self.maze.obstacles:
            crashed = self._at_obstacles(position).any(-1, keepdim=True)
            reached, ended = reached & ~crashed, reached | crashed
        return GOAL_REWARD * reached, ended

    def goal_reached(self, observation: Tensor) -> Tensor:
        """Index of the goal that positions or observations lie at, or -1; [...], int64."""
        return self._goal_at(observation[..., :2]).squeeze(-1).long()

    def render(self, state: Tensor) -> Tensor:
        """Draw walls, goals, obstacles and the ball: RGB, uint8 [..., H, W, 3], 16 a cell."""
        x_min, x_max, y_min, y_max = self.maze.extent
        width, height = x_max - x_min, y_max - y_min
        canvas = Canvas(
            state[..., 0],
            size=(round(16 * height), round(16 * width)),
            centre=((x_min + x_max) / 2, (y_min + y_max) / 2),
            width=width,
        )
        for left, right, bottom, top in self.maze.walls:
            middle = (left + right) / 2, (bottom + top) / 2
            canvas.box(middle, (right - left) / 2, (top - bottom) / 2, "grey")
        for goal in self.maze.goals:
            canvas.box(goal, _HALF, _HALF, "green")
        for obstacle in self.maze.obstacles if self.obstacles else ():
            canvas.box(obstacle, _HALF, _HALF, "black")
        canvas.disc((state[..., 0], state[..., 1]), 2 * RADIUS, "orange")
        return canvas.image

    def _goal_at(self, position: Tensor) -> Tensor:
        """Index of the goal that positions [..., 2] lie at, or -1; [..., 1], of their dtype."""
        return F.embedding(self._quarter(position), self._constants(position).goals)

    def _quarter(self, position: Tensor) -> Tensor:
        """Row of the tables for positions [..., 2]: the quarter of a cell in which they lie."""
        height, width = self.maze.size
        in_halves = torch.add(self._constants(position).offset, position, alpha=2.0)
        columns, rows = in_halves.long().unbind(-1)
        return torch.add(columns, rows, alpha=2 * width).clamp(0, 4 * height * width - 1)

    def _at_obstacles(self, position: Tensor) -> Tensor:
        """Which obstacles the ball touches, [..., number of obstacles]."""
        obstacles = self._constants(position).obstacles
        gap = ((position.unsqueeze(-2) - obstacles).abs() - _HALF).clamp_min(0.0)
        return gap.square().sum(-1) <= RADIUS**2

    def _constants(self, like: Tensor) -> _Tables:
        tables = self._tables.get((like.device, like.dtype))
        if tables is None:
            made = self._tables[torch.device("cpu"), torch.float64]
            tables = _Tables(*(table.to(like.device, like.dtype) for table in made))
            # They stay where they are: to copy them in every step would make the device wait.
            if not torch.compiler.is_compiling():
                self._tables[like.device, like.dtype] = tables
        return tables

    def _quarters(self) -> tuple[list[list[float]], list[list[float]]]:
        """Walls and goals of all quarters, bottom row first."""
        maze = self.maze
        height, width = maze.size
        walls, goals = [], []
        numbers = {goal: float(number) for number, goal in enumerate(maze.goals)}
        for i in range(2 * height - 1, -1, -1):
            for j in range(2 * width):
                (row, lower), (column, right) = divmod(i, 2), divmod(j, 2)
                walls.append(_walls_at_corner(maze, row, column, 2 * lower - 1, 2 * right - 1))
                goals.append([numbers.get(maze.middle(row, column), -1.0)])
        return walls, goals


def _walls_at_corner(maze: GoalMaze, row: int, column: int, down: int, across: int) -> list[float]:
    """What a ball can touch that starts a step in the quarter of a cell at one of its corners.

    It moves by 0.11 m at most and touches no wall but those of the other three cells at the corner.
    Two beside each other are one straight wall, where free ground has a bound; if both neighbours
    are walls, it has two. A single wall is a box with a corner that sticks out.
    """
    x, y = maze.middle(row, column)
    x, y = x + across * _HALF, y - down * _HALF
    beside = maze.is_wall(row, column + across)
    over = maze.is_wall(row + down, column)
    opposite = maze.is_wall(row + down, column + across)
    free_x = free_y = (-_FAR, _FAR)
    wall_x = wall_y = (_FAR, _FAR)
    if beside + over + opposite == 1:
        wall_x = _half_line(x, -across if over else across)
        wall_y = _half_line(y, down if beside else -down)
    if beside and (over or opposite):
        free_x = _half_line(x - across * RADIUS, -across)
    if over and (beside or opposite):
        free_y = _half_line(y + down * RADIUS, down)
    points = zip((*free_x, *wall_x), (*free_y, *wall_y), strict=True)
    return [coordinate for point in points for coordinate in point]


def _half_line(end: float, sign: int) -> Point:
    return (end, _FAR) if sign > 0 else (-_FAR, end)


def _leave_walls(
    position: Tensor, velocity: Tensor, low: Tensor, high: Tensor, first: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """The nearest positions [..., 2] that overlap no wall, and the velocity that stays.

    Exact while the ball's middle is not inside of a wall, which it cannot reach within a substep:
    that moves it by half its radius. Walls are rows of :class:`_Tables`.
    """
    inside = torch.clamp(position, low, high)
    velocity = velocity.masked_fill_(inside != position, 0.0)
    away = inside - torch.clamp(inside, first, last)
    # Of balls that touch; others are not pushed, so that their normal does not matter.
    distance = torch.linalg.vector_norm(away, dim=-1, keepdim=True).clamp(_NEAR, RADIUS)
    normal, push = away / distance, RADIUS - distance
    into = (velocity * normal).sum(-1, keepdim=True).clamp_max(0.0) * push.sign()
    return (
        torch.addcmul(inside, normal, push),
        torch.addcmul(velocity, normal, into, value=-1),
    )


class GoalMazeEnv(BatchedEnv):
    """Batched TorchRL environment of ``GoalMazeWorld``.

    The observation [*B, 4] is (x, y, v_x, v_y), all of the state: there is no entry "state".

    Args:
        batch_size, device, seed: as for ``BatchedEnv``.
        maze, obstacles: as for ``GoalMazeWorld``.
        horizon: steps of an episode; None takes those of the maze.

    Example:
        >>> env = GoalMazeEnv((64,), maze=MEDIUM_MAZE)
        >>> env.horizon, env.rollout(5, break_when_any_done=False)["observation"].shape
        (300, torch.Size([64, 5, 4]))
    """

    world: GoalMazeWorld
    state_key = "observation"

    def __init__(
        self,
        batch_size: Sequence[int] = (),
        device: torch.device | str | int | None = None,
        *,
        maze: GoalMaze = SIMPLE_MAZE,
        obstacles: bool = False,
        horizon: int | None = None,
        seed: int | None = None,
    ) -> None:
        world = GoalMazeWorld(maze, obstacles)
        horizon = maze.horizon if horizon is None else horizon
        super().__init__(world, batch_size, device, horizon=horizon, seed=seed)

    def _make_observation_leaf(self) -> TensorSpec:
        x_min, x_max, y_min, y_max = self.world.maze.extent
        low, high = (
            torch.tensor(row, device=self.device).expand(*self.batch_size, 4).clone()
            for row in (
                (x_min, y_min, -SPEED_LIMIT, -SPEED_LIMIT),
                (x_max, y_max, SPEED_LIMIT, SPEED_LIMIT),
            )
        )
        return Bounded(low, high, shape=low.shape, device=self.device, dtype=torch.float32)
