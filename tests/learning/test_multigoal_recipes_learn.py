"""Soft Q-learning and DP-WGF-V learn: after 1000 of 2500 updates they reach all four goals.

Measured then, in 500 rollouts, soft Q-learning:

| seed | smallest goal | success | entropy | return |
|------|---------------|---------|---------|--------|
| 0    | 0.140         | 0.974   | 0.961   | -209   |
| 1    | 0.158         | 0.968   | 0.974   | -219   |
| 2    | 0.200         | 0.972   | 0.989   | -212   |
| 3    | 0.156         | 0.990   | 0.957   | -211   |
| 4    | 0.120         | 0.964   | 0.953   | -214   |

DP-WGF-V with 8 actions per state in its trust region:

| seed | smallest goal | success | entropy | return |
|------|---------------|---------|---------|--------|
| 0    | 0.164         | 0.822   | 0.986   | -284   |
| 1    | 0.178         | 0.822   | 0.994   | -286   |
| 2    | 0.154         | 0.798   | 0.992   | -293   |

Untrained policies: smallest goal 0, success at most 0.51, return at most -328; the entropy of soft
Q-learning's is 0, that of DP-WGF-V's, which hardly ever arrive anywhere, any number.
The exact soft-optimal policy has a return of -191. Another machine rounds differently, which by
the end makes a run as different as another seed does; the thresholds leave room for that.
"""

import json

import pytest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import load, settings_of
from torchrl_stein.runs import evaluate, make_configured_task

UPDATES = 1000
# Settings that differ from the recipe's, and what a trained policy must reach.
LEARNERS = {
    "soft_q": ([], {"success": 0.9, "entropy": 0.85, "return": -250}),
    "soft_qv": (["trust_region.num_action_samples=8"], {"success": 0.65, "return": -320}),
}


def settings(name, run_dir, seed=2):
    """The recipe's own, with fewer updates and nothing written in between."""
    shorter = [
        f"training.total_frames={6400 + UPDATES * 64}",
        "training.log_interval=250",
        f"training.eval_interval={10 * UPDATES}",
        f"training.checkpoint_interval={10 * UPDATES}",
        "eval.video_steps=0",
    ]
    return settings_of(name, f"seed={seed}", f"run_dir={run_dir}", *shorter, *LEARNERS[name][0])


def shortcomings(name, metrics):
    """What a trained policy must do and this one does not."""
    smallest = min(metrics[f"goal_{i}"] for i in range(4))
    rare = ["each goal in one rollout of twenty"] if smallest < 0.05 else []
    return rare + [key for key, least in LEARNERS[name][1].items() if metrics[key] < least]


# A minute for DP-WGF-V.
@pytest.mark.parametrize("name", ["soft_q", pytest.param("soft_qv", marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_it_reaches_all_goals(name, tmp_path):
    cfg = settings(name, tmp_path / "run")
    load(name).main(cfg)
    assert cfg.num_updates == UPDATES
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert not shortcomings(name, metrics), metrics


@pytest.mark.parametrize("name", LEARNERS)
def test_an_untrained_policy_does_none_of_this(name, tmp_path):
    cfg = settings(name, tmp_path / "run")
    env = make_configured_task(cfg.env, 1, seed=0)
    policy = load(name).make_loss(cfg, env).actor_network
    metrics, _ = evaluate(policy, cfg, episodes=500, seed=0)
    assert len(shortcomings(name, metrics)) == 1 + len(LEARNERS[name][1]), metrics
