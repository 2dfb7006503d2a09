"""Exact soft-optimal policy of the multi-goal world, by soft value iteration on a grid.

A maximum-entropy learner should find this policy, up to the resolution of the grid: the reference
needs neither samples nor networks. See Haarnoja et al. 2017 (arXiv:1702.08165), section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from torchrl_stein._checks import check_count, check_number, check_type
from torchrl_stein.envs import MultiGoalWorld


@dataclass(frozen=True)
class MultiGoalStatistics:
    """Means over rollouts in the multi-goal world."""

    mean_return: float  # undiscounted, without entropy
    success: float  # fraction of the episodes that reached a goal within the horizon
    mean_length: float  # in steps, truncated episodes counted in full
    goal_frequencies: tuple[float, ...]  # of episodes that ended at each goal; sum to ``success``


@dataclass(frozen=True, eq=False)
class SoftOptimalMultiGoal:
    """The soft-optimal value and policy of a multi-goal world.

    Solves, with alpha the temperature in units of reward and [-1, 1]^2 measured by area,

        Q(s, a) = r(s, a) + discount (1 - terminated) V(s'),
        V(s)    = alpha log int exp(Q(s, a) / alpha) da,
        pi(a|s) = exp((Q(s, a) - V(s)) / alpha)

    (Haarnoja et al. 2017, arXiv:1702.08165, theorem 1). The integral is the midpoint rule on equal
    cells of the action square; V between grid points is bilinear. The world knows no time limit.
    At temperatures above about 12 the entropy, worth up to alpha log 4 a step, makes it optimal
    never to reach a goal: the end of this world has value 0.

    Made by ``solve_multigoal``, whose arguments are fields too. Everything is float64 and on the
    CPU; states and actions are [..., 2], values in units of reward.

    Example:
        >>> optimal = solve_multigoal(10.0, state_points=15, action_cells=5)
        >>> optimal.q_values(torch.tensor([4.0, 0.0]), torch.tensor([0.5, 0.0])).item()
        2.25
    """

    world: MultiGoalWorld
    temperature: float
    discount: float
    values: Tensor  # V at the grid points, [G, G], indexed [x, y] over the whole square
    action_cells: int
    sweeps: int  # backups until convergence

    @property
    def actions(self) -> Tensor:
        """Midpoints of the action cells, [C^2, 2]."""
        return _midpoints(self.action_cells)

    def soft_values(self, states: Tensor) -> Tensor:
        """V(s), [...], bilinear between grid points."""
        return _interpolate(self.values, states.double() / self.world.position_limit)

    def q_values(self, states: Tensor, actions: Tensor) -> Tensor:
        """Q(s, a), [...], by one exact step of the world from any state and action."""
        next_states, rewards, terminated = self.world.step(states.double(), actions.double())
        ahead = self.soft_values(next_states).masked_fill(terminated.squeeze(-1), 0.0)
        return rewards.squeeze(-1) + self.discount * ahead

    def cell_probabilities(self, states: Tensor) -> Tensor:
        """Probability of every action cell, [..., C^2], in the order of ``actions``."""
        return (self.q_values(states.unsqueeze(-2), self.actions) / self.temperature).softmax(-1)

    def sample_actions(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one action per state, [..., 2].

        A cell is drawn by its probability, then a point uniformly inside it: a density that is
        constant on each cell, nearer to the continuous policy than the midpoints alone are.
        """
        weights = self.cell_probabilities(states)
        flat = weights.reshape(-1, weights.shape[-1])
        cells = torch.multinomial(flat, 1, generator=generator).reshape(weights.shape[:-1])
        centres = self.actions[cells]
        inside = torch.rand(centres.shape, generator=generator, dtype=torch.float64)
        return centres + (2.0 * inside - 1.0) / self.action_cells

    def rollout(
        self,
        episodes: int = 1000,
        generator: torch.Generator | None = None,
        *,
        horizon: int = 20,
    ) -> MultiGoalStatistics:
        """Run the policy from the starts of the world, for at most ``horizon`` steps."""
        check_count("rollout", episodes=episodes, horizon=horizon)
        states = self.world.sample_state((episodes,), generator=generator, dtype=torch.float64)
        alive = torch.ones(episodes, 1, dtype=torch.bool)
        returns, lengths = torch.zeros(2, episodes, 1, dtype=torch.float64)
        for _ in range(horizon):
            actions = self.sample_actions(states, generator)
            following, rewards, terminated = self.world.step(states, actions)
            returns += alive * rewards
            lengths += alive
            states = torch.where(alive, following, states)  # the end stays where it was
            alive = alive & ~terminated
        goals = self.world.goal_reached(states)
        frequencies = [(goals == g).double().mean().item() for g in range(len(self.world.goals))]
        return MultiGoalStatistics(
            mean_return=returns.mean().item(),
            success=(~alive).double().mean().item(),
            mean_length=lengths.mean().item(),
            goal_frequencies=tuple(frequencies),
        )


def solve_multigoal(
    temperature: float,
    *,
    world: MultiGoalWorld | None = None,
    discount: float = 0.99,
    state_points: int = 57,
    action_cells: int = 33,
    tolerance: float = 1e-4,
    max_sweeps: int = 2000,
) -> SoftOptimalMultiGoal:
    """Solve a multi-goal world by soft value iteration.

    Equations and source: ``SoftOptimalMultiGoal``. At the defaults the grid has a spacing of 0.25.

    Args:
        temperature: alpha, in units of reward; the paper's is 10.
        world: the dynamics; None means the published constants.
        discount: factor per step, in (0, 1].
        state_points: grid points along each axis of the square, both ends included.
        action_cells: cells along each axis of the action square.
        tolerance: stop when no value moves by more, in units of reward.
        max_sweeps: give up after this many backups.

    Raises:
        RuntimeError: if the values still move after ``max_sweeps`` backups.

    Example:
        >>> solve_multigoal(10.0, state_points=15, action_cells=5).values.shape
        torch.Size([15, 15])
    """
    check_number("solve_multigoal", above=0, temperature=temperature, tolerance=tolerance)
    check_number("solve_multigoal", above=0, at_most=1, discount=discount)
    check_count("solve_multigoal", at_least=2, state_points=state_points)
    check_count("solve_multigoal", action_cells=action_cells, max_sweeps=max_sweeps)
    world = MultiGoalWorld() if world is None else world
    check_type("solve_multigoal", "a MultiGoalWorld", MultiGoalWorld, world=world)
    limit = world.position_limit
    axis = torch.linspace(-limit, limit, state_points, dtype=torch.float64)
    states = torch.cartesian_prod(axis, axis).unsqueeze(-2)
    following, rewards, terminated = world.step(states, _midpoints(action_cells))
    rewards, going_on = rewards.squeeze(-1), discount * ~terminated.squeeze(-1)
    log_area = 2.0 * math.log(2.0 / action_cells)
    values = torch.zeros(state_points, state_points, dtype=torch.float64)
    following /= limit
    for sweep in range(1, max_sweeps + 1):
        q = torch.addcmul(rewards, going_on, _interpolate(values, following))
        updated = temperature * ((q / temperature).logsumexp(-1) + log_area).view_as(values)
        change = (updated - values).abs().max().item()
        values = updated
        if change <= tolerance:
            return SoftOptimalMultiGoal(world, temperature, discount, values, action_cells, sweep)
    raise RuntimeError(
        f"soft value iteration: values still moved by {change:.3g} (tolerance {tolerance:.3g}) "
        f"after max_sweeps={max_sweeps} sweeps."
    )


def _midpoints(cells: int) -> Tensor:
    axis = (2.0 * torch.arange(cells, dtype=torch.float64) + 1.0) / cells - 1.0
    return torch.cartesian_prod(axis, axis)


def _interpolate(values: Tensor, points: Tensor) -> Tensor:
    """Bilinear ``values`` [G, G] at ``points`` [..., 2] of [-1, 1]^2; grid_sample wants (y, x)."""
    grid = points.flip(-1).reshape(1, 1, -1, 2)
    sampled = grid_sample(values[None, None], grid, align_corners=True, padding_mode="border")
    return sampled.reshape(points.shape[:-1])
