"""Soft Q-learning and DP-WGF-V learn: after 1000 of 2500 updates they reach all four goals.

Measured then, in 500 rollouts, soft Q-learning with 16 actions per state:

| seed | smallest goal | success | entropy | return |
|------|---------------|---------|---------|--------|
| 0    | 0.206         | 0.990   | 0.993   | -211   |
| 1    | 0.182         | 0.986   | 0.983   | -213   |
| 2    | 0.204         | 0.984   | 0.989   | -206   |

DP-WGF-V with 8 actions per state in its trust region:

| seed | smallest goal | success | entropy | return |
|------|---------------|---------|---------|--------|
| 0    | 0.150         | 0.756   | 0.991   | -297   |
| 1    | 0.156         | 0.736   | 0.993   | -307   |
| 2    | 0.146         | 0.816   | 0.985   | -291   |

Untrained policies of eight seeds: soft Q-learning's reach one goal at most, with a success of at
most 0.60 and a return of at most -271. DP-WGF-V's hardly arrive, success at most 0.27 and return at
most -658, but where they do is even, so their entropy and smallest goal say nothing.
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
    "soft_q": (["loss.num_action_samples=16"], {"success": 0.9, "entropy": 0.85, "return": -250}),
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
    (metrics,), _ = evaluate(policy, cfg, episodes=500, seed=0)
    assert set(LEARNERS[name][1]) <= set(shortcomings(name, metrics)), metrics
