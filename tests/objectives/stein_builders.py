"""A population of three, its critics, data, and every TorchRL loss that SteinPolicyLoss wraps."""

from copy import deepcopy

import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import IndependentNormal, OneHotCategorical, ProbabilisticActor, ValueOperator
from torchrl.modules.tensordict_module import QValueModule
from torchrl.objectives import (
    A2CLoss,
    BCLoss,
    ClipPPOLoss,
    CQLLoss,
    CrossQLoss,
    DDPGLoss,
    DiscreteCQLLoss,
    DiscreteIQLLoss,
    DiscreteSACLoss,
    DQNLoss,
    DTLoss,
    IPPOLoss,
    IQLLoss,
    KLPENPPOLoss,
    MAPPOLoss,
    OnlineDTLoss,
    PPOLoss,
    REDQLoss,
    ReinforceLoss,
    SACLoss,
    TD3BCLoss,
    TD3Loss,
    TQCLoss,
)

from torchrl_stein.kernels import RBFKernel
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import SteinPolicyLoss

N, M, OBS, ACT = 3, 4, 3, 2
BANDWIDTH, TEMPERATURE = 9.0, 0.7
NO_UPDATER = "ignore:No target network updater:UserWarning"


class Concatenated(nn.Module):
    """A network of all its inputs side by side."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, *inputs):
        return torch.tanh(self.layer(torch.cat(inputs, -1)))


def population(factory, n=N, dtype=torch.float64, **options):
    return ParticleModule(factory, n, **options).to(dtype)


def gaussian(n=N, dtype=torch.float64, **options):
    def make():
        return nn.Sequential(nn.Linear(OBS, 2 * ACT), NormalParamExtractor())

    net = population(make, n, dtype, **options)
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
    )


def linear(out_features, out_key, n=N):
    net = population(lambda: nn.Linear(OBS, out_features), n)
    return TensorDictModule(net, ["observation"], [out_key])


def discrete(n=N):
    return ProbabilisticActor(
        linear(ACT, "logits", n),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        return_log_prob=True,
    )


def deterministic(n=N):
    net = population(lambda: Concatenated(OBS, ACT), n)
    return TensorDictModule(net, ["observation"], ["action"])


def greedy(n=N):
    """A population of Q-functions of discrete actions, acting greedily."""
    return TensorDictSequential(linear(ACT, "action_value", n), QValueModule("one-hot"))


def value(n=N, dtype=torch.float64):
    return ValueOperator(population(lambda: nn.Linear(OBS, 1), n, dtype))


def qvalue(n=N):
    net = population(lambda: Concatenated(OBS + ACT, 1), n)
    return ValueOperator(net, in_keys=["observation", "action"])


class SideBySide(nn.Module):
    """A population that reads c batches on top of each other, ``[c * n, m, ...]``."""

    def __init__(self, population):
        super().__init__()
        self.population = population

    def forward(self, *inputs):
        n, m = self.population.num_particles, inputs[0].shape[1]
        rows = [x.unflatten(0, (-1, n)).transpose(0, 1).flatten(1, 2) for x in inputs]
        return self.population(*rows).unflatten(1, (-1, m)).transpose(0, 1).flatten(0, 1)


def crossed(n=N, make=lambda: Concatenated(OBS + ACT, 1)):
    return ValueOperator(SideBySide(population(make, n)), in_keys=["observation", "action"])


def action_value(n=N):
    return linear(ACT, "action_value", n)


def state_action_value(n=N):
    return linear(ACT, "state_action_value", n)


# Two Q-networks as a list: from one network TorchRL would redraw the flat weights uniformly.
def twin(factory):
    return lambda: [factory(), factory()]


BOX = {"bounds": (-1.0, 1.0)}
SPEC = Bounded(-1.0, 1.0, (ACT,), dtype=torch.float64)
ONE_HOT = {"action_space": "one-hot"}
ENTROPY = {"target_entropy": -1.0}
TQC = {"num_qvalue_nets": 2, "top_quantiles_to_drop_per_net": 0, **ENTROPY}
REDQ = {"num_qvalue_nets": 2, "sub_sample_len": 2, **ENTROPY}
DISCRETE_SAC = {**ONE_HOT, "num_actions": ACT, "target_entropy": 0.2}
PLAIN = {"entropy_bonus": False, "critic_coeff": None}

# Name -> actor, critics, loss of both. docs/howto/which_losses.md lists the same.
LOSSES = {
    "ReinforceLoss": (gaussian, [value], ReinforceLoss),
    "A2CLoss": (gaussian, [value], A2CLoss),
    "A2CLoss, discrete": (discrete, [value], A2CLoss),
    "A2CLoss, actor only": (gaussian, [value], lambda a, v: A2CLoss(a, v, **PLAIN)),
    "PPOLoss": (gaussian, [value], PPOLoss),
    "ClipPPOLoss": (gaussian, [value], ClipPPOLoss),
    "ClipPPOLoss, delayed": (gaussian, [value], lambda a, v: ClipPPOLoss(a, v, delay_actor=True)),
    "KLPENPPOLoss": (gaussian, [value], KLPENPPOLoss),
    "MAPPOLoss": (gaussian, [value], lambda a, v: MAPPOLoss(a, v, normalize_advantage=False)),
    "IPPOLoss": (gaussian, [value], lambda a, v: IPPOLoss(a, v, normalize_advantage=False)),
    "DDPGLoss": (deterministic, [qvalue], lambda a, q: DDPGLoss(a, q, delay_actor=True)),
    "TD3Loss": (deterministic, [twin(qvalue)], lambda a, q: TD3Loss(a, q, **BOX)),
    "TD3BCLoss": (deterministic, [twin(qvalue)], lambda a, q: TD3BCLoss(a, q, **BOX)),
    "SACLoss": (gaussian, [twin(qvalue)], lambda a, q: SACLoss(a, q, **ENTROPY)),
    "DiscreteSACLoss": (
        discrete,
        [twin(action_value)],
        lambda a, q: DiscreteSACLoss(a, q, **DISCRETE_SAC),
    ),
    "REDQLoss": (gaussian, [twin(qvalue)], lambda a, q: REDQLoss(a, q, **REDQ)),
    "CrossQLoss": (gaussian, [twin(crossed)], lambda a, q: CrossQLoss(a, q, **ENTROPY)),
    "TQCLoss": (gaussian, [twin(qvalue)], lambda a, q: TQCLoss(a, q, **TQC)),
    "CQLLoss": (
        gaussian,
        [twin(qvalue)],
        lambda a, q: CQLLoss(a, q, action_spec=SPEC, **ENTROPY),
    ),
    "IQLLoss": (gaussian, [twin(qvalue), value], IQLLoss),
    "DiscreteIQLLoss": (
        discrete,
        [twin(state_action_value), value],
        lambda a, q, v: DiscreteIQLLoss(a, q, v, **ONE_HOT),
    ),
    "BCLoss": (gaussian, [], BCLoss),
    "DTLoss": (deterministic, [], DTLoss),
    "OnlineDTLoss": (gaussian, [], lambda a: OnlineDTLoss(a, **ENTROPY)),
    "DQNLoss": (greedy, [], lambda a: DQNLoss(a, delay_value=True, **ONE_HOT)),
    "DiscreteCQLLoss": (greedy, [], lambda a: DiscreteCQLLoss(a, delay_value=True, **ONE_HOT)),
}
# These draw inside the loss, so that a particle on its own would see other noise ...
SAMPLED = {"SACLoss", "REDQLoss", "CrossQLoss", "TQCLoss", "CQLLoss", "OnlineDTLoss"}
# ... and this divides by the mean |Q| of all particles.
POOLED = {"TD3BCLoss"}


def coupled(name):
    return "value_network_params" if LOSSES[name][0] is greedy else "actor_network_params"


def make_networks(name, seed=0):
    """The actor and the critics of a loss."""
    torch.manual_seed(seed)
    actor, critics, _ = LOSSES[name]
    return [actor(), *(make() for make in critics)]


def make_base(name, seed=0):
    """The TorchRL loss, and data of its actor."""
    networks = make_networks(name, seed)
    return LOSSES[name][2](*networks), batch(networks[0])


def make_stein(name="A2CLoss", seed=0, **options):
    """SteinPolicyLoss around it, and the data."""
    base, data = make_base(name, seed)
    options = {"kernel": RBFKernel(BANDWIDTH), "temperature": TEMPERATURE, **options}
    return SteinPolicyLoss(base, coupled=coupled(name), **options), data


def row(network, j):
    """The network, or list of networks, of particle j alone."""
    if isinstance(network, list):
        return [row(one, j) for one in network]
    alone = deepcopy(network)
    for module in alone.modules():
        if isinstance(module, ParticleModule):
            module.particles = nn.Parameter(module.particles.detach()[[j]].clone())
    return alone


def batch(actor, n=N, m=M, dtype=torch.float64):
    """Transitions [n, m] of the actor, with random rewards, advantages and ends."""
    observation, following = torch.randn(2, n, m, OBS, dtype=dtype)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        data = actor(TensorDict({"observation": observation}, [n, m]))
    if "scale" not in data and "logits" not in data and "action_value" not in data:
        data["action"] += 0.1 * torch.randn_like(data["action"])
    ends = torch.arange(n * m).view(n, m, 1) % 3 == 0
    data["next"] = TensorDict({"observation": following, "done": ends, "terminated": ends}, [n, m])
    data["next", "reward"] = torch.randn(n, m, 1, dtype=dtype)
    data["advantage"] = torch.randn(n, m, 1, dtype=dtype)
    data["value_target"] = torch.randn(n, m, 1, dtype=dtype)
    return data


def total(losses):
    """The sum to be differentiated. DQNLoss and DTLoss call theirs just "loss"."""
    return sum(v for k, v in losses.items() if k.startswith("loss"))


def run(loss, data, seed=1):
    torch.manual_seed(seed)
    return loss(data.clone())


def gradients(loss, data, seed=1):
    """Gradients of the summed losses, by parameter; zeros where none arrives."""
    parameters = list(loss.parameters())
    found = torch.autograd.grad(total(run(loss, data, seed)), parameters, allow_unused=True)
    return {
        p: torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
    }


def particle_gradient(loss, data, seed=1):
    return gradients(loss, data, seed)[loss.particles]
