"""Soft Q-learning learns: after 1000 of the recipe's 2500 updates it reaches all four goals.

Measured then, in 500 rollouts:

| seed | smallest goal | success | entropy | return |
|------|---------------|---------|---------|--------|
| 0    | 0.140         | 0.974   | 0.961   | -209   |
| 1    | 0.158         | 0.968   | 0.974   | -219   |
| 2    | 0.200         | 0.972   | 0.989   | -212   |
| 3    | 0.156         | 0.990   | 0.957   | -211   |
| 4    | 0.120         | 0.964   | 0.953   | -214   |

Six untrained policies: smallest goal 0, success at most 0.51, entropy 0, return at most -328.
The exact soft-optimal policy has a return of -191. Another machine rounds differently, which by
the end makes a run as different as another seed does; the thresholds leave room for that.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.training import evaluate_multigoal
from torchrl_stein.training.off_policy_run import train_off_policy_run

pytest.importorskip("hydra")
pytest.importorskip("tqdm")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

RECIPES = Path(__file__).parents[2] / "recipes"
UPDATES = 1000


def recipe():
    spec = importlib.util.spec_from_file_location("soft_q_recipe", RECIPES / "soft_q.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(run_dir, seed=2):
    """The recipe's own, with fewer updates and nothing written in between."""
    with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
        cfg = compose("soft_q", [f"seed={seed}", f"run_dir={run_dir}"])
    training = cfg.training
    training.total_frames = training.warmup_frames + UPDATES * cfg.env.num_envs
    training.log_interval, training.eval_interval = 250, 10 * UPDATES
    training.checkpoint_interval = 10 * UPDATES
    return cfg


def shortcomings(metrics):
    """What a trained policy must do and this one does not."""
    demands = {
        "each goal in one rollout of twenty": min(metrics[f"goal_{i}"] for i in range(4)) >= 0.05,
        "success": metrics["success"] >= 0.9,
        "evenness": metrics["entropy"] >= 0.85,
        "return": metrics["return"] >= -250,
    }
    return [name for name, met in demands.items() if not met]


@pytest.mark.timeout(900)
def test_it_reaches_all_goals(tmp_path):
    cfg = config(tmp_path / "run")
    make_agent = recipe().make_agent
    run, agent, complete = train_off_policy_run(
        OmegaConf.to_container(cfg, resolve=True), lambda env: make_agent(cfg, env)
    )
    assert complete
    assert agent.scheduler.last_epoch == UPDATES
    metrics = json.loads((run.directory / "summary.json").read_text())
    assert not shortcomings(metrics), metrics


def test_an_untrained_policy_does_none_of_this(tmp_path):
    cfg = config(tmp_path / "run")
    agent = recipe().make_agent(cfg, MultiGoalEnv((1,), seed=0))
    metrics, _, _ = evaluate_multigoal(agent, 500, cfg.eval.max_steps, seed=0)
    assert len(shortcomings(metrics)) == 4, metrics
