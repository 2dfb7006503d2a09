"""Networks that are a function of tensors, called as such: without the way over a TensorDict."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.modules import ValueOperator

from torchrl_stein.modules._population_forward import (
    Output,
    evaluate_batched,
    needs_its_turn,
)

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
        if torch.compiler.is_compiling():  # the other way is fused as well
            return False
        if type(network) not in (TensorDictModule, ValueOperator) or network._kwargs:
            return False
        if not isinstance(network.module, nn.Module) or network.method is not None:
            return False
        if list(network.out_keys) != [out_key] or needs_its_turn(network):
            return False
        # Tied weights have several names, of which a call with other parameters wants one.
        names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
        return len(names) == len(list(network.parameters()))

    def __call__(self, params: TensorDictParams, values: list[Tensor]) -> Tensor:
        """The result, ``[N, *B, 1]``.

        Args:
            params: of the network, with a leading dimension N for N > 1.
            values: what the network reads, in its order, ``[*B, ...]`` each.
        """
        if self.size == 1:
            with params.to_module(self.network, preserve_module_state=False):
                return _only(self.network.module(*values)).unsqueeze(0)
        inner: TensorDictBase = params.get("module").flatten_keys(".")
        state = dict(inner.items())
        rows = [value.expand(self.size, *value.shape) for value in values]
        return _only(evaluate_batched(self.network.module, state, set(state), *rows))


def _only(result: Output) -> Tensor:
    if isinstance(result, Tensor):
        return result
    (tensor,) = result  # of a network with one out_key
    return tensor
