"""Losses that were given an environment's action_spec with its batch dimensions."""

import pytest
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import Bounded, Composite, OneHot
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import (
    CQLLoss,
    CrossQLoss,
    DiscreteCQLLoss,
    DiscreteSACLoss,
    OnlineDTLoss,
    REDQLoss,
    SACLoss,
    TD3BCLoss,
    TD3Loss,
    TQCLoss,
)

from tests.objectives.stein_builders import (
    ACT,
    NO_UPDATER,
    OBS,
    N,
    action_value,
    batch,
    deterministic,
    discrete,
    greedy,
    population,
    qvalue,
    run,
    twin,
)
from torchrl_stein.envs import CartpoleEnv, MultiGoalEnv, ParticleEnv
from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import SoftQLoss, SteinPolicyLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

E = 5
ONE = Bounded(-1.0, 1.0, (ACT,), dtype=torch.float64)
BATCHED = Bounded(-1.0, 1.0, (N, E, ACT), dtype=torch.float64)
FLAT = Bounded(-1.0, 1.0, (N * E, ACT), dtype=torch.float64)
ONE_DIMENSIONAL_BATCH = Bounded(-1.0, 1.0, (N, ACT), dtype=torch.float64)
batched_specs = pytest.mark.parametrize(
    "spec", [BATCHED, FLAT, ONE_DIMENSIONAL_BATCH], ids=["[n, E, A]", "[n E, A]", "[n, A]"]
)


