"""Policies of several kinds, and states for them."""

import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import distributions as D
from torch import nn
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal

from torchrl_stein.modules import ParticleModule


def laplace(loc, scale):
    """A reparameterised distribution that is no Normal underneath."""
    return D.Independent(D.TransformedDistribution(D.Laplace(loc, scale), D.TanhTransform()), 1)


def probabilistic(distribution_class=TanhNormal, particles=None, **options):
    def make():
        return nn.Sequential(MLP(3, 4, num_cells=[16]), NormalParamExtractor())

    net = make() if particles is None else ParticleModule(make, particles)
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=distribution_class,
        **options,
    )


def states(*batch):
    return TensorDict({"observation": torch.randn(*batch, 3)}, batch)


def nudge(actor, size=0.05):
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(size * torch.randn_like(parameter))
