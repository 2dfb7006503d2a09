"""Small actors, Q-networks, batches and losses for the tests of objectives."""

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator

from torchrl_stein.functional import boltzmann_value, mellowmax_value, soft_value
from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import (
    BoxSquash,
    SoftQLoss,
    TanhSquash,
    actor_proposal,
    uniform_proposal,
)

OBS, ACT = 3, 2
# The strategies of the losses by the words of conf/, which the oracles know too.
PROPOSALS = {"uniform": uniform_proposal, "actor": actor_proposal}
VALUE_TARGETS = {"soft": soft_value, "boltzmann": boltzmann_value, "mellowmax": mellowmax_value}
SQUASHES = {
    "unsquashed": TanhSquash(),
    "reference": BoxSquash(barrier=True),
    "none": BoxSquash(barrier=False),
}
NO_UPDATER = "ignore:No target network updater:UserWarning"


class Formula(nn.Module):
    """scale * formula(*inputs): a network with one parameter and known values."""

    def __init__(self, formula, scale=1.0, dtype=torch.float32):
        super().__init__()
        self.formula = formula
        self.scale = nn.Parameter(torch.tensor(scale, dtype=dtype))

    def forward(self, *inputs):
        return self.scale * self.formula(*inputs)


def make_actor(
    network=None, *, obs=OBS, act=ACT, noise_dim=None, low=-1.0, high=1.0, dtype=None, **keys
):
    dtype = torch.float32 if dtype is None else dtype
    if network is None:
        network = MLP(in_features=obs + (noise_dim or act), out_features=act, num_cells=[8])
    low, high = (torch.as_tensor(b, dtype=dtype).expand(act) for b in (low, high))
    spec = Bounded(low, high, shape=(act,), dtype=dtype)
    return AmortizedSVGDActor(network.to(dtype), action_spec=spec, noise_dim=noise_dim, **keys)


def make_qvalue(network=None, *, obs=OBS, act=ACT, dtype=None, keys=("observation", "action")):
    """A Q-network: an MLP, or ``Formula``s of known values."""
    if network is None:
        network = MLP(in_features=obs + act, out_features=1, num_cells=[8])
    dtype = torch.float32 if dtype is None else dtype
    return ValueOperator(network.to(dtype), in_keys=list(keys))


def make_known_qvalue(formula, scale=1.0, dtype=torch.float64, out_key="state_action_value"):
    """Q(s, a) = scale * formula(s, a)."""
    return TensorDictModule(
        Formula(formula, scale, dtype), in_keys=["observation", "action"], out_keys=[out_key]
    )


def make_batch(*batch, obs=OBS, act=ACT, dtype=torch.float32, seed=0):
    """Random transitions; every third ends, the second of these by truncation only."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*batch, *shape, generator=generator, dtype=dtype)

    index = torch.arange(max(1, torch.Size(batch).numel())).reshape(*batch, 1)
    return TensorDict(
        {
            "observation": normal(obs),
            "action": torch.tanh(normal(act)),
            "next": {
                "observation": normal(obs),
                "reward": normal(1),
                "done": index % 3 == 0,
                "terminated": index % 6 == 0,
            },
        },
        batch,
    )


def make_loss(actor=None, qvalue=None, *, gamma=0.9, dtype=None, **options):
    """A SoftQLoss of small networks, TD(0), with K = 6 and M = 4 unless told otherwise."""
    options = {
        "num_action_samples": (6, 4),
        "num_value_samples": 5,
        "value_target": soft_value,
        **options,
    }
    loss = SoftQLoss(
        make_actor(dtype=dtype) if actor is None else actor,
        make_qvalue(dtype=dtype) if qvalue is None else qvalue,
        **options,
    )
    return loss.make_value_estimator(gamma=gamma)


def run(loss, batch, seed=0):
    """The losses of a copy of the batch, under a fixed seed."""
    torch.manual_seed(seed)
    return loss(batch.clone())


def gradients(loss, batch, *terms, seed=0):
    """Gradients of the sum of the terms, by parameter name; zeros where none arrives."""
    losses = run(loss, batch, seed)
    named = dict(loss.named_parameters())
    total = sum(losses[term].sum() for term in terms)
    grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), grads, strict=True)
    }


def fix_noise(monkeypatch, actor, noise):
    """Make the actor draw exactly this noise, ``[*B, K, noise_dim]``."""

    def draw_noise(tensordict, num_samples):
        assert noise.shape[-2] == num_samples
        return noise

    monkeypatch.setattr(actor, "draw_noise", draw_noise)
