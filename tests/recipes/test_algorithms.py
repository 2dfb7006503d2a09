"""What the off-policy recipes do in their first updates: one family, each with its algorithm."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import OrnsteinUhlenbeckProcessModule

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import load, run, settings_of
from torchrl_stein.envs import RunningRewardScaling
from torchrl_stein.runs import find_checkpoint, make_configured_task
from torchrl_stein.runs.checkpoint import read_component

NAMES = ("d4pg", "ddpg", "s2ac", "sac", "soft_q", "soft_qv", "td3")
SHORT = ("training.warmup_frames=8", "training.batch_size=8", "training.buffer_size=100")
ROBOT = ("task=swimmer_finish_line", "env.num_envs=2", "training.total_frames=100", *SHORT)
SMALL = {
    "d4pg": ("loss.n_steps=2",),
    "s2ac": ("loss.num_action_samples=4", "loss.num_steps=2"),
    "soft_q": ("loss.num_action_samples=3", "loss.num_value_samples=3"),
    "soft_qv": ("actor.num_particles=2", "loss.num_action_samples=3", "loss.num_value_samples=3"),
}


def first_updates(name, *overrides, updates=1, task=ROBOT, **watched):
    """A loop, with the state of its loss before and after each update."""
    states = []

    def remember(loop):
        loss = loop.components["loss"]
        states.append({key: value.clone() for key, value in loss.state_dict().items()})

    settings = settings_of(name, *task, *SMALL.get(name, ()), *overrides)
    loop = run(name, settings, updates, tracked=remember, updated=remember, **watched)
    return loop, states


def weights(state, part):
    """Parameters of a part of a loss, "actor", "value" or "qvalue", by name."""
    start = f"{part}_network_params."
    copied = f"{start}critics."  # in the policy of S2AC, of its critic
    return {
        key.removeprefix(start): value
        for key, value in state.items()
        if key.startswith(start)
        and not key.startswith(copied)
        and key.endswith(("weight", "bias", "particles"))
    }


def largest_step(before, after, part):
    before, after = weights(before, part), weights(after, part)
    return max((after[key] - value).abs().max().item() for key, value in before.items())


@pytest.mark.parametrize("name", NAMES)
def test_q_functions_are_alike_and_rates_are_the_papers(name):
    critic = "value" if name in ("d4pg", "ddpg") else "qvalue"
    wait = 2 if name == "td3" else 1  # updates of the actor
    loop, states = first_updates(name, updates=wait)
    q = weights(states[0], critic)
    shapes = [list(value.shape) for key, value in sorted(q.items()) if key.endswith("weight")]
    ensemble = [2] if name in ("s2ac", "sac", "td3") else []
    outputs = 51 if name == "d4pg" else 1  # a logit for each atom
    assert shapes == [[*ensemble, *shape] for shape in ([200, 12], [200, 200], [outputs, 200])]
    # Adam's first step is as long as its rate.
    assert largest_step(states[0], states[1], critic) == pytest.approx(1e-3, rel=0.01)
    steps = [largest_step(states[0], state, "actor") for state in states[1:]]
    assert steps == pytest.approx([0.0] * (wait - 1) + [1e-4], rel=0.01)
    # The policy that collects is the one that learns.
    acting = {p.data_ptr() for p in loop.components["collector"].policy.parameters()}
    learning = loop.components["loss"].actor_network_params.parameters()
    assert {p.data_ptr() for p in learning} <= acting


def test_targets_of_td3_are_a_moving_average_at_every_second_update():
    _, (before, first, second) = first_updates("td3", updates=2)
    for part in ("qvalue", "actor"):
        assert largest_step(before, first, f"target_{part}") == 0
        new, target = weights(second, part), weights(second, f"target_{part}")
        assert len(new) == len(target) == 6
        for key, value in new.items():
            start = weights(before, f"target_{part}")[key]
            assert_close(target[key], start + 0.005 * (value - start))


@pytest.mark.parametrize("name", ["ddpg", "soft_q"])
def test_targets_are_copied_after_so_many_updates(name):
    # TorchRL's HardUpdate rests for so many updates and copies at the next one.
    _, states = first_updates(name, "optim.target_update_interval=2", updates=4)
    critic = "value" if name == "ddpg" else "qvalue"
    steps = [largest_step(states[0], state, f"target_{critic}") for state in states[1:]]
    assert [step > 0 for step in steps] == [False, False, True, True]
    copied = weights(states[3], f"target_{critic}")
    assert all(value.equal(copied[key]) for key, value in weights(states[3], critic).items())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sac", []),
        ("soft_q", ["loss.value_target=expected", "loss.num_value_samples=1"]),
        (
            "soft_q",
            [
                "loss.value_target=expected",
                "loss.num_value_samples=1",
                "loss.num_qvalue_nets=2",
            ],
        ),
    ],
)
def test_batch_renormalization_goes_without_targets(name, options):
    loop, states = first_updates(name, "network.norm=batch_renorm", *options, updates=3)
    assert loop.components.get("target") is None
    assert not [name for name in states[0] if name.startswith("target_qvalue")]
    for i, state in enumerate(states):
        counts = [value for name, value in state.items() if name.endswith("batches_tracked")]
        assert len(counts) == 2
        assert all((count == i).all() for count in counts)  # once per update


@pytest.mark.parametrize("name", ["sac", "soft_q"])
def test_layers_of_critics_are_normalized(name):
    _, (state, _) = first_updates(name, "network.norm=layer")
    assert len(weights(state, "qvalue")) == 10  # of three linear layers and two norms
    assert len(weights(state, "actor")) == 6


def test_what_td3_adds_to_the_actions_of_its_target():
    loop, _ = first_updates("td3", "loss.policy_noise=0.3", "loss.noise_clip=0.4")
    loss = loop.components["loss"]
    assert (loss.policy_noise, loss.noise_clip) == pytest.approx((0.3, 0.4))


def test_the_temperature_of_sac_is_that_of_the_scaled_rewards_and_stays():
    task = ("task=swimmer", "env.num_envs=2", "training.total_frames=100", *SHORT)
    loop, _ = first_updates("sac", "loss.temperature=0.02", updates=3, task=task)
    assert [losses["alpha"].item() for losses in loop.losses] == pytest.approx([2.0] * 3)
    assert "log_alpha" not in dict(loop.components["loss"].named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_rewards_by_their_running_scale(name):
    """A temperature is then in units of the scaled reward."""
    options = ("training.reward_scale=auto", "loss.temperature=0.02", "loss.gamma=0.9")
    loop, _ = first_updates(name, *options, updates=3)
    *before, scaling = loop.components["buffer"].transform
    assert isinstance(scaling, RunningRewardScaling)
    assert (scaling.gamma, scaling.discounted_returns.shape) == (0.9, (2,))
    waiting = sum(2 * part.n_steps for part in before)  # for the n-step returns of D4PG
    assert scaling.count == len(loop.components["buffer"]) + waiting
    for losses in loop.losses:
        if "alpha" in losses:
            assert losses["alpha"].item() == pytest.approx(0.02)


def test_soft_q_learning_anneals_in_units_of_the_scaled_rewards():
    options = ["training.reward_scale=2", "annealing.updates=4", "annealing.noise_set_size=5"]
    left = []

    def look(loop):
        left.append(loop.components["loss"].actor_network.num_noise.item())

    settings = settings_of("soft_q", *ROBOT, *SMALL["soft_q"], *options, "loss.temperature=0.1")
    loop = run("soft_q", settings, 6, updated=look)
    assert left == [5, 4, 3, 2, 1, 1]
    expected = [2 * 0.1 * 0.01 ** (min(done, 4) / 4) for done in range(6)]
    assert [losses["alpha"].item() for losses in loop.losses] == pytest.approx(expected, rel=1e-5)
    loop, _ = first_updates("soft_q")
    assert loop.components["loss"].actor_network.noise_set is None


@pytest.mark.parametrize("name", ["ddpg", "soft_q", "soft_qv"])
def test_robots_are_explored_with_an_ornstein_uhlenbeck_process(name):
    loop, _ = first_updates(name)
    policy = loop.components["collector"].policy
    (process,) = (m for m in policy if isinstance(m, OrnsteinUhlenbeckProcessModule))
    assert (process.ou.theta, process.ou.sigma, process.ou.dt) == (0.15, 0.3, 1.0)


@pytest.mark.parametrize("name", ["ddpg", "td3"])
def test_noise_in_parameters_acts_and_adapts(name):
    scales = []

    def look(loop):
        scales.append(loop.components["parameter_noise"].scale.item())

    options = ("exploration.noise=0", "exploration.theta=null", "exploration.parameter_noise=0.2")
    settings = settings_of(name, *ROBOT, *options)
    loop = run(name, settings, 6, tracked=look, updated=look)
    noise = loop.components["parameter_noise"]
    assert noise.policy is loop.components["loss"].actor_network
    for (before, after), losses in zip(pairwise(scales), loop.losses, strict=True):
        grows = losses["action_distance"] <= 0.2
        assert after == pytest.approx(before * (1.01 if grows else 1 / 1.01))
    data = loop.collected[-1].squeeze(-1)
    acted = noise(data.select("observation", "elapsed_steps").set("_begins", data["done"]))
    assert acted["action"].equal(data["action"])
    assert run(name, settings_of(name, *ROBOT)).components["parameter_noise"] is None


def test_learning_rates_fall_linearly():
    changes = ("training.total_frames=28", "optim.final_lr_fraction=0.5")
    loop, _ = first_updates("ddpg", *changes, updates=10)
    expected = [1e-3 * (1 - 0.5 * done / 10) for done in range(1, 11)]
    assert [more["lr"] for more in loop.more] == pytest.approx(expected)


def test_a_trust_region_follows_the_policy():
    """The previous policy of DP-WGF is that before the last step, or a moving average."""
    region = ("trust_region.weight=0.4", "trust_region.num_action_samples=3")
    for tau in (None, 0.25):
        copies = []

        def look(loop, copies=copies):
            params = loop.components["region"].actor_network_params
            target = loop.components["region"].target_actor_network_params
            copies.append([p.data.flatten().clone() for p in (_one(params), _one(target))])

        override = f"trust_region.tau={'null' if tau is None else tau}"
        settings = settings_of("soft_q", *ROBOT, *SMALL["soft_q"], *region, override)
        run("soft_q", settings, 3, tracked=look, updated=look)
        (first, target), *later = copies
        assert first.equal(target)
        for new, previous in later:
            target = first if tau is None else target + tau * (first - target)
            assert_close(previous, target)
            assert not new.equal(first)
            first = new


def _one(params):
    return next(value for key, value in params.items(True, True) if key[-1] == "weight")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_starts_from_another_run(name, finished):
    directory = finished(name).directory
    given = ("env.num_envs=4", "network.num_cells=[16,16]", *SHORT, f"init_from={directory}")
    few = {"soft_qv": ("actor.num_particles=3",), "d4pg": SMALL["d4pg"]}.get(name, ())
    _, (state, _) = first_updates(name, *few, "optim.lr_actor=0.1", *given, task=())
    theirs = read_component(find_checkpoint(directory), "loss")
    learnt = [key for key in theirs if key.endswith(("weight", "bias", "particles"))]
    learnt = [key for key in learnt if ".critics." not in key]  # S2AC acts with the Q of a copy
    assert len(learnt) >= 4
    assert all(state[key].equal(theirs[key]) for key in learnt)
    # Before the update, the policy acted as theirs.
    loss, settings = load(name).make_loss, settings_of(name, *few, *given)
    env = make_configured_task(settings.env, 4, seed=0)
    other = loss(settings, env)
    other.load_state_dict(theirs)
    if name == "s2ac":  # a run acts with the Q of the update before
        other.actor_network.copy_critic(other.qvalue_network_params)
    policy = loss(settings, env)
    policy.load_state_dict(state)
    states = env.reset().select("observation")
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        torch.manual_seed(0)
        mine = policy.actor_network(states.clone())["action"]
        torch.manual_seed(0)
        assert_close(mine, other.actor_network(states.clone())["action"])


@pytest.mark.parametrize("name", ["sac", "soft_q"])
def test_the_mean_gradient_forgets_as_fast_as_it_is_told(name):
    loop, _ = first_updates(name, "optim.beta1=0.3")
    betas = {group["betas"] for group in loop.components["optim"].param_groups}
    assert betas == {(0.3, 0.999)}


CROSSQ = ["network.norm=batch_renorm", "loss.fixed_alpha=false", "loss.temperature=0.5"]


@pytest.mark.parametrize(("name", "options"), [("sac", CROSSQ), ("soft_q", [])])
def test_the_actor_waits_for_its_turn(name, options):
    loop, states = first_updates(name, "loss.actor_interval=2", *options, updates=4)
    moved = [largest_step(a, b, "actor") > 0 for a, b in pairwise(states)]
    assert moved == [False, True, False, True]
    assert all(largest_step(a, b, "qvalue") > 0 for a, b in pairwise(states))
    if name == "sac":  # its temperature waits, too
        alphas = [state["log_alpha"].item() for state in states]
        assert [a != b for a, b in pairwise(alphas)] == moved
    assert ["loss_actor" in losses.keys() for losses in loop.losses] == moved  # noqa: SIM118
