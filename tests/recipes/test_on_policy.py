"""recipes/a2c.py and recipes/ppo.py: to their end, what they learn from, and in which order."""

import math
from itertools import pairwise

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import kl_divergence
from torch.testing import assert_close
from torchrl.objectives.value import GAE, TD0Estimator, TD1Estimator, TDLambdaEstimator

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import load, run, settings_of
from tests.recipes.processes import SMALL
from tests.recipes.results import curve, read
from torchrl_stein.runs import ObservationScale, load_loss, make_configured_task
from torchrl_stein.runs.settings import SettingsError

pytestmark = pytest.mark.timeout(900)

BOX = "env.name=multigoal"
CHOICES = "env.name=CartPole-v1"


def small(name, *overrides):
    return settings_of(name, *SMALL[name], *overrides)


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_it_trains_and_is_played_again(finished, evaluate, capsys, name):
    process = finished(name)
    assert process.err == ""
    lines = [line for line in process.out.splitlines() if line.startswith("update ")]
    assert [int(line.split()[1]) for line in lines] == [4, 8, 10]
    steps, values = zip(*curve(process.directory, "train/loss_objective"), strict=True)
    assert steps == tuple(range(40, 401, 40))
    assert all(math.isfinite(value) for value in values)
    rates = [value for _, value in curve(process.directory, "train/lr")]
    assert rates == pytest.approx([rates[0] * (9 - i) / 9 for i in range(10)], abs=1e-9)
    summary = read(process.directory, "summary.json")
    loss, _ = load_loss(process.directory)
    scale = next(m for m in loss.actor_network.modules() if isinstance(m, ObservationScale))
    assert scale.count.item() == pytest.approx(400, rel=1e-4)  # it is saved with the policy
    metrics = evaluate.main(str(process.directory), episodes=5, seed=1)
    assert set(metrics) == set(summary)
    capsys.readouterr()


@pytest.mark.parametrize("name", ["a2c", "ppo"])
@pytest.mark.parametrize("task", [BOX, CHOICES])
def test_data_of_an_iteration_are_those_of_one_policy(name, task):
    """Before an update the ratio is 1: the scale of observations has not moved since."""
    once = ["training.num_epochs=1", "training.num_minibatches=1"] if name == "ppo" else []
    settings = small(name, task, *once)
    found = []

    def look(loop):
        *_, data = loop.collected
        loss = loop.components["loss"]
        scales = [m for m in loss.actor_network.modules() if isinstance(m, ObservationScale)]
        assert len(scales) == 1
        found.append((data, scales[0].mean.clone(), loss.actor_network_params.data.clone()))

    loop = run(name, settings, 3, updated=look)
    if name == "ppo":
        assert all(losses["kl_approx"].abs() < 1e-6 for losses in loop.losses)
    loss = load(name).make_loss(settings, make_configured_task(settings.env, 1, seed=0))
    assert not torch.equal(found[0][1], found[1][1])
    for (*_, state), (batch, *_) in pairwise(found):
        with state.to_module(loss.actor_network):
            log_prob = loss.actor_network.get_dist(batch).log_prob(batch["action"])
        assert_close(log_prob, batch["action_log_prob"])


def test_a_run_of_ppo_learns_from_scaled_rewards_and_every_row_once():
    seen = []
    settings = small("ppo", "training.num_epochs=2")

    class Loss(load("ppo").ClipPPOLoss):
        def forward(self, tensordict):
            seen.append(tensordict.clone())
            return super().forward(tensordict)

    loop = run("ppo", settings, 1, patches={"ClipPPOLoss": Loss})
    assert [len(batch) for batch in seen] == [10] * 8
    (data,) = loop.collected
    scale = loop.components["rewards"].scale
    for epoch in (seen[:4], seen[4:]):
        rewards = torch.cat([batch["next", "reward"] for batch in epoch])
        expected = data["next", "reward"].reshape(-1) / scale
        assert_close(rewards.flatten().sort().values, expected.sort().values.float())
    assert not torch.equal(seen[0]["action"], seen[4]["action"])


