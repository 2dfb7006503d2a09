"""What the recipes of populations share beside their loops, and their trust regions."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.envs.utils import ExplorationType
from torchrl.objectives import HardUpdate, ReinforceLoss, SoftUpdate

from torchrl_stein import SteinPolicyLoss
from torchrl_stein.envs import CartpoleEnv
from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    IdentityKernel,
    LayerwiseKernel,
    RadialControl,
    RBFKernel,
    SharedDriftControl,
    TangentialControl,
)
from torchrl_stein.objectives import ParameterSpace
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    WorldCollector,
    inherit_returns,
    log_best_episode,
    log_test,
    make_gaussian_actor,
    make_kernel,
    make_linear_critic,
    make_population_collector,
    make_task,
    make_trust_region,
    mean_action_returns,
    play_episodes,
)
from torchrl_stein.runs.checkpoint import read_manifest
from torchrl_stein.runs.settings import ActionTrustRegion, TrustRegion

KERNELS = {
    "none": IdentityKernel,
    "rbf": RBFKernel,
    "layerwise": LayerwiseKernel,
    "behaviour": BehaviourKernel,
    "drift": DriftControl,
    "shared_drift": SharedDriftControl,
    "radial": RadialControl,
    "tangential": TangentialControl,
}


@pytest.fixture
def actor():
    return make_gaussian_actor(CartpoleEnv((4, 2)), 4, [4])


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_of_the_recipes(recipe, actor, name):
    section = recipe("svpg").read(f"kernel={name}", "selection=none").kernel
    kernel = make_kernel(section, actor, seed=3)
    assert type(kernel) is KERNELS[name]
    env = CartpoleEnv((4, 2), seed=0)
    loss = SteinPolicyLoss(ReinforceLoss(actor, make_linear_critic(env, 4)), kernel=kernel)
    data = env.rollout(3, actor, break_when_any_done=False)
    data["advantage"] = torch.randn(4, 2, 3, 1)
    data["value_target"] = torch.zeros(4, 2, 3, 1)
    losses = loss(data)
    sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
    assert loss.particles.grad.isfinite().all()


def collectors(env_name="cartpole"):
    task = partial(make_task, env_name)
    env = task((2, 3), seed=0)
    torch.manual_seed(0)
    actor = make_gaussian_actor(env, 2, [4], gain=3.0)
    frames = env.numel() * 5
    return (
        task,
        actor,
        make_population_collector(env, actor, frames_per_batch=frames, total_frames=10 * frames),
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("cartpole", WorldCollector), ("InvertedPendulum-v5", Collector)]
)
def test_returns_of_the_mean_actions(name, kind):
    """Those of episodes played in the environment; training does not notice."""
    task, actor, collector = collectors(name)
    assert isinstance(collector, kind)
    data = iter(collector)
    next(data)
    draws = torch.get_rng_state()
    found = mean_action_returns(task, collector, actor, episodes=4, max_steps=6, seed=8)
    assert torch.get_rng_state().equal(draws)
    env = task((2, 4), seed=8)
    expected = play_episodes(env, actor, 6, ExplorationType.DETERMINISTIC).returns.mean(1)
    assert_close(found, expected)
    assert found.shape == (2,)
    _, _, other = collectors(name)
    undisturbed = iter(other)
    next(undisturbed)
    torch.set_rng_state(draws)
    if kind is WorldCollector:
        after = next(data)["observation"].clone()
        torch.set_rng_state(draws)
        assert next(undisturbed)["observation"].equal(after)
    collector.shutdown()
    other.shutdown()


def test_copies_inherit_returns_until_the_next_test(small):
    session = Session(small())
    inherit_returns(session, torch.tensor([0, 0, 2]))
    assert session.notes == {}
    session.notes["returns"] = [5.0, 6.0, 7.0]
    inherit_returns(session, torch.tensor([0, 0, 2]))
    assert session.notes == {"returns": [5.0, 5.0, 7.0]}


def test_a_test_is_logged_and_decides_which_checkpoint_is_best(small, tmp_path, actor):
    loss = SteinPolicyLoss(ReinforceLoss(actor, make_linear_critic(CartpoleEnv((4, 2)), 4)))
    with Session(small()) as session:
        session.track()
        folders = SeedFolders(session, 1)
        session.steps, session.updates = 10, 1
        log_test(session, folders, torch.tensor([1.0, 2.0, 3.0, float("nan")]), loss)
        session.save()
        with torch.no_grad():
            loss.particles.fill_(float("nan"))
        log_test(session, folders, torch.full((4,), float("nan")), loss)  # says nothing
    run = tmp_path / "run"
    assert (run / "metrics/scalars/test/return_mean.csv").read_text() == "10,2.0\n"
    assert (run / "images/test/kernel_000000000010.png").exists()
    manifest = read_manifest(run)
    assert manifest["eval_return"] == 2.0
    assert manifest["notes"]["returns"][:3] == [1.0, 2.0, 3.0]


def test_the_best_policy_is_the_one_that_is_filmed(recipe, tmp_path, actor, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "torchrl_stein.runs.populations.log_episode",
        lambda session, policy, *_, **options: seen.append((policy, options["max_steps"])),
    )
    settings = recipe("svpg").read("env=cartpole", "eval.video_steps=7", f"run_dir={tmp_path}")
    session = Session(settings)
    log_best_episode(session, actor, torch.tensor([1.0, 5.0, float("nan"), 2.0]), seed=0)
    ((policy, steps),) = seen
    assert steps == 7
    observation = torch.randn(6, 4)
    best = actor[0].module.particle(1)(observation)
    assert_close(policy.actor[0].module(observation), best)


# trust regions

SINKHORN = {"_target_": "torchrl_stein.objectives.SinkhornCost"}


def test_without_a_weight_there_is_none(actor):
    assert make_trust_region(None, actor, ParameterSpace()) == (None, None)
    off = ActionTrustRegion(weight=0, cost=SINKHORN, tau=None, num_action_samples=3)
    assert make_trust_region(off, actor, ParameterSpace()) == (None, None)


@pytest.mark.parametrize(("tau", "kind"), [(None, HardUpdate), (0.1, SoftUpdate)])
def test_the_previous_policy_follows(actor, tau, kind):
    settings = TrustRegion(weight=0.4, cost=SINKHORN, tau=tau)
    region, previous = make_trust_region(settings, actor, ParameterSpace(), scale=10.0)
    assert isinstance(previous, kind)
    start = actor[0].module.particles.detach().clone()
    with torch.no_grad():
        actor[0].module.particles.add_(1.0)
    env = CartpoleEnv((4, 2), seed=0)
    data = env.rollout(2, actor, break_when_any_done=False)
    assert region(data)["loss_trust_region"] > 0
    previous.step()
    (target,) = [v for k, v in region.state_dict().items() if "target" in k and "particles" in k]
    expected = start + 1.0 if tau is None else start + 0.1
    assert_close(target, expected)