def gaussian(spec=None, **kwargs):
    def make():
        return nn.Sequential(nn.Linear(OBS, 2 * ACT), NormalParamExtractor())

    return ProbabilisticActor(
        TensorDictModule(population(make), ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs=kwargs,
        return_log_prob=True,
        spec=spec,
    )


twins = twin(qvalue)
REDQ = {"num_qvalue_nets": 2, "sub_sample_len": 2}
TQC = {"num_qvalue_nets": 2, "top_quantiles_to_drop_per_net": 0}
# Which TorchRL losses have a target entropy from a spec.
ENTROPIC = {
    "SACLoss": lambda a, **options: SACLoss(a, twins(), **options),
    "REDQLoss": lambda a, **options: REDQLoss(a, twins(), **REDQ, **options),
    "TQCLoss": lambda a, **options: TQCLoss(a, twins(), **TQC, **options),
    "CQLLoss": lambda a, **options: CQLLoss(a, twins(), **options),
    "CrossQLoss": lambda a, **options: CrossQLoss(a, twins(), **options),
}
entropic = pytest.mark.parametrize("name", ENTROPIC)


@batched_specs
@entropic
def test_the_spec_of_a_batch_is_no_spec_of_an_action(name, spec):
    base = ENTROPIC[name](gaussian(), action_spec=spec)
    size = spec.shape.numel()
    message = rf"SteinPolicyLoss: action_spec of {name} .* entropy of -{size}; .*action_spec_unb"
    with pytest.raises(ValueError, match=message):
        SteinPolicyLoss(base)


@entropic
def test_the_actors_own_spec_counts_where_the_loss_has_none(name):
    with pytest.raises(ValueError, match=r"env\.action_spec_unbatched, to the actor and to"):
        SteinPolicyLoss(ENTROPIC[name](gaussian(BATCHED)))
    loss = SteinPolicyLoss(ENTROPIC[name](gaussian(BATCHED), action_spec=ONE))
    assert loss.target_entropy == -ACT


def test_a_decision_transformer_has_no_other():
    with pytest.raises(ValueError, match=r"action_spec of OnlineDTLoss .* entropy of -30"):
        SteinPolicyLoss(OnlineDTLoss(gaussian(BATCHED)))
    assert SteinPolicyLoss(OnlineDTLoss(gaussian(ONE))).target_entropy == -ACT


def test_a_target_that_was_already_asked_for():
    base = SACLoss(gaussian(), twins(), action_spec=BATCHED)
    base.state_dict()  # resolves it
    with pytest.raises(ValueError, match="entropy of -30"):
        SteinPolicyLoss(base)


@entropic
def test_what_is_right(name):
    full = Composite(action=BATCHED, shape=(N, E))  # env.full_action_spec: says what is batch
    for spec in (ONE, Composite(action=ONE), full):
        assert SteinPolicyLoss(ENTROPIC[name](gaussian(), action_spec=spec)).target_entropy == -ACT
    given = ENTROPIC[name](gaussian(), action_spec=BATCHED, target_entropy=-1.0)
    assert SteinPolicyLoss(given).target_entropy == -1.0


def test_matrices_of_actions_are_no_batch():
    """N is also the first size of an action: its distribution knows of two dimensions."""
    spec = Bounded(-1.0, 1.0, (N, ACT), dtype=torch.float64)
    base = SACLoss(gaussian(event_dims=2), twins(), action_spec=spec)
    assert SteinPolicyLoss(base).target_entropy == -N * ACT


@batched_specs
@pytest.mark.parametrize("kind", [TD3Loss, TD3BCLoss])
def test_bounds_of_a_batch(kind, spec):
    base = kind(deterministic(), twins(), action_spec=spec)
    with pytest.raises(ValueError, match=rf"of {kind.__name__} .* cannot clip .*_unbatched"):
        SteinPolicyLoss(base)


def test_a_matrix_of_bounds_of_a_single_policy():
    """One particle divides every size: it cannot tell a batch from the rows of an action."""
    bounds = -torch.ones(3, ACT), torch.ones(3, ACT)
    SteinPolicyLoss(TD3Loss(deterministic(1), [qvalue(1), qvalue(1)], bounds=bounds))
    batched = Bounded(-1.0, 1.0, (1, E, ACT), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"of TD3Loss .* cannot clip"):
        SteinPolicyLoss(TD3Loss(deterministic(1), [qvalue(1), qvalue(1)], action_spec=batched))


@pytest.mark.parametrize(
    "options",
    [{"action_spec": ONE}, {"bounds": (-1.0, 1.0)}, {"bounds": (-torch.ones(2), torch.ones(2))}],
)
def test_bounds_of_one_action(options):
    actor = deterministic()
    loss = SteinPolicyLoss(TD3Loss(actor, twins(), **options))
    assert run(loss, batch(actor))["loss_actor"].isfinite()


def test_discrete_losses_read_the_kind_alone():
    spec = OneHot(ACT, shape=(N, E, ACT))
    sac = DiscreteSACLoss(discrete(), twin(action_value)(), action_space=spec, num_actions=ACT)
    assert SteinPolicyLoss(sac).target_entropy < 1
    actor = greedy()
    cql = SteinPolicyLoss(DiscreteCQLLoss(actor, action_space=spec), coupled="value_network_params")
    assert run(cql, batch(actor))["loss_repulsion"].isfinite()


def test_of_a_real_environment():
    env = ParticleEnv(CartpoleEnv((N * E,), seed=0), N)
    assert env.action_spec_unbatched.shape == (1,)
    with pytest.raises(ValueError, match=r"got shape \[3, 5, 1\], .* entropy of -15"):
        SteinPolicyLoss(SACLoss(gaussian(), twins(), action_spec=env.action_spec))
    loss = SteinPolicyLoss(SACLoss(gaussian(), twins(), action_spec=env.action_spec_unbatched))
    assert loss.target_entropy == -1


def test_our_own_actors_take_either():
    """Of a spec they keep the bounds of one action, so that SoftQLoss sees no batch."""
    env, losses = MultiGoalEnv((7,), seed=0), []
    data = env.rollout(4, break_when_any_done=False).reshape(-1)
    for spec in (env.action_spec, env.action_spec_unbatched):
        torch.manual_seed(0)
        actor = AmortizedSVGDActor(MLP(4, 2, num_cells=[8]), action_spec=spec)
        critic = ValueOperator(MLP(4, 1, num_cells=[8]), in_keys=["observation", "action"])
        losses.append(run(SoftQLoss(actor, critic, num_action_samples=4), data))
    assert (losses[0] == losses[1]).all()
