"""Networks that other parts are made of: a faster tanh, and the sum of several Q-functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn

from torchrl_stein._checks import check_type

__all__ = ["SigmoidTanh", "SumQ"]


class SigmoidTanh(nn.Module):
    """tanh(x) = 2 sigmoid(2x) - 1, in float32 to 1e-7: torch's tanh takes four times as long.

    That is on a CPU. In half precision, small values lose their digits.

    Example:
        >>> import torch
        >>> x = torch.linspace(-3, 3, 7)
        >>> bool((SigmoidTanh()(x) - x.tanh()).abs().max() < 1e-6)
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return 2.0 * torch.sigmoid(2.0 * x) - 1.0


class SumQ(TensorDictModuleBase):
    """The sum of several Q-functions: sum_i Q_i(s, a).

    With soft Q-functions of tasks with rewards r_i, exp(sum_i Q_i / alpha) stands for the soft
    optimal policy of the summed reward. It is that policy where each task is about coordinates
    of state and action of its own, elsewhere an approximation, and a bad one where the tasks'
    policies differ much. No network is trained for it but a sampler.

    Args:
        networks: each reads states and action and writes ``out_key``, such as TorchRL's
            ``ValueOperator``. Their parameters are used as they are: freeze what is to stay.
        out_key: the value's key.

    Raises:
        TypeError, ValueError: for networks that are no TensorDict modules, cannot take several
            entries or do not write ``out_key``; at the call, for values of different shapes.

    Source: Haarnoja et al. 2018 (arXiv:1803.06773), section 4: composition of soft Q-functions,
    there with their mean. The sum at temperature alpha is the mean at alpha over their number.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.modules import ValueOperator
        >>> q = [
        ...     ValueOperator(lambda s, a: a - s, in_keys=["observation", "action"]),
        ...     ValueOperator(lambda s, a: 2 * a, in_keys=["observation", "action"]),
        ... ]
        >>> data = TensorDict({"observation": torch.ones(5, 1), "action": torch.ones(5, 1)}, [5])
        >>> SumQ(q)(data)["state_action_value"][0].item()
        2.0
    """

    def __init__(
        self,
        networks: Sequence[TensorDictModuleBase],
        out_key: NestedKey = "state_action_value",
    ) -> None:
        super().__init__()
        check_type(
            "SumQ", "a list of TensorDict modules", (list, tuple, nn.ModuleList), networks=networks
        )
        if not networks:
            raise ValueError("SumQ: networks must hold at least one Q-function, got none")
        for network in networks:
            if not isinstance(network, TensorDictModuleBase):
                raise TypeError(
                    f"SumQ: networks must hold TensorDict modules, got {type(network).__name__}"
                )
            _check_inputs(network)
            if out_key not in network.out_keys:
                raise ValueError(
                    f"SumQ: every network must write {out_key!r}, one writes {network.out_keys}"
                )
        self.networks = nn.ModuleList(networks)
        self.in_keys = list(dict.fromkeys(key for net in networks for key in net.in_keys))
        self.out_keys = [out_key]

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the sum, of the shape of each value."""
        values = [net(tensordict.copy()).get(self.out_keys[0]) for net in self.networks]
        for value in values:
            if value.shape != values[0].shape:
                raise ValueError(
                    f"SumQ: all networks must write {self.out_keys[0]!r} of one shape, "
                    f"got {list(values[0].shape)} and {list(value.shape)}"
                )
        return tensordict.set(self.out_keys[0], sum(values))


def _check_inputs(network: TensorDictModuleBase) -> None:
    """Refuse an nn.Sequential that is to read several entries: it would only tell at the call."""
    for module in network.modules():
        if not isinstance(module, TensorDictModule) or len(module.in_keys) < 2:
            continue
        if getattr(type(module.module), "forward", None) is nn.Sequential.forward:
            raise TypeError(
                f"SumQ: networks must take {len(module.in_keys)} inputs {list(module.in_keys)}, "
                "got an nn.Sequential, which takes one; torchrl.modules.MLP concatenates them"
            )
