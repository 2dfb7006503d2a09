"""Networks that the tests of populations are made of."""

import torch
from tensordict.nn import AddStateIndependentNormalScale, NormalParamExtractor
from torch import nn
from torchrl.modules import MLP

N = 5


def mlp(**kwargs):
    return MLP(in_features=3, out_features=2, num_cells=[8, 7], activation_class=nn.Tanh, **kwargs)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(3, 2, 4)

    def forward(self, x, y):
        return self.layer(x, y), x.sum(-1, keepdim=True)


class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
        self.head = nn.Linear(8, 2)
        self.log_std = nn.Parameter(torch.randn(2))

    def forward(self, x):
        mean = self.head(self.trunk(x))
        return mean, self.log_std.exp().expand_as(mean)


NETWORKS = {
    "linear": lambda: nn.Linear(3, 2),
    "linear without bias": lambda: nn.Linear(3, 2, bias=False),
    "mlp": mlp,
    "normalised": lambda: nn.Sequential(
        nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)
    ),
    "gaussian": lambda: nn.Sequential(mlp(), AddStateIndependentNormalScale(2)),
    "extractor": lambda: nn.Sequential(nn.Linear(3, 4), NormalParamExtractor()),
    "custom": Trunk,
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ELU()), nn.Linear(4, 2)),
}


def as_tuple(output):
    return output if isinstance(output, tuple) else (output,)


def each(net, *inputs):
    """The oracle: one plain network after the other."""
    rows = [as_tuple(net.particle(i)(*(x[i] for x in inputs))) for i in range(net.num_particles)]
    return [torch.stack(column) for column in zip(*rows, strict=True)]
