"""A whole training run of an off-policy algorithm: data, evaluation, results on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from ..bookkeeping.checkpoint import check_same_problem, read_metadata
from ..bookkeeping.console import print_summary
from ..bookkeeping.cpu import prepare_cpu
from ..bookkeeping.guards import exit_if_unwritable
from ..bookkeeping.overrides import check_overrides
from ..bookkeeping.resume import resumed_config
from ..bookkeeping.run import Run, spawn_seeds
from ..compilation import read_compile_settings
from ..evaluation import Episodes, episode_metrics, play_episodes
from ..figures.robots import draw_robot_traces
from ..figures.video import log_episode
from ..tasks import make_configured_task
from .agent import OffPolicyAgent, OffPolicySettings
from .fine_tuning import load_pretrained
from .loop import train_off_policy
from .multigoal import draw_trained_agent, evaluate_multigoal

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["evaluate_agent", "play_agent", "run_off_policy_recipe", "train_off_policy_run"]


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
        dict: those of :func:`episode_metrics`; on the multi-goal world :func:`multigoal_metrics`.
    """
    env, settings = config["env"], config["eval"]
    if env["name"] == "multigoal":
        steps, how = settings["max_steps"], _exploration(settings)
        return evaluate_multigoal(agent, episodes, steps, seed, env["options"], how)[0]
    played = play_agent(agent, config, episodes, seed)
    return episode_metrics(played, env.get("info") or (), settings.get("success"))


def play_agent(
    agent: OffPolicyAgent, config: Mapping[str, Any], episodes: int, seed: int
) -> Episodes:
    """Episodes of an agent's policy in the task that a configuration describes.

    Args:
        agent: its ``policy`` acts.
        config: with the keys ``env``, ``eval`` and ``device`` of ``recipes/conf/off_policy.yaml``.
        episodes: how many, all at once.
        seed: of the starts.
    """
    settings = config["eval"]
    env = make_configured_task(config["env"], episodes, device=config["device"], seed=seed)
    try:
        return play_episodes(env, agent.policy, settings["max_steps"], _exploration(settings))
    finally:
        env.close()


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
        FileNotFoundError: if there is no checkpoint at ``init_from``.
        ValueError: if the run to resume had another loss, see :func:`check_same_problem`, the run
            of ``init_from`` other networks, or there is no such task.
    """
    return _train(*_prepare(config, make_agent))


def _prepare(
    config: Mapping[str, Any], make_agent: Callable[[EnvBase], OffPolicyAgent]
) -> tuple[Run, OffPolicyAgent, EnvBase, OffPolicySettings, int]:
    """Everything that can be refused, before anything is written or trained."""
    prepare_cpu(config["threads"])
    if config["resume"] is not None:
        check_same_problem(read_metadata(config["resume"])["config"], config)
    fusion = read_compile_settings(config)
    fusion.check(config["device"])
    train_seed, eval_seed = spawn_seeds(config["seed"], 2)
    env = make_configured_task(
        config["env"], config["env"]["num_envs"], device=config["device"], seed=train_seed
    )
    agent = make_agent(env)
    if config["init_from"] is not None and config["resume"] is None:
        load_pretrained(config["init_from"], agent.loss, agent.trust_region)
        print(f"Starting with the networks of {config['init_from']}")  # noqa: T201
    agent.compile(fusion)
    settings = OffPolicySettings(**config["training"])
    if not settings.updates(env.numel()):
        raise ValueError(
            f"training.total_frames must be more than training.warmup_frames for any update, got "
            f"{settings.total_frames} and {settings.warmup_frames}"
        )
    run = Run(config["run_dir"], config, config["logger"])
    return run, agent, env, settings, eval_seed


def _train(
    run: Run,
    agent: OffPolicyAgent,
    env: EnvBase,
    settings: OffPolicySettings,
    eval_seed: int,
) -> tuple[Run, OffPolicyAgent, bool]:
    config = run.config

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
        print_summary(run, metrics)
    return run, agent, complete


def run_off_policy_recipe(
    cfg: DictConfig, make_agent: Callable[[DictConfig, EnvBase], OffPolicyAgent]
) -> None:
    """Body of the ``main`` of an off-policy recipe: train, evaluate, draw and record an episode.

    Exits with code 130, the shell's for Ctrl-C, if the run was interrupted; its checkpoint is
    written. Settings that are refused end it with one line.

    Args:
        cfg: as Hydra composed it, with the keys of ``recipes/conf/off_policy.yaml``.
        make_agent: builds the algorithm of a configuration for an environment.
    """
    from hydra.core.hydra_config import HydraConfig  # an extra: only recipes need it
    from omegaconf import OmegaConf

    with exit_if_unwritable(f"{cfg.recipe}.py", cfg.run_dir), _errors_in_one_line(cfg.recipe):
        overrides = HydraConfig.get().overrides.task
        check_overrides(overrides)
        cfg = resumed_config(cfg, overrides)
        config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
        prepared = _prepare(config, lambda env: make_agent(cfg, env))
    with exit_if_unwritable(f"{cfg.recipe}.py", cfg.run_dir):
        run, agent, complete = _train(*prepared)
        if complete:
            _draw(run, agent, config)
        run.close()
    if not complete:
        sys.exit(130)


def _draw(run: Run, agent: OffPolicyAgent, config: Mapping[str, Any]) -> None:
    env, settings = config["env"], config["eval"]
    if env["name"] == "multigoal" and hasattr(agent.policy, "sample"):
        draw_trained_agent(run, agent, config)
    elif "centre_of_mass" in (env.get("info") or ()):
        played = play_agent(agent, config, settings["final_episodes"], config["seed"])
        print(f"Picture: {draw_robot_traces(run.directory / 'traces.png', env, played)}")  # noqa: T201
    if settings["video_steps"]:
        log_episode(
            run,
            agent.policy,
            env,
            config["training"]["total_frames"],
            max_steps=settings["video_steps"],
            seed=config["seed"],
            device=config["device"],
            exploration=_exploration(settings),
        )


def _exploration(settings: Mapping[str, Any]) -> ExplorationType:
    return ExplorationType.DETERMINISTIC if settings["deterministic"] else ExplorationType.RANDOM


@contextmanager
def _errors_in_one_line(recipe: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, FileNotFoundError, ImportError, TypeError, ValueError) as error:
        sys.exit(f"{recipe}.py: {error}")
