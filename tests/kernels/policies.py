"""Small populations of policies for the tests of kernels between behaviours, in float64."""

import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.modules import IndependentNormal, OneHotCategorical, ProbabilisticActor

from torchrl_stein.kernels import BehaviourKernel
from torchrl_stein.modules import ParticleModule


def gaussian_actor(n, *, inputs=3, distribution=IndependentNormal, hidden=0, **kwargs):
    """n policies of one action dimension, which write "loc" and "scale"."""

    def factory():
        body = [nn.Linear(inputs, hidden), nn.Tanh()] if hidden else []
        return nn.Sequential(*body, nn.Linear(hidden or inputs, 2), NormalParamExtractor())

    net = ParticleModule(factory, n, **kwargs).double()
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=distribution,
        return_log_prob=True,
    )


def categorical_actor(n, *, inputs=3, actions=3, **kwargs):
    """n policies over a few actions, which write "logits"."""
    net = ParticleModule(
        lambda: nn.Sequential(nn.Linear(inputs, 4), nn.Tanh(), nn.Linear(4, actions)), n, **kwargs
    ).double()
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        return_log_prob=True,
    )


def population(actor):
    """The ParticleModule inside an actor."""
    return next(m for m in actor.modules() if isinstance(m, ParticleModule))


def batch(n, rows, *, inputs=3, seed=0):
    """Observations ``[n, rows, inputs]``."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(n, rows, inputs, generator=generator, dtype=torch.float64)
    return TensorDict({"observation": observation}, [n, rows])


N = 4
ACTORS = {
    "gaussian": lambda **kwargs: gaussian_actor(N, hidden=4, **kwargs),
    "categorical": lambda **kwargs: categorical_actor(N, **kwargs),
}


def make_kernel(kind="gaussian", *, divergence="jensen_shannon", num_states=6, rows=10, **kwargs):
    """A kernel that has seen a batch, its population and the parameters that it sees."""
    actor = ACTORS[kind](**kwargs)
    kernel = BehaviourKernel(actor, divergence=divergence, num_states=num_states)
    kernel.observe(batch(N, rows))
    net = population(actor)
    return kernel, net, net.particles.detach()[:, : net.kernel_dim].clone()
