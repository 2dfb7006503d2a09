"""Every private name of torch, tensordict and TorchRL that the library uses, and why it needs it.

An upgrade of these packages asks for a look at this file alone. The exceptions are methods that a
subclass has to define under a private name, such as ``_apply`` of a module or ``_step`` of an
environment; tests/test_torchrl.py lists them and keeps all other private names out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

# torch has no public names for these.
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map

if TYPE_CHECKING:
    from tensordict import TensorDictBase


# torch


def is_in_transform(tensor: Tensor) -> bool:
    """Whether ``torch.func`` has put a tensor in the place of many: its numbers can not be read."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def in_transform() -> bool:
    """Whether the call is inside of ``torch.func.grad`` or ``vmap``, where no leaf can be made."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def number_of_changes(tensor: Tensor) -> int:
    """How often a tensor or one of its views was written to: known without waiting for a device."""
    return tensor._version


def children_of(module: nn.Module) -> Mapping[str, nn.Module | None]:
    """Children by name; ``named_children`` leaves out a layer that stands at a second place."""
    children: Mapping[str, nn.Module | None] = getattr(module, "_modules", {})  # {} before __init__
    return children


def parameters_of(module: nn.Module) -> Mapping[str, nn.Parameter | None]:
    """A layer's own parameters, with those that are None, which tell architectures apart."""
    return module._parameters


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """A layer's own buffers; they can be replaced here without a ``__setattr__`` that checks."""
    return module._buffers


def inductor_for_cpu(graph: Any, inputs: Sequence[Any], *, mode: str | None = None) -> Any:
    """The compiler "inductor", but the gradient of ReLU is torch's own kernel.

    Generated C++ keeps for that gradient a mask, which it stores one element at a time. Compiled
    losses took longer than others for it.
    """
    from torch._inductor import list_mode_options
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.lowering import lowerings, make_fallback, require_contiguous

    gradient = torch.ops.aten.threshold_backward.default
    table = dict(select_decomp_table())
    table.pop(gradient, None)
    if gradient not in lowerings:
        # Inductor would do so by itself, but where an environment variable CI is set it refuses.
        make_fallback(gradient, require_contiguous, warn=False, override_decomp=True)
    options = list_mode_options(mode) if mode else None
    # The cache on disk does not tell tables apart.
    config: Any = torch.compiler.config
    with config.patch(cache_key_tag="gradient of ReLU by torch"):
        return compile_fx(graph, inputs, config_patches=options, decompositions=table)


def has_hooks(module: nn.Module) -> bool:
    """Whether a call does more than ``forward``: then nothing may call ``forward`` instead."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


# tensordict


def takes_keywords(network: Any) -> bool:
    """Whether a TensorDictModule passes its entries by keyword: there is no public way to ask."""
    return bool(network._kwargs)


# Losses of TorchRL


def reduce_loss(
    loss: Any, values: Tensor, tensordict: TensorDictBase | None, **options: Any
) -> Tensor:
    """Mean, sum or nothing, over what no mask excludes: the rules of every loss of TorchRL."""
    reduced: Tensor = loss._reduce_loss(values, tensordict, **options)
    return reduced


def priority_weight(loss: Any, tensordict: TensorDictBase, like: Tensor) -> Tensor | None:
    """Weights of prioritized replay, in the shape of ``like``: [*B, 1] would give [*B, *B]."""
    weights = loss._maybe_get_priority_weight(tensordict)
    return None if weights is None else loss._expand_loss_mask(weights, like)


def release(loss: Any, *tensordicts: TensorDictBase | str) -> None:
    """Drop weak references, which a compiled function can not return."""
    loss._clear_weakrefs(*tensordicts)


def schedulable_buffers(loss: Any) -> Any:
    """Names of the hyperparameters of a loss that are buffers and may be assigned to."""
    return getattr(loss, "_all_schedulable_buffers", ())


def estimator_arguments(
    loss: Any, value_type: Any, hyperparams: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Type and arguments of a value estimator, with TorchRL's defaults; None if it is made."""
    value_type, arguments = loss._prepare_value_estimator_kwargs(value_type, **hyperparams)
    return value_type, arguments


