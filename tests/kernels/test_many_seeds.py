"""Points [S, n, d] of several seeds: each seed is what it would be alone."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torch.testing import assert_close

from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    IdentityKernel,
    IMQKernel,
    LayerwiseKernel,
    LinearKernel,
    MeanBandwidth,
    RadialControl,
    RBFKernel,
    SharedDriftControl,
    TangentialControl,
)
from torchrl_stein.modules import ParticleModule

S, N, D = 3, 4, 6
KERNELS = {
    "rbf, median": RBFKernel,
    "rbf, mean": lambda: RBFKernel(MeanBandwidth()),
    "rbf": lambda: RBFKernel(2.0),
    "imq": IMQKernel,
    "linear": LinearKernel,
    "sum": lambda: RBFKernel() + 0.5 * LinearKernel(),
    "product": lambda: RBFKernel(3.0) * LinearKernel(),
    "scaled": lambda: 0.5 * RBFKernel(),
    "layers": lambda: LayerwiseKernel([slice(0, 2), slice(2, D)]),
    "identity": IdentityKernel,
    "radial": lambda: RadialControl(RBFKernel()),
    "tangential": lambda: TangentialControl(RBFKernel()),
}


def points(scale=(1.0, 3.0, 0.2), dim=D):
    """Seeds of different spread, so that bandwidths differ."""
    torch.manual_seed(0)
    x = torch.randn(S, N, dim, dtype=torch.float64)
    return torch.tensor(scale, dtype=torch.float64)[:, None, None] * x


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dim", [D, 12])  # distances by a loop over dimensions, and otherwise
def test_every_seed_is_as_it_would_be_alone(name, dim):
    x, kernel = points(dim=dim), KERNELS[name]()
    if name == "layers":
        kernel = LayerwiseKernel([slice(0, 2), slice(2, dim)])
    evaluation = kernel.evaluate(x)
    for s in range(S):
        alone = kernel.evaluate(x[s])
        assert_close(evaluation.gram[s], alone.gram, rtol=0, atol=1e-12)
        both = evaluation.repulsion[s], alone.repulsion
        assert_close(*both, rtol=0, atol=1e-12)
        if alone.bandwidth is None:
            assert evaluation.bandwidth is None
        else:
            assert_close(evaluation.bandwidth.expand(S)[s], alone.bandwidth)


@pytest.mark.parametrize("name", ["rbf, median", "linear", "sum", "layers"])
def test_weights_of_every_seed(name):
    x, kernel = points(), KERNELS[name]()
    weights = torch.randn(S, N, N, dtype=x.dtype)
    got = kernel.evaluate(x).weighted_repulsion(weights)
    for s in range(S):
        alone = kernel.evaluate(x[s]).weighted_repulsion(weights[s])
        assert_close(got[s], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("control", [DriftControl, SharedDriftControl])
def test_drifts_of_all_seeds_differ(control):
    x = points()
    drift = control(RBFKernel(), num_particles=(S, N), dim=D, seed=3)
    pushes = drift.gram_and_repulsion(x)[1]
    sizes = torch.stack([RBFKernel().gram_and_repulsion(one)[1] for one in x])
    assert_close(pushes.norm(dim=-1), sizes.norm(dim=-1))
    directions = nn.functional.normalize(pushes, dim=-1).flatten(0, 1)
    assert (directions @ directions.mT).fill_diagonal_(0.0).abs().max() < 0.99
    with pytest.raises(ValueError, match=r"x must end in \[3, 4, 6\] .* got shape \[4, 6\]"):
        drift(x[0])


def policies(shape):
    def make():
        return nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())

    torch.manual_seed(0)
    net = ParticleModule(make, shape, outside_kernel=["0.bias"]).double()
    return TensorDictModule(net, ["observation"], ["loc", "scale"])


@pytest.mark.parametrize("wrap", [lambda k: k, lambda k: 0.5 * k, lambda k: RBFKernel() + k])
def test_behaviour_in_the_states_of_every_seed(wrap):
    actor = policies((S, N))
    data = TensorDict({"observation": torch.randn(S, N, 50, 3, dtype=torch.float64)}, [S, N, 50])
    kernel = wrap(BehaviourKernel(actor))
    kernel.observe(data)
    x = actor.module.particles.detach()[..., : actor.module.kernel_dim]
    gram, repulsion = kernel.gram_and_repulsion(x)
    assert gram.shape == (S, N, N)
    for s in range(S):
        alone = policies(N)
        alone.module = actor.module.seed(s)
        single = wrap(BehaviourKernel(alone))
        single.observe(data[s])
        want = single.gram_and_repulsion(x[s])
        assert want[1].abs().max() > 1e-4
        assert_close((gram[s], repulsion[s]), want, rtol=0, atol=1e-12)


def test_behaviour_refuses_data_and_points_of_other_seeds():
    actor = policies((S, N))
    kernel = BehaviourKernel(actor)
    states = torch.zeros(N, 5, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"a batch of the 3 seeds, got batch size \[4, 5\]"):
        kernel.observe(TensorDict({"observation": states}, [N, 5]))
    kernel.observe(TensorDict({"observation": states.expand(S, N, 5, 3)}, [S, N, 5]))
    with pytest.raises(ValueError, match=r"x and y must be \[3, n, 12\] .* got shape \[4, 12\]"):
        kernel(actor.module.particles.detach()[0, :, :12])
