"""Fewer launches per update: ``torch.compile`` and CUDA graphs around one closure."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import torch
from tensordict.nn import CudaGraphModule
from torch import Tensor, nn
from torch.optim import Optimizer

from torchrl_stein._torchrl import inductor_for_cpu

from .settings import Compile

__all__ = ["compiled", "make_capturable"]

_WARMUP = 5  # the call that is captured, as in TorchRL's scripts
# What tensordict says of itself when it is traced; a user can do nothing about it.
_OF_TENSORDICT = (r"torch\._dynamo\.config\.inline_inbuilt", r"Using lock_\(\) inside a compiled")


def compiled(
    update: Callable[..., Any],
    settings: Compile,
    *optimizers: Optimizer,
    losses: Iterable[nn.Module | MethodType | None] = (),
) -> Callable[..., Any]:
    """An update that is launched with fewer calls: its losses fused, the whole of it captured.

    Not the whole update is compiled: tracing breaks off at ``backward()`` and in the optimizer, and
    starts again with every learning rate.

    Args:
        update: one closure of a TensorDict of constant shapes: losses, gradients, the optimizer's
            step. In a CUDA graph Python runs in the first calls alone.
        settings: what to do.
        *optimizers: that step in it; ValueError if one cannot be captured.
        losses: modules called in it and methods of modules, such as ``loss.qvalue_loss``, which
            ``torch.compile`` compiles in place, without breaks.
    """
    if settings.compile:
        for message in _OF_TENSORDICT:
            warnings.filterwarnings("ignore", message)
        for loss in losses:
            if loss is not None:
                _compile(loss, settings.compile_mode)
    if settings.cudagraphs:
        for optimizer in optimizers:
            make_capturable(optimizer)
        update = CudaGraphModule(update, warmup=_WARMUP, in_keys=[], out_keys=[])
    return update


def _compile(loss: nn.Module | MethodType, mode: str | None) -> None:
    module: Any = loss.__self__ if isinstance(loss, MethodType) else loss
    # TorchRL finds them in the first call; the second would be traced anew.
    getattr(module, "in_keys", None)
    tensors = (*module.parameters(), *module.buffers())
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    backend: Any = inductor_for_cpu if on_cpu else "inductor"
    if isinstance(loss, MethodType):
        traced = torch.compile(loss.__func__, fullgraph=True, mode=mode, backend=backend)
        setattr(module, loss.__name__, MethodType(traced, module))  # of a copy, it is the copy's
    else:
        loss.compile(fullgraph=True, mode=mode, backend=backend)


def make_capturable(optimizer: Optimizer) -> None:
    """Let a CUDA graph hold the steps of an optimizer: call it before the first of them.

    Learning rates become tensors, which a schedule fills in place: a graph reads the memory that
    it saw when it was captured. Counts of steps stay on the device. A ``state_dict`` shows neither,
    so runs may be resumed with and without graphs. ValueError if the optimizer has no option
    ``capturable``, as Adam and RMSprop have.
    """
    for group in optimizer.param_groups:
        if "capturable" not in group:
            raise ValueError(
                "compile.cudagraphs needs an optimizer with the option capturable, got "
                f"{type(optimizer).__name__}"
            )
    _keep_on_device(optimizer)
    optimizer.register_load_state_dict_post_hook(_keep_on_device)
    optimizer.register_state_dict_post_hook(_as_without_graphs)


def _keep_on_device(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if not group["params"]:
            continue
        first = group["params"][0]
        # On a CPU, where there are no graphs, torch refuses the option; tests run there.
        group["capturable"] = first.is_cuda
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=first.device).clone()
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if "step" in state:
                state["step"] = torch.as_tensor(state["step"], dtype=torch.float32).to(first.device)


def _as_without_graphs(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    groups = [
        group | {"lr": _number(group["lr"]), "capturable": False} for group in state["param_groups"]
    ]
    return state | {"param_groups": groups}


def _number(value: Tensor | float) -> float:
    return value.item() if isinstance(value, Tensor) else value
