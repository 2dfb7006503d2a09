"""Environments with policies: our WorldCollector, EnvBase.rollout and TorchRL's Collector."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from tensordict import TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import RewardSum, TransformedEnv
from torchrl.modules import ProbabilisticActor

from benchmarks.speed.harness import Case, Roofline, interleave
from torchrl_stein.envs import (
    CartpoleSwingUpEnv,
    CartpoleSwingUpWorld,
    CartpoleWorld,
    DoublePendulumWorld,
    GoalMazeWorld,
    MountainCarWorld,
    World,
)
from torchrl_stein.runs import WorldCollector, make_gaussian_actor
from torchrl_stein.runs.process import prepare_cpu

__all__ = ["cases", "check_same_data", "make_ours", "make_theirs"]

GROUP = "Collection"
WORLDS: tuple[World, ...] = (
    CartpoleWorld(),
    CartpoleSwingUpWorld(),
    DoublePendulumWorld(),
    GoalMazeWorld(),
    MountainCarWorld(),
)
STEPS = 100
# One policy with a small network, as prototypes had it, and the population of the SVPG recipe.
POLICIES = {"one policy 7-64-1": (1, [64]), "16 policies 7-100-50-25-1": (16, [100, 50, 25])}
TARGETS = {16: "at least 1.7 x rollout", 1024: "at least 1.4 x rollout"}
FUSED_TARGET = "at least 5 x rollout"


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """All rows of this group."""
    prepare_cpu(1)
    on_gpu = device.type == "cuda"
    for policy in POLICIES:
        for rows in (16, 1024, 16_384):
            yield _case(policy, rows, device)
    for rows in (16, 1024, 65_536) if on_gpu else (16,):
        for policy in POLICIES:
            yield _case(policy, rows, device, compiled=True)
    if on_gpu:
        yield _case("16 policies 7-100-50-25-1", 65_536, device)
    for rows in (16, 1024, 16_384, 65_536) if on_gpu else (16, 1024):
        for world in WORLDS:
            yield _world_case(world, rows, device)


def _case(policy: str, rows: int, device: torch.device, *, compiled: bool = False) -> Case:
    steps = max(10, STEPS * 1024 // max(rows, 1024))
    count, cells = POLICIES[policy]
    actor = _actor(count, rows, cells, device)
    check_same_data(count, rows, cells, device)
    ours = make_ours(actor, count, rows, steps, device, compiled=compiled)
    theirs = make_theirs(actor, count, rows, steps, device)
    ours_ms, peers, memory = interleave(ours.collect, theirs, device, memory=not compiled)
    name = f"{policy}, {rows} environments, {steps} steps"
    target = TARGETS.get(rows, "")
    if compiled:
        name, target = f"{name}, compiled", FUSED_TARGET if rows == 16 else ""
    figures = {
        "env steps/s": 1e3 * rows * steps / ours_ms,
        "us per batched step": 1e3 * ours_ms / steps,
    }
    return Case(GROUP, name, ours_ms, peers, memory, target=target, figures=figures)


def _world_case(world: World, rows: int, device: torch.device) -> Case:
    """Steps of the dynamics alone, without TensorDict and policy."""
    state = world.sample_state((rows,), device=device)
    action = torch.rand(rows, world.action_dim, device=device) * 2 - 1
    ours_ms, _, _ = interleave(lambda: world.step(state, action), {}, device, repeats=50)
    figures = {"env steps/s": 1e3 * rows / ours_ms}
    return Case("Worlds", f"{type(world).__name__}, {rows} states", ours_ms, figures=figures)


def _env(count: int, rows: int, device: torch.device) -> CartpoleSwingUpEnv:
    return CartpoleSwingUpEnv((count, rows // count), device=_declared(device), seed=0)


def _declared(device: torch.device) -> torch.device | None:
    # Without a device TorchRL's rollout copies nothing and is a fifth faster: its best case.
    return None if device.type == "cpu" else device


def _actor(count: int, rows: int, cells: list[int], device: torch.device) -> ProbabilisticActor:
    return make_gaussian_actor(_env(count, rows, device), count, cells)


def make_ours(
    actor: ProbabilisticActor,
    count: int,
    rows: int,
    steps: int,
    device: torch.device,
    *,
    compiled: bool = False,
) -> WorldCollector:
    """Our collector of batches of that many steps."""
    frames = rows * steps
    env = _env(count, rows, device)
    return WorldCollector(
        env, actor, frames_per_batch=frames, total_frames=frames, compiled=compiled
    )


def make_theirs(
    actor: ProbabilisticActor, count: int, rows: int, steps: int, device: torch.device
) -> dict[str, Callable[[], TensorDictBase]]:
    """Rollouts, which keep no returns, and TorchRL's collector, whose data are those of ours."""
    env = _env(count, rows, device)
    collector = iter(
        Collector(
            TransformedEnv(_env(count, rows, device), RewardSum()),
            actor,
            frames_per_batch=rows * steps,
            total_frames=-1,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
    )

    @torch.no_grad()
    def roll_out() -> TensorDictBase:
        return env.rollout(steps, actor, break_when_any_done=False)

    return {
        "EnvBase.rollout": roll_out,
        "TorchRL's Collector": lambda: next(collector),
    }


def check_same_data(
    count: int,
    rows: int,
    cells: list[int],
    device: torch.device,
    *,
    steps: int = 10,
    compiled: bool = False,
) -> None:
    """Compare data of all three, of policies that hardly draw: each has numbers of its own.

    Raises:
        AssertionError: if ours lack an entry, or entries differ in shape or in numbers.
    """
    actor = _actor(count, rows, cells, device)
    population = actor[0].module
    with torch.no_grad():  # log standard deviations: as small as they get
        population.particles[:, population.kernel_dim :] = -1e3
    ours = make_ours(actor, count, rows, steps, device, compiled=compiled).collect()
    for name, collect in make_theirs(actor, count, rows, steps, device).items():
        theirs = collect()
        assert ours.batch_size == theirs.batch_size, name
        keys = set(theirs.keys(True, True))
        missing = keys - set(ours.keys(True, True)) - {"state", ("next", "state")}
        missing -= {"done", "terminated", "truncated", "episode_reward"}  # of the step before
        missing -= {key for key in missing if key[0] == "collector"}
        assert not missing, f"{name}: {missing}"
        for key in ("observation", "action", "elapsed_steps"):
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-2, atol=1e-3)
        for key in ("observation", "reward", "done", "terminated", "elapsed_steps"):
            found, expected = ours["next", key], theirs["next", key]
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
