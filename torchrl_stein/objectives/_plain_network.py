"""Networks that are a function of tensors, called as such: without the way over a TensorDict."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.modules import ValueOperator

from torchrl_stein._torchrl import has_hooks, takes_keywords
from torchrl_stein.modules._population_forward import call_with, evaluate

__all__ = ["PlainNetwork"]


class PlainNetwork:
    """One network, or N of them, of one result.

    TorchRL's way, a TensorDict in and one out, takes ten times as long per call where networks are
    small, and ``torch.vmap`` twice the time of batched products for N networks.

    Args:
        network: a TensorDictModule, for which :meth:`suits` holds.
        size: N.
    """

    def __init__(self, network: TensorDictModule, size: int) -> None:
        self.network, self.size = network, size

    @staticmethod
    def suits(network: TensorDictModule, out_key: NestedKey) -> bool:
        """Whether calling the module inside does what calling the network does.

        Args:
            network: of any kind.
            out_key: the one it should write.
        """
        if type(network) not in (TensorDictModule, ValueOperator) or takes_keywords(network):
            return False
        if not isinstance(network.module, nn.Module) or network.method is not None:
            return False
        if list(network.out_keys) != [out_key] or has_hooks(network):
            return False
        # What is tied has several names, of which a call with other tensors wants one.
        named = (network.named_parameters, network.named_buffers)
        tensors = [id(tensor) for of in named for _, tensor in of(remove_duplicate=False)]
        return len(set(tensors)) == len(tensors)

    def __call__(self, params: TensorDictParams, values: list[Tensor]) -> Any:
        """The result, ``[N, *B, 1]``; what the network returns, if that is no tensor.

        Args:
            params: of the network, with a leading dimension N for N > 1.
            values: what the network reads, in its order, ``[*B, ...]`` each.
        """
        module = self.network.module
        inner: TensorDictBase = params.get("module")
        state = {
            ".".join(key) if isinstance(key, tuple) else key: value
            for key, value in inner.items(True, True)
        }
        if self.size > 1:
            rows = tuple(value.expand(self.size, *value.shape) for value in values)
            return self._only(evaluate(module, state, set(state), rows, {}))
        result, replaced = call_with(module, state, tuple(values), {})
        with torch.no_grad():
            for name, value in replaced.items():
                state[name].copy_(value)
        result = self._only(result)
        return result.unsqueeze(0) if isinstance(result, Tensor) else result

    def _only(self, result: Any) -> Any:
        """What would be written, also of a network that returns it in a tuple or dict."""
        if isinstance(result, dict):
            return result.get(self.network.out_keys[0], result)
        return result[0] if isinstance(result, tuple) and len(result) == 1 else result
