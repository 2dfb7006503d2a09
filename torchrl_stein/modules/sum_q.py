"""Q-functions of several tasks as one: what composes their policies."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import nn

__all__ = ["SumQ"]


class SumQ(TensorDictModuleBase):
    """The sum of several Q-functions: sum_i Q_i(s, a).

    With soft Q-functions of tasks with rewards r_i, exp(sum_i Q_i / alpha) stands for the soft
    optimal policy of the summed reward. It is that policy where each task is about coordinates
    of state and action of its own. Elsewhere it is an approximation, and a bad one where the
    tasks' policies differ much. No network is trained for it but a sampler.

    Args:
        networks: each reads states and action and writes ``out_key``, such as TorchRL's
            ``ValueOperator``. Their parameters are used as they are; freeze them if they shall
            stay so.
        out_key: the value's key.

    Raises:
        TypeError: if ``networks`` does not hold TensorDict modules.
        ValueError: if there is none, or one does not write ``out_key``.

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
        if not networks:
            raise ValueError("SumQ: networks must hold at least one Q-function, got none")
        for network in networks:
            if not isinstance(network, TensorDictModuleBase):
                raise TypeError(
                    f"SumQ: networks must hold TensorDict modules, got {type(network).__name__}"
                )
            if out_key not in network.out_keys:
                raise ValueError(
                    f"SumQ: every network must write {out_key!r}, one writes {network.out_keys}"
                )
        self.networks = nn.ModuleList(networks)
        self.in_keys = list(dict.fromkeys(key for net in networks for key in net.in_keys))
        self.out_keys = [out_key]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the sum, of the shape of each value."""
        total = sum(net(tensordict.copy()).get(self.out_keys[0]) for net in self.networks)
        return tensordict.set(self.out_keys[0], total)
