"""EnsemblePolicy: who acts, in rollouts and collectors of ordinary environments."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import Bounded
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import OneHotCategorical, ProbabilisticActor, TanhNormal

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import EnsemblePolicy, ParticleModule, TanhGaussianMixtureActor

N, OBS, ACT = 4, 2, 2
BATCHES = [(), (5,), (2, 3)]
DETERMINISTIC = ExplorationType.DETERMINISTIC


def make_deterministic(**options):
    def make():
        return nn.Sequential(nn.Linear(OBS, 8), nn.Tanh(), nn.Linear(8, ACT), nn.Tanh())

    return TensorDictModule(ParticleModule(make, N, **options), ["observation"], ["action"])


def make_gaussian(action_key="action", **options):
    net = ParticleModule(
        lambda: nn.Sequential(nn.Linear(OBS, 2 * ACT), NormalParamExtractor()), N, **options
    )
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        out_keys=[action_key],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )


def make_discrete():
    return ProbabilisticActor(
        TensorDictModule(ParticleModule(lambda: nn.Linear(OBS, 3), N), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
    )


def make_states(*batch, **entries):
    return TensorDict({"observation": torch.randn(*batch, OBS), **entries}, batch)


def make_env(*batch, horizon=5):
    return TransformedEnv(MultiGoalEnv(batch_size=batch, seed=0, horizon=horizon), InitTracker())


def actions_one_by_one(actor, states):
    """Deterministic actions ``[n, *B, A]``, each particle as a population of its own."""
    actions = []
    for i in range(N):
        alone = EnsemblePolicy(actor, "best", best=i)
        with set_exploration_type(DETERMINISTIC):
            actions.append(alone(states.clone())["action"])
    return torch.stack(actions)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("options", [{}, {"layout": "flat"}, {"shared": ["0"]}])
def test_best_is_the_network_of_that_particle(batch, options):
    actor = make_deterministic(**options)
    states = make_states(*batch)
    for i in range(N):
        out = EnsemblePolicy(actor, "best", best=i)(states.clone())
        want = actor.module.particle(i)(states["observation"])
        torch.testing.assert_close(out["action"], want)


def test_best_holds_one_network():
    policy = EnsemblePolicy(make_deterministic(), "best", best=2)
    assert [p.shape for p in policy.parameters()] == [(8, OBS), (8,), (ACT, 8), (ACT,)]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("make", [make_deterministic, make_gaussian])
@pytest.mark.parametrize("layout", ["leading", "flat"])
def test_mean_of_the_deterministic_actions(batch, make, layout):
    actor, states = make(layout=layout), make_states(*batch)
    want = actions_one_by_one(actor, states).mean(0)
    assert want.shape == (*batch, ACT)
    with set_exploration_type(ExplorationType.RANDOM):  # as collectors do; it does not matter
        torch.testing.assert_close(EnsemblePolicy(actor, "mean")(states)["action"], want)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("make", [make_deterministic, make_gaussian, make_discrete])
def test_random_acts_with_the_particle_it_wrote(batch, make):
    actor = make()
    states = make_states(*batch, is_init=torch.ones(*batch, 1, dtype=torch.bool))
    actions = actions_one_by_one(actor, states)
    seen = set()
    policy = EnsemblePolicy(actor, "random")
    for _ in range(30):
        with set_exploration_type(DETERMINISTIC):
            out = policy(states.clone())
        particle = out["particle"]
        assert particle.shape == (*batch, 1)
        assert particle.dtype == torch.int64
        seen |= set(particle.flatten().tolist())
        want = torch.take_along_dim(actions, particle.unsqueeze(0), 0).squeeze(0)
        torch.testing.assert_close(out["action"], want)
    assert seen == set(range(N))


def test_random_draws_uniformly():
    states = make_states(4000, is_init=torch.ones(4000, 1, dtype=torch.bool))
    particle = EnsemblePolicy(make_deterministic(), "random")(states)["particle"]
    share = particle.flatten().bincount(minlength=N) / 4000
    torch.testing.assert_close(share, torch.full((N,), 1 / N), atol=0.03, rtol=0)


def check_one_particle_per_episode(data):
    """Rows ``[R, T]``: the particle changes only where an episode begins, and there it does."""
    particle, is_init = data["particle"].squeeze(-1), data["is_init"].squeeze(-1)
    changed = particle[:, 1:] != particle[:, :-1]
    assert is_init[:, 0].all()
    assert is_init[:, 1:].any()
    assert not changed[~is_init[:, 1:]].any()
    assert changed[is_init[:, 1:]].any()


@pytest.mark.parametrize("batch", BATCHES)
def test_random_keeps_its_particle_for_an_episode_of_a_rollout(batch):
    policy = EnsemblePolicy(make_deterministic(), "random")
    data = make_env(*batch).rollout(60, policy, break_when_any_done=False)
    check_one_particle_per_episode(data.reshape(-1, 60))


@pytest.mark.parametrize("batch", BATCHES)
def test_random_keeps_its_particle_from_one_batch_of_a_collector_to_the_next(batch):
    rows = torch.Size(batch).numel()
    collector = Collector(
        make_env(*batch),
        EnsemblePolicy(make_deterministic(), "random"),
        frames_per_batch=7 * rows,  # seven is no multiple of the horizon, five
        total_frames=56 * rows,
        auto_register_policy_transforms=False,
    )
    data = torch.cat([batch.clone() for batch in collector], -1)
    check_one_particle_per_episode(data.reshape(rows, 56))


@pytest.mark.parametrize("mode", ["best", "mean"])
def test_other_modes_need_no_tracker(mode):
    policy = EnsemblePolicy(make_gaussian(), mode, best=1 if mode == "best" else None)
    env = MultiGoalEnv(batch_size=(3,), seed=0)
    data = env.rollout(6, policy, break_when_any_done=False)
    assert data["action"].shape == (3, 6, ACT)
    assert not {"loc", "particle"} & set(data.keys())


@pytest.mark.parametrize("mode", ["best", "random"])
def test_exploration_type(mode):
    policy = EnsemblePolicy(make_gaussian(), mode, best=0 if mode == "best" else None)
    states = make_states(6, is_init=torch.ones(6, 1, dtype=torch.bool))
    states["particle"] = torch.zeros(6, 1, dtype=torch.int64)
    states["is_init"][:] = False

    def act():
        return policy(states.clone())["action"]

    with set_exploration_type(ExplorationType.RANDOM):
        assert not torch.equal(act(), act())
    with set_exploration_type(DETERMINISTIC):
        assert torch.equal(act(), act())


@pytest.mark.parametrize("mode", ["best", "mean", "random"])
def test_training_on_does_not_change_it(mode):
    actor = make_deterministic()
    policy = EnsemblePolicy(actor, mode, best=0 if mode == "best" else None)
    states = make_states(5, is_init=torch.zeros(5, 1, dtype=torch.bool))
    states["particle"] = torch.full((5, 1), 2)
    before = policy(states.clone())["action"]
    with torch.no_grad():
        actor.module.particles.add_(1.0)
    torch.testing.assert_close(policy(states.clone())["action"], before)


def test_keys():
    key = ("agent", "move")
    policy = EnsemblePolicy(make_gaussian(key), "random", action_key=key)
    assert policy.in_keys == ["observation", "is_init"]
    assert policy.out_keys == [key, "particle"]
    out = policy(make_states(5, is_init=torch.ones(5, 1, dtype=torch.bool)))
    assert out[key].shape == (5, ACT)


def test_a_state_dict_goes_to_another():
    states = make_states(5)
    first, second = (EnsemblePolicy(make_deterministic(), "mean") for _ in range(2))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(states.clone())["action"], first(states.clone())["action"])


INDEX = "best must be .*>= 0 and <= 3, got"


@pytest.mark.parametrize(
    ("mode", "options", "error", "message"),
    [
        ("vote", {}, ValueError, r"mode must be one of \['best', 'mean', 'random'\], got 'vote'"),
        ("best", {}, TypeError, f"{INDEX} None"),
        ("best", {"best": 4}, ValueError, f"{INDEX} 4"),
        ("best", {"best": -1}, ValueError, f"{INDEX} -1"),
        ("best", {"best": 1.0}, TypeError, f"{INDEX} 1.0"),
        ("best", {"best": True}, TypeError, f"{INDEX} True"),
        ("mean", {"best": 1}, ValueError, "best=1 has no meaning for mode='mean'"),
        (
            "mean",
            {"action_key": "a"},
            ValueError,
            r"must write action_key='a', it writes \['action'\]",
        ),
    ],
)
def test_bad_options(mode, options, error, message):
    with pytest.raises(error, match=f"EnsemblePolicy: .*{message}"):
        EnsemblePolicy(make_deterministic(), mode, **options)


def test_a_mixture_is_one_policy_already():
    population = ParticleModule(lambda: nn.Sequential(nn.Linear(2, 4), NormalParamExtractor()), N)
    mixture = TanhGaussianMixtureActor(population, action_spec=Bounded(-1.0, 1.0, (2,)))
    with pytest.raises(TypeError, match="one policy per particle, got TanhGaussianMixtureActor"):
        EnsemblePolicy(mixture, "mean")


def test_an_actor_of_another_kind():
    with pytest.raises(TypeError, match="actor must be a TensorDictModule, got ParticleModule"):
        EnsemblePolicy(make_deterministic().module, "mean")


def test_an_actor_without_a_population():
    actor = TensorDictModule(nn.Linear(OBS, ACT), ["observation"], ["action"])
    with pytest.raises(ValueError, match="actor must contain one ParticleModule, found 0"):
        EnsemblePolicy(actor, "mean")


def test_no_mean_of_discrete_actions():
    with pytest.raises(TypeError, match="mode='mean' needs continuous actions, got 'action' of"):
        EnsemblePolicy(make_discrete(), "mean")(make_states(5))


def test_random_without_a_tracker():
    with pytest.raises(KeyError, match=r"needs entry 'is_init'; append .*InitTracker"):
        EnsemblePolicy(make_deterministic(), "random")(make_states(5))
