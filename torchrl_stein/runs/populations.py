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
    data: TensorDictBase, critic: ValueOperator, gamma: float, lmbda: float, num_leading: int = 1
) -> TensorDictBase:
    """Generalised advantages, standardised per particle, and the targets of the critic.

    A truncated episode, and one that the end of a batch cuts, goes on with the critic's value.
    The toolkit of the published experiments counts the time limit as terminal instead; with a
    critic of zero both are the same.

    Args:
        data: ``[n, ..., T]``, of several seeds ``[S, n, ..., T]``.
        critic: writes "state_value".
        gamma: discount.
        lmbda: of the estimator; 1 gives returns minus the baseline.
        num_leading: 2 for several seeds, else 1.

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
    return StandardizePerParticle(num_leading=num_leading)(written)


def training_returns(data: TensorDictBase) -> Tensor:
    """Mean return ``[n]`` of the episodes that ended in data ``[n, E, T]``; NaN where none did.

    Of several seeds, ``[S, n, E, T]``, it is ``[S, n]``.
    """
    done = data["next", "done"].flatten(-3)
    total = data["next", "episode_reward"].flatten(-3) * done
    return total.sum(-1) / done.sum(-1)


def make_kernel(
    section: Mapping[str, Any], actor: ProbabilisticActor, *, seed: int = 0
) -> Kernel:
    """How the particles of an actor interact: the section is that of the settings, the seed that
    of drifts.
    """
    population = actor[0].module
    drifts = {
        "num_particles": tuple(population.leading),
        "dim": population.kernel_dim,
        "seed": seed,
    }
    # What settings cannot say, for they know no network.
    return build(
        section,
        {
            BehaviourKernel: {"actor": actor},
            LayerwiseKernel: {"layer_slices": population.layer_slices},
            DriftControl: drifts,
            SharedDriftControl: drifts,
        },
    )


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
    """Mean return ``[n]`` (or ``[S, n]``) of every policy, acting with its mean action.

    Training does not notice.

    Args:
        make_env: gives environments ``[n, E]`` for this batch size and ``seed=``.
        collector: of training data; one of a batched world plays as fast as it collects.
        actor: of n policies.
        episodes: E, of each policy.
        max_steps: an episode still running then counts with what it has.
        seed: of the starts.
    """
    with isolated_draws(seed):  # from which some environments seed themselves
        env = make_env((*actor[0].module.leading, episodes), seed=seed)
        try:
            if isinstance(collector, WorldCollector):
                starts = env.draw_starts(env.batch_size)
                returns = collector.mean_action_returns(starts, max_steps)
            else:
                how = ExplorationType.DETERMINISTIC
                returns = play_episodes(env, actor, max_steps, how).returns
        finally:
            env.close()
    return returns.mean(-1)


def log_test(
    session: Session, folders: SeedFolders, returns: Tensor, loss: SteinPolicyLoss
) -> None:
    """Log what every policy earns, ``[n]`` or ``[S, n]``, how evenly, and how alike policies are.

    Checkpoints are compared by the mean return.
    """
    session.notes["returns"] = returns.flatten().tolist()
    summary = folders.log_returns("test", returns)
    session.evaluated(summary, summary["mean"])
    if returns.isfinite().any():
        session.log_histogram("test/returns", returns[returns.isfinite()])
    if loss.particles.isfinite().all():  # that they diverged is said where losses are looked at
        matrix = kernel_matrix(loss)  # of several seeds, one below the other
        session.log_image("test/kernel", kernel_image(matrix.flatten(0, -2)))


def inherit_returns(session: Session, parents: Tensor) -> None:
    """Until the next test, a copy has the return of its parent ``[n]`` (``[S, n]``)."""
    known = session.notes.get("returns", [])
    session.notes["returns"] = known
    if known:
        old = torch.tensor(known, dtype=torch.float64).view(parents.shape)
        session.notes["returns"] = old.gather(-1, parents.cpu()).flatten().tolist()


def log_best_episode(
    session: Session, actor: ProbabilisticActor, returns: Tensor, *, seed: int
) -> None:
    """Play one episode of the policy with the best return of all, and keep it as a video."""
    cfg: Any = session.settings
    top = returns.nan_to_num(-math.inf).argmax()
    best = tuple(int(number) for number in torch.unravel_index(top, returns.shape))
    log_episode(
        session,
        EnsemblePolicy(actor, "best", best=best),
        cfg.environment,
        max_steps=cfg.eval.video_steps,
        seed=seed,
        device=cfg.device,
    )