def made_value_estimator(loss: Any) -> Any:
    """The value estimator, None where there is none yet; to ask for it would make one."""
    return loss._value_estimator


def call_with_parameters(loss: Any, name: str, params: Any, tensordict: Any) -> Any:
    """The result of a loss whose parameters ``name`` are others for this one call."""
    # An instance attribute hides the registered parameters, which stay as they are. What the
    # loss has cached was made from those.
    hidden = loss.__dict__
    cache = hidden.get("_cache")
    hidden[name] = params
    hidden["_cache"] = {}
    try:
        return loss(tensordict)
    except BaseException:
        # Where a network threw, tensordict has left our tensors in it: also in the policy.
        network = getattr(loss, name.removesuffix("_params"))
        loss._modules[name].to_module(network, return_swap=False, preserve_module_state=False)
        raise
    finally:
        del hidden[name]
        hidden.pop("_cache")
        if cache is not None:  # none after a change of device or dtype
            hidden["_cache"] = cache


def has_critic(loss: Any) -> bool:
    """Whether a PPOLoss trains its critic."""
    return bool(loss._has_critic)


def advantage_as_ppo_has_it(loss: Any, advantage: Tensor, tensordict: TensorDictBase) -> Tensor:
    """Advantages as PPOLoss standardises them, or as they are, by its own settings."""
    used: Tensor = loss._maybe_normalize_advantage(advantage, tensordict, update_norm=False)
    return used


def given_action_spec(loss: Any) -> Any:
    """The spec of one action that a loss was given, or that of its actor; None without one."""
    spec = getattr(loss, "_action_spec", None)
    return getattr(getattr(loss, "actor_network", None), "spec", None) if spec is None else spec


def automatic_target_entropy(loss: Any) -> Any:
    """What SACLoss and its like compute: a number, "auto" if they have not yet, None if told."""
    setting = vars(loss).get("_target_entropy")
    if setting is not None:
        return setting if setting == "auto" else None
    return loss._buffers.get("_target_entropy", loss._buffers.get("target_entropy"))


class PerSeedAlpha:
    """Before SACLoss in a class: its one temperature may be one of each seed, ``[S, 1]``.

    That fits its losses, whose log densities are ``[S, B]``, but not its targets, ``[S, B, 1]``.
    """

    _of_target = False

    @property
    def _alpha(self) -> Tensor:
        # Not super()._alpha, whose value torch.compile cannot trace: "Unsupported python_type()".
        from torchrl.objectives import SACLoss  # formulas are used without TorchRL

        alpha: Tensor = SACLoss._alpha.fget(self)
        return alpha.unsqueeze(-1) if self._of_target and alpha.ndim else alpha

    def _compute_target_v2(self, tensordict: TensorDictBase) -> Tensor:
        self._of_target = True
        try:
            target: Tensor = super()._compute_target_v2(tensordict)  # type: ignore[misc]
            return target
        finally:
            self._of_target = False


# Environments and collectors of TorchRL


def unmoved_rows(env: Any, tensordict: TensorDictBase) -> TensorDictBase:
    """The step of rows that are not to move, for a batch in which others do."""
    rows: TensorDictBase = env._skip_tensordict(tensordict)
    return rows


def collector_counts(collector: Any) -> dict[str, int]:
    """Frames and batches so far; its own ``state_dict`` would copy networks and environment."""
    return {"frames": collector._frames, "iter": collector._iter}


def carried_data(collector: Any) -> TensorDictBase:
    """What a collector keeps between two batches, from which the next step starts."""
    carried: TensorDictBase = collector._carrier
    return carried


def set_carried_data(collector: Any, tensordict: TensorDictBase) -> None:
    """Let a collector go on from there: an exact resume has no public way."""
    collector._carrier = tensordict
