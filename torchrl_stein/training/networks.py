"""The networks of the recipes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchrl.modules import MLP

__all__ = ["make_mlp"]


def make_mlp(
    in_features: int,
    out_features: int,
    num_cells: Sequence[int],
    device: torch.device | str | None = None,
) -> MLP:
    """A ReLU network with Xavier-uniform weights and zero biases, as in the reference code.

    Args:
        in_features: summed size of the inputs, which are concatenated.
        out_features: size of the output.
        num_cells: width of each hidden layer.
        device: where the parameters live.

    Example:
        >>> make_mlp(4, 2, [64, 64])(torch.zeros(5, 2), torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """
    net = MLP(
        in_features=in_features,
        out_features=out_features,
        num_cells=list(num_cells),
        activation_class=nn.ReLU,
        device=device,
    )
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net
