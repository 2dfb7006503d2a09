"""A Q-function and a value function of continuous actions that agree: a dueling network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn

from torchrl_stein._checks import check_keys, check_type

__all__ = ["StochasticDuelingNetwork"]


class StochasticDuelingNetwork(TensorDictModuleBase):
    r"""Q(s, a) = V(s) + A(s, a) - 1/n sum_i A(s, u_i), for actions u_i of the policy.

    So the mean of Q over the policy is V, in expectation over the u_i, and what is learnt of one is
    learnt of the other. It reads states, "action" ``[*B, A]`` and "sampled_action" ``[*B, n, A]``,
    and writes "state_value" and "state_action_value", ``[*B, 1]`` each.

    Args:
        value_network: states -> V, ``[*B, 1]``.
        advantage_network: states and an action -> A, ``[*B, 1]``, such as TorchRL's MLP, which
            concatenates.
        in_keys: of the states.
        action_key: of the action.

    Raises:
        TypeError, KeyError, ValueError: for networks that are no ``nn.Module``; at the call, for
            missing entries, and for actions and samples of other shapes.

    Source: Wang et al. 2017 (arXiv:1611.01224), eq. (14). Differs: V and A share no layers, unless
    the networks given do.

    Example:
        >>> from torchrl.modules import MLP
        >>> critic = StochasticDuelingNetwork(nn.Linear(3, 1), MLP(5, 1, num_cells=[8]))
        >>> u = torch.randn(4, 6, 2)
        >>> v, q = critic(observation=torch.randn(4, 3), action=u[:, 0], sampled_action=u)
        >>> q.shape
        torch.Size([4, 1])
    """

    def __init__(
        self,
        value_network: nn.Module,
        advantage_network: nn.Module,
        in_keys: Sequence[NestedKey] = ("observation",),
        action_key: NestedKey = "action",
    ) -> None:
        super().__init__()
        networks = {"value_network": value_network, "advantage_network": advantage_network}
        check_type("StochasticDuelingNetwork", "an nn.Module", nn.Module, **networks)
        self.value_network, self.advantage_network = value_network, advantage_network
        self.state_keys, self.action_key = list(in_keys), action_key
        self.in_keys = [*self.state_keys, action_key, "sampled_action"]
        self.out_keys = ["state_value", "state_action_value"]

    def value(self, tensordict: TensorDictBase) -> Tensor:
        """V of states alone, ``[*B, 1]``."""
        return self.value_network(*(tensordict.get(key) for key in self.state_keys))

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write V and Q."""
        check_keys("StochasticDuelingNetwork", tensordict, self.in_keys)
        action, samples = (tensordict.get(key) for key in self.in_keys[-2:])
        if samples.ndim != action.ndim + 1 or samples[..., 0, :].shape != action.shape:
            raise ValueError(
                "StochasticDuelingNetwork: 'sampled_action' must be [*B, n, A] for actions [*B, A] "
                f"= {list(action.shape)}, got {list(samples.shape)}"
            )
        actions = torch.cat([action.unsqueeze(-2), samples], -2)
        rows = actions.shape[:-1]
        states = (tensordict.get(key).unsqueeze(len(rows) - 1) for key in self.state_keys)
        states = (state.expand(*rows, *state.shape[len(rows) :]) for state in states)
        advantage = self.advantage_network(*states, actions).squeeze(-1)
        value = self.value(tensordict)
        q = value + (advantage[..., :1] - advantage[..., 1:].mean(-1, keepdim=True))
        return tensordict.update({"state_value": value, "state_action_value": q})