@pytest.mark.parametrize("target", [1e-6, 1e6])
def test_the_penalty_adapts_once_in_an_iteration(target):
    """After a step that was much too large it is doubled, after a small one it is halved."""
    states = []

    def look(loop):
        loss = loop.components["loss"]
        states.append((loss.beta.item(), loop.collected[-1], loss.actor_network_params.clone()))

    overrides = ("ppo_loss=kl_penalty", f"loss.kl_target={target}", "network.normalize=false")
    settings = small("ppo", *overrides)
    loop = run("ppo", settings, 3, updated=look)
    factor = 2.0 if target < 1 else 0.5
    assert [beta for beta, *_ in states] == [factor, factor**2, factor**3]
    # The distance is that between the policy of the data and the one after all epochs.
    loss = load("ppo").make_loss(settings, make_configured_task(settings.env, 1, seed=0))
    for (_, data, params), losses in zip(states, loop.losses, strict=True):
        actor = loss.actor_network
        with params.to_module(actor), torch.no_grad():
            new = actor.get_dist(data.select("observation"))
            expected = kl_divergence(actor.build_dist_from_params(data), new).mean()
        assert_close(losses["kl"], expected)


def test_advantages_of_every_kind_are_those_of_gae():
    """TD(0) at lmbda = 0, returns minus values at 1, TD(lmbda) between: the same formula."""
    settings = small("a2c")
    loss = load("a2c").make_loss(settings, env := make_configured_task(settings.env, 3, seed=0))
    critic, data = loss.critic_network, env.rollout(40, break_when_any_done=False)
    assert data["next", "done"].any()
    for lmbda, kind, more in (
        (0.0, TD0Estimator, {}),
        (1.0, TD1Estimator, {}),
        (0.7, TDLambdaEstimator, {"lmbda": 0.7}),
    ):
        with torch.no_grad():
            ours = GAE(gamma=0.9, lmbda=lmbda, value_network=critic, vectorized=False)(data.clone())
            other = kind(gamma=0.9, value_network=critic, **more)(data.clone())
        for name in ("advantage", "value_target"):
            assert_close(ours[name], other[name], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("lmbda", [0.95, 1.0])
def test_without_a_critic_values_stay_zero(lmbda):
    losses = []

    def look(loop):
        losses.append(loop.components["loss"])

    settings = small("a2c", "loss.critic_coeff=null", f"loss.lmbda={lmbda}")
    loop = run("a2c", settings, 3, updated=look)
    assert "loss_critic" not in loop.losses[0]
    values = losses[-1].critic_network(TensorDict({"observation": torch.randn(5, 2)}, [5]))
    assert (values["state_value"] == 0).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.num_minibatches=7", "num_minibatches that divides the 40 transitions"),
        ("loss.clip_epsilon=null", "clip_epsilon with name=clip, kl_target and kl_coeff with"),
        ("loss.kl_target=0.1", "clip_epsilon with name=clip, kl_target and kl_coeff with"),
        ("loss.name=kl_penalty", "clip_epsilon with name=clip, kl_target and kl_coeff with"),
        ("optim.max_grad_norm=0", "optim.max_grad_norm must be greater than 0, got 0"),
        ("seeds=2", "seeds must be less than or equal to 1, got 2"),
    ],
)
def test_what_is_refused(setting, message):
    with pytest.raises(SettingsError, match=message):
        small("ppo", setting)


def test_losses_that_look_at_numbers_are_not_captured():
    captured = ("compile.cudagraphs=true", "device=cuda")
    for setting in ("ppo_loss=kl_penalty", "loss.entropy_coeff=0.1"):
        with pytest.raises(SettingsError, match=r"loss.name=clip with compile.cudagraphs, and"):
            small("ppo", setting, *captured)
    assert small("ppo", "loss.entropy_coeff=null", *captured).compile.cudagraphs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides"),
    [("a2c", ()), ("ppo", ()), ("ppo", ("ppo_loss=kl_penalty",))],
)
def test_it_learns_to_balance(finished, name, overrides):
    """CartPole-v1 within 30 seconds of a core; a random policy balances for 22 steps."""
    more = [CHOICES, "env.num_envs=8", "network.num_cells=[32]", "network.normalize=false"]
    more += ["training.reward_scale=1.0", "training.steps=64", "eval.max_steps=500"]
    more += ["training.total_frames=40_960", "training.eval_interval=1000", *overrides]
    if name == "ppo":
        more.append("training.num_epochs=4")
    else:
        more += ["training.steps=16", "optim.lr=5e-3"]
    directory = finished(name, *more).directory
    assert read(directory, "summary.json")["return"] > 150
