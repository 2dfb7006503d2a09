"""The networks of the recipes, and how a sampler explores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict.nn import TensorDictSequential
from torch import nn
from torchrl.data import TensorSpec
from torchrl.modules import MLP, EGreedyModule

from torchrl_stein.modules import SamplingActor

__all__ = ["make_mlp", "make_uniform_explorer"]


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


def make_uniform_explorer(
    actor: SamplingActor, action_spec: TensorSpec, fraction: float
) -> TensorDictSequential:
    """The sampler, of whose actions a fraction is replaced by uniform ones: for collecting.

    Args:
        actor: the policy; parameters are shared with it.
        action_spec: of the environment, with its batch dimensions.
        fraction: from 0 to 1.

    Example:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> spec = Bounded(-1.0, 1.0, shape=(5, 2))
        >>> actor = AmortizedSVGDActor(make_mlp(5, 2, [8]), action_spec=spec)
        >>> explorer = make_uniform_explorer(actor, spec, fraction=0.2)
        >>> explorer(TensorDict({"observation": torch.zeros(5, 3)}, [5]))["action"].shape
        torch.Size([5, 2])
    """
    uniform = EGreedyModule(action_spec, eps_init=fraction, eps_end=fraction)
    return TensorDictSequential(actor, uniform.to(actor.low.device))
