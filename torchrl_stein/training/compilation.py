"""Fewer launches per update: ``torch.compile`` and CUDA graphs, by TorchRL's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from tensordict.nn import CudaGraphModule
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["CompileSettings", "compile_function", "make_capturable", "read_compile_settings"]

F = TypeVar("F", bound=Callable[..., Any])

_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_MODES_WITH_GRAPHS = (None, "default", "max-autotune-no-cudagraphs")  # the others make their own
_WARMUP = 5  # the call that is captured, as in TorchRL's scripts


@dataclass(frozen=True)
class CompileSettings:
    """How the tensor work of an update runs; names and meaning are TorchRL's.

    Attributes:
        compile: whether ``torch.compile`` fuses it, without a graph break or with an error.
        compile_mode: see ``torch.compile``; None is its default.
        cudagraphs: whether it is captured as a CUDA graph after a few updates, and replayed.

    Raises:
        TypeError: if ``compile`` or ``cudagraphs`` is no bool.
        ValueError: if ``compile_mode`` is no mode, or one that makes CUDA graphs itself, together
            with ``cudagraphs``.

    Example:
        >>> CompileSettings(cudagraphs=True).check("cpu")
        Traceback (most recent call last):
        ValueError: compile.cudagraphs needs a CUDA device, got device=cpu
    """

    compile: bool = False
    compile_mode: str | None = None
    cudagraphs: bool = False

    def __post_init__(self) -> None:
        for name in ("compile", "cudagraphs"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"compile.{name} must be true or false, got {value!r}")
        if self.compile_mode is not None and self.compile_mode not in _MODES:
            raise ValueError(
                f"compile.compile_mode must be null or one of {', '.join(_MODES)}; got "
                f"{self.compile_mode}"
            )
        if self.cudagraphs and self.compile_mode not in _MODES_WITH_GRAPHS:
            raise ValueError(
                "compile.compile_mode must be null, default or max-autotune-no-cudagraphs together "
                f"with compile.cudagraphs, got {self.compile_mode}, which makes CUDA graphs itself"
            )

    def check(self, device: torch.device | str | None) -> None:
        """Refuse what the device cannot do.

        Args:
            device: that trains.

        Raises:
            ValueError: if ``cudagraphs`` and it is no CUDA device, or there is none.
        """
        if not self.cudagraphs:
            return
        kind = "cpu" if device is None else torch.device(device).type
        if kind != "cuda":
            raise ValueError(f"compile.cudagraphs needs a CUDA device, got device={device}")
        if not torch.cuda.is_available():
            raise ValueError(
                f"compile.cudagraphs needs a CUDA device, got device={device}, but torch finds none"
            )

    def compiled(self, function: F) -> F:
        """The function, fused by ``torch.compile`` if ``compile``."""
        return compile_function(function, self.compile_mode) if self.compile else function

    def captured(self, function: Callable[..., Any], *, tensors: bool = False) -> Any:
        """The function, replayed as a CUDA graph if ``cudagraphs``.

        Args:
            function: of one TensorDict of constant shapes, returns a new one. What it does beside
                kernels on the device happens in the first calls alone.
            tensors: it is a function of tensors, and returns such.
        """
        if not self.cudagraphs:
            return function
        keys: dict[str, list[str]] = {} if tensors else {"in_keys": [], "out_keys": []}
        return CudaGraphModule(function, warmup=_WARMUP, **keys)


def read_compile_settings(config: Mapping[str, Any]) -> CompileSettings:
    """Settings from the section ``compile`` of a recipe's configuration.

    Args:
        config: whose section may be missing, or a bool as runs of older versions have it.

    Raises:
        TypeError: see :class:`CompileSettings`; likewise for a ValueError.

    Example:
        >>> read_compile_settings({"compile": {"compile": True}})
        CompileSettings(compile=True, compile_mode=None, cudagraphs=False)
    """
    section = config.get("compile") or {}
    if isinstance(section, bool):
        return CompileSettings(compile=section)
    names = asdict(CompileSettings())
    return CompileSettings(**{name: section[name] for name in names if name in section})


def compile_function(function: F, mode: str | None = None) -> F:
    """``torch.compile`` without graph breaks.

    Args:
        function: of tensors or TensorDicts. What it returns may be differentiated.
        mode: see ``torch.compile``.

    Example:
        >>> compile_function(torch.sin) is torch.sin
        False
    """
    return torch.compile(function, fullgraph=True, mode=mode)  # type: ignore[return-value]


def make_capturable(optimizer: Optimizer) -> None:
    """Let a CUDA graph hold the steps of an optimizer: call it before the first of them.

    Learning rates become tensors, which a schedule fills in place: a graph reads the memory that
    it saw when it was captured. Counts of steps stay on the device. A ``state_dict`` shows neither,
    and may be loaded until the first update: runs may be resumed with and without graphs.

    Args:
        optimizer: with the option ``capturable``, such as Adam and RMSprop.

    Raises:
        ValueError: if it has no such option.

    Example:
        >>> from torch import nn
        >>> optimizer = torch.optim.Adam(nn.Linear(2, 1).parameters(), lr=0.5)
        >>> make_capturable(optimizer)
        >>> optimizer.param_groups[0]["lr"], optimizer.state_dict()["param_groups"][0]["lr"]
        (tensor(0.5000), 0.5)
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
