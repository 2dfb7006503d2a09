"""The agents of the off-policy recipes: one family, each with its own algorithm."""

import importlib
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torchrl.envs.utils import ExplorationType, set_exploration_type

pytest.importorskip("hydra")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torchrl.modules import OrnsteinUhlenbeckProcessModule

from torchrl_stein.training import Checkpoints, make_configured_task
from torchrl_stein.training.off_policy.fine_tuning import load_pretrained

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ("ddpg", "dp_wgf_v", "sac", "soft_q", "td3")
ROBOT = ("task=swimmer_finish_line", "env.num_envs=2")
SMALL = {
    "dp_wgf_v": ["actor.num_particles=2", "loss.num_particles=3", "loss.num_value_samples=3"],
    "soft_q": ["loss.num_particles=3", "loss.num_value_samples=3"],
}


@pytest.fixture
def build(evaluate):
    """Makes (agent, batch): a recipe's agent, and a few transitions of its own exploration."""

    def make(name, *overrides, seed=0):
        with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
            cfg = compose(name, [*SMALL.get(name, []), *overrides])
        cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
        env = make_configured_task(cfg.env, cfg.env.num_envs, seed=0)
        torch.manual_seed(seed)
        agent = importlib.import_module(name).make_agent(cfg, env)
        with torch.no_grad():
            data = env.rollout(4, agent.explorer, break_when_any_done=False).reshape(-1)
        env.close()
        return agent, data

    return make


def weights(loss, part, suffixes=("weight", "bias")):
    """Parameters of a part of the loss, "actor", "value" or "qvalue", by name."""
    return {
        name: value.clone()
        for name, value in loss.state_dict().items()
        if name.startswith(f"{part}_network_params.") and name.endswith(suffixes)
    }


def critic_of(name):
    return "value" if name == "ddpg" else "qvalue"


def largest_step(before, after):
    return max((after[name] - value).abs().max().item() for name, value in before.items())


@pytest.mark.parametrize("name", NAMES)
def test_q_functions_are_alike_and_rates_are_the_papers(build, name):
    agent, batch = build(name, *ROBOT)
    q = weights(agent.loss, critic_of(name))
    shapes = [list(value.shape) for key, value in sorted(q.items()) if key.endswith("weight")]
    ensemble = [2] if name in ("sac", "td3") else []
    assert shapes == [[*ensemble, *shape] for shape in ([200, 12], [200, 200], [1, 200])]
    # Adam's first step is as long as its rate. The policy that acts is the one that learns.
    policy = {key: value.clone() for key, value in agent.policy.named_parameters()}
    updates = agent.actor_interval
    for done in range(updates):
        now = dict(agent.policy.named_parameters())
        assert done == 0 or largest_step(policy, now) == 0  # TD3's actor waits
        agent.update(batch.clone())
        if done == 0:
            moved = largest_step(q, weights(agent.loss, critic_of(name)))
            assert moved == pytest.approx(1e-3, rel=0.01)
    assert largest_step(policy, dict(agent.policy.named_parameters())) == pytest.approx(
        1e-4, rel=0.01
    )
    assert updates == (2 if name == "td3" else 1)


def test_targets_of_td3_are_a_moving_average_at_every_second_update(build):
    agent, batch = build("td3", *ROBOT)
    parts = ("qvalue", "actor")
    first = {part: weights(agent.loss, f"target_{part}") for part in parts}
    agent.update(batch.clone())
    for part in parts:
        assert largest_step(first[part], weights(agent.loss, f"target_{part}")) == 0
    agent.update(batch.clone())
    for part in parts:
        new, target = weights(agent.loss, part), weights(agent.loss, f"target_{part}")
        assert len(new) == len(target) == 6
        for name, value in new.items():
            start = first[part][f"target_{name}"]
            assert_close(target[f"target_{name}"], start + 0.005 * (value - start))


def test_what_td3_adds_to_the_actions_of_its_target(build):
    loss = build("td3", *ROBOT, "loss.policy_noise=0.3", "loss.noise_clip=0.4")[0].loss
    assert (loss.policy_noise, loss.noise_clip) == (0.3, 0.4)


def test_the_temperature_of_sac_is_that_of_the_scaled_rewards_and_stays(build):
    agent, batch = build("sac", "task=swimmer", "env.num_envs=2", "loss.temperature=0.02")
    alphas = [agent.update(batch.clone())["alpha"].item() for _ in range(3)]
    assert alphas == pytest.approx([2.0] * 3)
    assert "log_alpha" not in dict(agent.loss.named_parameters())


def test_soft_q_learning_anneals_in_units_of_the_scaled_rewards(build):
    options = ["training.reward_scale=2", "annealing.updates=4", "annealing.noise_set_size=5"]
    agent, batch = build("soft_q", *ROBOT, *options, "loss.temperature=0.1")
    seen = [
        (agent.update(batch.clone())["alpha"].item(), agent.policy.num_noise.item())
        for _ in range(6)
    ]
    assert [n for _, n in seen] == [5, 4, 3, 2, 1, 1]
    expected = [2 * 0.1 * 0.01 ** (min(done, 4) / 4) for done in range(6)]
    assert [alpha for alpha, _ in seen] == pytest.approx(expected, rel=1e-5)
    assert build("soft_q", *ROBOT)[0].policy.noise_set is None


@pytest.mark.parametrize("name", ["ddpg", "soft_q"])
def test_robots_are_explored_with_an_ornstein_uhlenbeck_process(build, name):
    agent, _ = build(name, *ROBOT)
    (process,) = (m for m in agent.explorer if isinstance(m, OrnsteinUhlenbeckProcessModule))
    assert (process.ou.theta, process.ou.sigma, process.ou.dt) == (0.15, 0.3, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_starts_from_another_run(build, tmp_path, name):
    options = ["env.num_envs=4", "network.num_cells=[8]", "optim.lr_actor=0.1"]
    pretrained, batch = build(name, *options, seed=1)
    for _ in range(2):  # so that targets differ from networks
        pretrained.update(batch.clone())
    path = Checkpoints(tmp_path, loss=pretrained.loss, config={}, others={}).save(step=1)
    agent, _ = build(name, *options)
    load_pretrained(path, agent.loss)
    theirs = pretrained.loss.state_dict()
    learnt = [key for key in theirs if key.endswith(("weight", "bias"))]
    assert len(learnt) >= 3 * 4
    state = agent.loss.state_dict()
    assert all(state[key].equal(theirs[key]) for key in learnt)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        states = batch.select("observation")
        actions = [policy(states.clone())["action"] for policy in (agent.policy, pretrained.policy)]
    assert_close(actions[0], actions[1])
