"""Steps per second of the goal mazes: the batched world beside MuJoCo, whose model it repeats.

    python -m benchmarks.speed.mazes > benchmarks/results/mazes_speed.md

One thread, CPU time, in turn in one process. A ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import gymnasium
import mujoco  # type: ignore[import-untyped]
import numpy as np
import torch
from torchrl.envs import EnvBase, GymWrapper

from benchmarks.speed.harness import cost
from torchrl_stein.envs import HARD_MAZE, MEDIUM_MAZE, SIMPLE_MAZE, GoalMaze, GoalMazeEnv
from torchrl_stein.envs.mujoco import PointGoalMazeEnv
from torchrl_stein.runs.process import read_provenance

MAZES = {"Simple": SIMPLE_MAZE, "Medium": MEDIUM_MAZE, "Hard": HARD_MAZE}
ROLLOUT = 50
# Against which of the others a ratio is taken.
PEERS = {"world": "MuJoCo", "world, compiled": "MuJoCo", "rollout": "MuJoCo, rollout"}
Steps = tuple[Callable[[], object], int, int]
"""A program, the steps of one call, and calls that are timed as one."""


def programs(name: str, maze: GoalMaze, rows: int) -> dict[str, Steps]:
    """What is timed: ``rows`` balls at once, or one in MuJoCo."""
    batched, single = GoalMazeEnv((rows,), maze=maze, seed=0), PointGoalMazeEnv(maze)
    compiled = torch.compile(batched.world.step, fullgraph=True)
    state = batched.world.sample_state((rows,))
    action = torch.rand(rows, 2) * 2 - 1
    for _ in range(50):
        state, *_ = batched.world.step(state, torch.randn(rows, 2))
    actions = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32)
    model, data = single.model, mujoco.MjData(single.model)
    wrapped = GymWrapper(gymnasium.make(f"torchrl_stein.envs:torchrl_stein/GoalMaze{name}-v0"))

    def simulate() -> None:
        for push in actions:
            if single.step(push)[2]:
                single.reset()

    def simulate_barely() -> None:
        for push in actions:
            data.ctrl[:] = push
            mujoco.mj_step(model, data, single.frame_skip)

    def judge() -> None:
        position = torch.from_numpy(single.data.qpos)
        single.world.judge(position)
        single.world.goal_reached(position).numpy()

    single.reset(seed=0)
    return {
        "world": (lambda: batched.world.step(state, action), rows, 100),
        "world, compiled": (lambda: compiled(state, action), rows, 300),
        "MuJoCo": (simulate, len(actions), 2),
        "MuJoCo, mj_step alone": (simulate_barely, len(actions), 20),
        "MuJoCo, reward and goal alone": (judge, 1, 200),
        "rollout": (lambda: _roll_out(batched), rows * ROLLOUT, 1),
        "MuJoCo, rollout": (lambda: _roll_out(wrapped), ROLLOUT, 1),
    }


def _roll_out(env: EnvBase) -> object:
    return env.rollout(ROLLOUT, break_when_any_done=False)


def main() -> None:
    """Print a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=25)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    about = read_provenance()
    print("# Steps per second of the goal mazes\n")
    print(f"`python -m benchmarks.speed.mazes`, torch {torch.__version__}, {about['device']}, one")
    print(f"thread, CPU time, B = {given.rows}, median of {given.rounds} rounds.\n")
    print("A step is 0.02 s of one ball, two of `mj_step`. The peer of the world is our MuJoCo")
    print("environment, that of `rollout` the rollout of the same in TorchRL's `GymWrapper`, both")
    print("with random actions. What MuJoCo's environment costs beyond `mj_step` is mostly Python:")
    print("gymnasium's, and reward and goal of one ball by the functions of the batched world.\n")
    print("| maze | program | steps/s | times its peer | times mj_step alone |")
    print("|---|---|---|---|---|")
    for name, maze in MAZES.items():
        timed = programs(name, maze, given.rows)
        rates: dict[str, list[float]] = {program: [] for program in timed}
        with torch.no_grad():
            for call, *_ in timed.values():
                call()
            for _ in range(given.rounds):
                for program, (call, steps, repeats) in timed.items():
                    seconds = cost(call, torch.device("cpu"), repeats)
                    rates[program].append(steps / seconds)
        for program, own in rates.items():
            peer = _ratio(own, rates[PEERS[program]]) if program in PEERS else ""
            bare = _ratio(own, rates["MuJoCo, mj_step alone"])
            print(f"| {name} | {program} | {statistics.median(own):,.0f} | {peer} | {bare} |")


def _ratio(own: list[float], theirs: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(own, theirs, strict=True)):.3g}"


if __name__ == "__main__":
    main()
