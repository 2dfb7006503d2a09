"""A whole training run of an off-policy algorithm: data, evaluation, results on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from .checkpoint import check_same_problem, read_metadata
from .evaluation import play_episodes
from .multigoal import draw_trained_agent, evaluate_multigoal
from .off_policy import train_off_policy
from .off_policy_agent import OffPolicyAgent, OffPolicySettings
from .resume import resumed_config
from .run import Run, spawn_seeds
from .tasks import make_task

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["evaluate_agent", "run_off_policy_recipe", "train_off_policy_run"]


def evaluate_agent(
    agent: OffPolicyAgent, config: Mapping[str, Any], episodes: int, seed: int
) -> dict[str, float]:
    """Play one batch of episodes with an agent's policy.

    Args:
        agent: its ``policy`` acts.
        config: with the keys ``env``, ``eval`` and ``device`` of ``recipes/conf/off_policy.yaml``.
        episodes: how many, all at once.
        seed: of the starts.

    Returns:
        dict: ``return`` and ``length`` (means) and ``return_std``; on the multi-goal world those
        of :func:`multigoal_metrics`.
    """
    env, max_steps = config["env"], config["eval"]["max_steps"]
    if env["name"] == "multigoal":
        return evaluate_multigoal(agent, episodes, max_steps, seed)[0]
    deterministic = config["eval"]["deterministic"]
    mode = ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM
    world = make_task(
        env["name"], (episodes,), device=config["device"], seed=seed, options=env["options"]
    )
    played = play_episodes(world, agent.policy, max_steps, mode)
    world.close()
    return {
        "return": played.returns.mean().item(),
        "return_std": played.returns.std(correction=0).item(),
        "length": played.lengths.float().mean().item(),
    }


def train_off_policy_run(
    config: Mapping[str, Any], make_agent: Callable[[EnvBase], OffPolicyAgent]
) -> tuple[Run, OffPolicyAgent, bool]:
    """A whole training run, final metrics in ``summary.json``.

    Args:
        config: plain values, with the keys of ``recipes/conf/off_policy.yaml``.
        make_agent: builds the algorithm for the environment.

    Returns:
        tuple: the run, the trained agent, and whether the run is complete (not interrupted).

    Raises:
        FloatingPointError: see :func:`train_off_policy`; likewise for a bad ``resume``.
        ValueError: if the run to resume had another loss, see :func:`check_same_problem`, or there
            is no such task.
    """
    torch.set_num_threads(config["threads"])
    if config["resume"] is not None:
        check_same_problem(read_metadata(config["resume"])["config"], config)
    train_seed, eval_seed = spawn_seeds(config["seed"], 2)
    task = config["env"]
    env = make_task(
        task["name"],
        (task["num_envs"],),
        device=config["device"],
        seed=train_seed,
        options=task["options"],
    )
    agent = make_agent(env)
    settings = OffPolicySettings(**config["training"])
    run = Run(config["run_dir"], config, config["logger"])

    def evaluate(episodes: int) -> dict[str, float]:
        return evaluate_agent(agent, config, episodes, eval_seed)

    try:
        complete = train_off_policy(
            agent,
            env,
            settings,
            run,
            evaluate=lambda: evaluate(config["eval"]["episodes"]),
            resume=config["resume"],
        )
    except BaseException:
        run.close()
        raise
    if complete:
        metrics = evaluate(config["eval"]["final_episodes"])
        run.save_json("summary.json", metrics)
        print("  ".join(f"{name} {value:.3g}" for name, value in metrics.items()))  # noqa: T201
    return run, agent, complete


def run_off_policy_recipe(
    cfg: DictConfig, make_agent: Callable[[DictConfig, EnvBase], OffPolicyAgent]
) -> None:
    """Body of the ``main`` of an off-policy recipe: train, evaluate and, if it is sampled, draw.

    Exits with code 130, the shell's for Ctrl-C, if the run was interrupted; its checkpoint is
    written. Settings that the algorithm refuses end it with one line.

    Args:
        cfg: as Hydra composed it, with the keys of ``recipes/conf/off_policy.yaml``.
        make_agent: builds the algorithm of a configuration for an environment.
    """
    from hydra.core.hydra_config import HydraConfig  # an extra: only recipes need it
    from omegaconf import OmegaConf

    try:
        cfg = resumed_config(cfg, HydraConfig.get().overrides.task)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{cfg.recipe}.py: {error}")
    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))

    def make_checked_agent(env: EnvBase) -> OffPolicyAgent:
        try:
            return make_agent(cfg, env)
        except (TypeError, ValueError) as error:
            sys.exit(f"{cfg.recipe}.py: {error}")

    run, agent, complete = train_off_policy_run(config, make_checked_agent)
    if complete and cfg.env.name == "multigoal" and hasattr(agent.policy, "sample"):
        draw_trained_agent(run, agent, config)
    run.close()
    if not complete:
        sys.exit(130)
