"""What the recipes of populations share beside their loops; several seeds in one batch."""

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
from .seeds import SeedFolders, mean_metrics
from .session import Session
from .targets import build
from .video import log_episode

__all__ = ["estimate_advantages", "finish_returns", "inherit_returns", "log_best_episode"]
__all__ += [
    "log_returns",
    "log_test",
    "make_kernel",
    "make_population_collector",
    "mean_action_returns",
]
__all__ += ["return_metrics", "training_returns"]

_SUMMARY = ("max", "top4", "mean")


@torch.no_grad()
def estimate_advantages(
    data: TensorDictBase, critic: ValueOperator, gamma: float, lmbda: float, num_leading: int = 1
) -> TensorDictBase:
    """Generalised "advantage", standardised per particle, and "value_target" of the critic.

    A truncated episode, and one that the end of a batch cuts, goes on with the critic's value;
    ``lmbda=1`` gives returns minus the baseline. Data are ``[n, ..., T]``, or ``[S, n, ..., T]`` of
    several seeds with ``num_leading=2``.
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


def make_kernel(section: Mapping[str, Any], actor: ProbabilisticActor, *, seed: int = 0) -> Kernel:
    """How the particles of an actor interact, as settings say; ``seed`` is that of drifts."""
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
    """Collects from a batched world with tensors alone, from simulators as TorchRL does."""
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

    Training does not notice. ``make_env(batch_size, seed=)`` gives environments, of E episodes of
    each policy. The collector of a batched world plays as fast as it collects.
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
    summary = log_returns(folders, "test", returns)
    session.evaluated(summary, summary["mean"])
    if returns.isfinite().any():
        session.log_histogram("test/returns", returns[returns.isfinite()])
    if loss.particles.isfinite().all():  # that they diverged is said where losses are looked at
        matrix = kernel_matrix(loss)  # of several seeds, one below the other
        session.log_image("test/kernel", kernel_image(matrix.flatten(0, -2)))


def inherit_returns(session: Session, parents: Tensor) -> None:
    """Until the next test, a copy has the return of its parent ``[n]`` (``[S, n]``)."""
    known = session.notes.get("returns")
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


def return_metrics(returns: Tensor) -> dict[str, float]:
    """Best, mean, mean of the four best, and every particle's return, of ``[n]``.

    The best of many profits from selection; the others show how the population fares. A return is
    NaN where no episode was finished.
    """
    values = returns.tolist()
    known = sorted((v for v in values if not math.isnan(v)), reverse=True)
    metrics = {f"particle_{i}": v for i, v in enumerate(values)}
    if not known:
        return metrics
    best = known[:4]
    summary = {"max": known[0], "mean": sum(known) / len(known), "top4": sum(best) / len(best)}
    return summary | metrics


def log_returns(folders: SeedFolders, kind: str, returns: Tensor) -> dict[str, float]:
    """Log what particles earn, ``[S, n]``, or ``[n]`` of one seed; return means over seeds."""
    found = [return_metrics(own) for own in returns.view(folders.num_seeds, -1)]
    summary = found[0] if folders.num_seeds == 1 else mean_metrics(found, _SUMMARY)
    step = folders.session.steps // folders.num_seeds
    folders.log([_named(kind, own) for own in found], _named(kind, summary), step)
    return mean_metrics(found, _SUMMARY)


def finish_returns(folders: SeedFolders, returns: Tensor) -> None:
    """Final returns as above, in the ``summary.json`` of each seed and on the terminal."""
    folders.session.print("final test return of each particle, best first:")
    rows = returns.view(folders.num_seeds, -1)
    for own, name in zip(rows, folders.names, strict=True):
        ranked = own.argsort(descending=True).tolist()
        line = "  ".join(f"#{number} {own[number]:.1f}" for number in ranked)
        folders.session.print(f"{name}: {line}" if name else line)
    found = [return_metrics(own) for own in rows]
    folders.finish(found, found[0] if len(found) == 1 else mean_metrics(found, _SUMMARY), _SUMMARY)


def _named(kind: str, metrics: Mapping[str, float]) -> dict[str, float]:
    known = {name: value for name, value in metrics.items() if not math.isnan(value)}
    return {f"{kind}/return_{name}": value for name, value in known.items()}
