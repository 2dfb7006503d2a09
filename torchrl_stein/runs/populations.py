"""What the recipes of populations share beside their loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives.value.functional import generalized_advantage_estimate

from torchrl_stein.envs import BatchedEnv
from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    GroupedKernel,
    Kernel,
    LayerwiseKernel,
    SharedDriftControl,
)
from torchrl_stein.modules import EnsemblePolicy, StandardizePerParticle
from torchrl_stein.objectives import SteinPolicyLoss

from .collect import WorldCollector
from .evaluation import isolated_draws, play_episodes
from .pictures import kernel_image, kernel_matrix
from .seeds import SeedFolders
from .session import Session
from .targets import build
from .video import log_episode

__all__ = [
    "estimate_advantages",
    "inherit_returns",
    "log_best_episode",
    "log_test",
    "make_kernel",
    "make_population_collector",
    "mean_action_returns",
    "training_returns",
]


@torch.no_grad()
def estimate_advantages(
    data: TensorDictBase, critic: ValueOperator, gamma: float, lmbda: float
) -> TensorDictBase:
    """Generalised advantages, standardised per particle, and the targets of the critic.

    A truncated episode, and one that the end of a batch cuts, goes on with the critic's value.
    The toolkit of the published experiments counts the time limit as terminal instead; with a
    critic of zero both are the same.

    Args:
        data: ``[n, ..., T]``.
        critic: writes "state_value".
        gamma: discount.
        lmbda: of the estimator; 1 gives returns minus the baseline.

    Returns:
        TensorDictBase: "advantage" and "value_target", ``[n, ..., T, 1]``.
    """
    following = data["next"]
    # TorchRL's function and not its GAE module, which looks for NaN on the host; the loop over
    # time and not the vectorised form, which takes 6 to 20 times as long where a batch holds the
    # ends of many episodes.
    advantage, target = generalized_advantage_estimate(
        gamma,
        lmbda,
        critic(data.select(*critic.in_keys))["state_value"],
        critic(following.select(*critic.in_keys))["state_value"],
        following["reward"],
        following["done"],
        following["terminated"],
    )
    written = TensorDict({"advantage": advantage, "value_target": target}, data.batch_size)
    return StandardizePerParticle()(written)


def training_returns(data: TensorDictBase) -> Tensor:
    """Mean return ``[n]`` of the episodes that ended in data ``[n, ...]``; NaN where none did."""
    done = data["next", "done"].flatten(1)
    total = data["next", "episode_reward"].flatten(1) * done
    return total.sum(1) / done.sum(1)


def make_kernel(
    section: Mapping[str, Any], actor: ProbabilisticActor, *, seed: int = 0, num_groups: int = 1
) -> Kernel:
    """How the particles of an actor interact; those of one group among themselves alone.

    The section is that of the settings, the seed that of drifts. Groups are populations of equal
    size, one after the other.
    """
    population = actor[0].module
    drifts = {
        "num_particles": population.num_particles,
        "dim": population.kernel_dim,
        "seed": seed,
    }
    # What settings cannot say, for they know no network.
    kernel = build(
        section,
        {
            BehaviourKernel: {"actor": actor},
            LayerwiseKernel: {"layer_slices": population.layer_slices},
            DriftControl: drifts,
            SharedDriftControl: drifts,
        },
    )
    if num_groups == 1:
        return kernel
    if isinstance(kernel, DriftControl):  # every particle of all groups has a drift of its own
        kernel.kernel = GroupedKernel(kernel.kernel, num_groups)
        return kernel
    return GroupedKernel(kernel, num_groups)


def make_population_collector(
    env: EnvBase, actor: ProbabilisticActor, *, compiled: bool = False, **frames: int
) -> WorldCollector | Collector:
    """Collects from a batched world with tensors alone, from simulators as TorchRL does.

    Both want ``frames_per_batch`` and ``total_frames``.
    """
    if isinstance(env, BatchedEnv):
        return WorldCollector(env, actor, compiled=compiled, **frames)
    return Collector(env, actor, auto_register_policy_transforms=False, **frames)


@torch.no_grad()
def mean_action_returns(
    make_env: Callable[..., EnvBase],
    collector: WorldCollector | Collector,
    actor: ProbabilisticActor,
    *,
    episodes: int,
    max_steps: int,
    seed: int,
) -> Tensor:
    """Mean return ``[n]`` of every policy, acting with its mean action; training does not notice.

    Args:
        make_env: gives environments ``[n, E]`` for this batch size and ``seed=``.
        collector: of training data; one of a batched world plays as fast as it collects.
        actor: of n policies.
        episodes: E, of each policy.
        max_steps: an episode still running then counts with what it has.
        seed: of the starts.
    """
    with isolated_draws(seed):  # from which some environments seed themselves
        env = make_env((actor[0].module.num_particles, episodes), seed=seed)
        try:
            if isinstance(collector, WorldCollector):
                starts = env.draw_starts(env.batch_size)
                returns = collector.mean_action_returns(starts, max_steps)
            else:
                how = ExplorationType.DETERMINISTIC
                returns = play_episodes(env, actor, max_steps, how).returns
        finally:
            env.close()
    return returns.mean(1)


def log_test(
    session: Session, folders: SeedFolders, returns: Tensor, loss: SteinPolicyLoss
) -> None:
    """Log what every policy earns, ``[n]``, how evenly, and how alike the policies are.

    Checkpoints are compared by the mean return.
    """
    session.notes["returns"] = returns.tolist()
    summary = folders.log_returns("test", returns)
    session.evaluated(summary, summary["mean"])
    if returns.isfinite().any():
        session.log_histogram("test/returns", returns[returns.isfinite()])
    if loss.particles.isfinite().all():  # that they diverged is said where losses are looked at
        session.log_image("test/kernel", kernel_image(kernel_matrix(loss)))


def inherit_returns(session: Session, parents: Tensor) -> None:
    """Until the next test, a copy has the return of its parent ``[n]``."""
    known = session.notes.get("returns", [])
    session.notes["returns"] = [known[parent] for parent in parents.tolist() if known]


def log_best_episode(
    session: Session, actor: ProbabilisticActor, returns: Tensor, *, seed: int
) -> None:
    """Play one episode of the policy with the best return of ``[n]``, and keep it as a video."""
    cfg: Any = session.settings
    best = int(returns.nan_to_num(-math.inf).argmax())
    log_episode(
        session,
        EnsemblePolicy(actor, "best", best=best),
        cfg.environment,
        max_steps=cfg.eval.video_steps,
        seed=seed,
        device=cfg.device,
    )
