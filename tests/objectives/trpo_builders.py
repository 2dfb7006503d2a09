"""Policies whose Fisher matrix is known, one policy of a population, and data with advantages."""

from copy import deepcopy

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import IndependentNormal, ProbabilisticActor

from torchrl_stein.objectives import NaturalGradientStep, TRPOLoss

OBS, ACT = 3, 2
SCALE = torch.tensor([0.5, 2.0], dtype=torch.float64)


class LinearMean(nn.Module):
    """loc = W x with a fixed scale: the KL between two of these is quadratic in W."""

    def __init__(self, scale=SCALE):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(len(scale), OBS, dtype=torch.float64))
        self.register_buffer("scale", scale.clone())

    def forward(self, observation):
        loc = observation @ self.weight.mT
        return loc, self.scale.expand_as(loc)


def actor_of(network, in_keys=("loc", "scale"), distribution_class=IndependentNormal, **options):
    return ProbabilisticActor(
        TensorDictModule(network, ["observation"], list(in_keys)),
        in_keys=list(in_keys),
        distribution_class=distribution_class,
        return_log_prob=True,
        **options,
    )


def alone(actor, j):
    """Policy j of a population, as an actor of one plain network."""
    copy = deepcopy(actor)
    copy[0].module = actor[0].module.particle(j)
    return copy


def data_of(actor, *shape, dtype=torch.float64):
    """Transitions of an actor, [*shape], with random advantages."""
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        data = actor(TensorDict({"observation": torch.randn(*shape, OBS, dtype=dtype)}, shape))
    data["advantage"], data["value_target"] = torch.randn(2, *shape, 1, dtype=dtype)
    return data


def flat(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def move(actor, data, loss=TRPOLoss, normalize_advantage=False, **options):
    """The change of the flat parameters in one step, and its figures."""
    before = flat(actor)
    step = NaturalGradientStep(loss(actor, normalize_advantage=normalize_advantage), **options)
    figures = step.step(data)
    return flat(actor) - before, figures
