"""What an actor's network reads: several tensors or one, vectors or images, of which dtype."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrl.modules import MLP

from torchrl_stein._checks import check_type

from .particle_module import ParticleModule

__all__ = ["image_dims", "reads_vectors", "takes_one_input", "where_it_computes"]


def takes_one_input(owner: str, network: nn.Module, names: Sequence[str]) -> bool:
    """Whether several inputs have to be concatenated for a network, as for ``nn.Sequential``.

    A TypeError if it is no module, or takes neither all inputs nor one.

    Example:
        >>> takes_one_input("me", nn.Linear(5, 2), ["observation", "noise"])
        True
        >>> takes_one_input("me", MLP(5, 2), ["observation", "noise"])  # concatenates by itself
        False
    """
    check_type(owner, "a torch.nn.Module", nn.Module, network=network)
    signature = inspect.signature(_one(network).forward)
    if _binds(signature, len(names)):
        return False
    if _binds(signature, 1):
        return True
    raise TypeError(
        f"{owner}: network must take {len(names)} inputs ({', '.join(names)}) or their "
        f"concatenation, got {type(_one(network)).__name__}.forward{signature}"
    )


def reads_vectors(network: nn.Module) -> bool:
    """Whether a network of several inputs concatenates them, so that all must be vectors."""
    return isinstance(_one(network), MLP)


def image_dims(network: nn.Module) -> int | None:
    """Dimensions of what the convolutions of a network read, 3 for images; None without any."""
    for module in _one(network).modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return 1 + len(module.kernel_size)
    return None


def where_it_computes(network: nn.Module, default: Tensor) -> Tensor:
    """A tensor with the dtype and the device of a network; ``default`` if it has no parameters."""
    floating = (p for p in network.parameters() if p.is_floating_point())
    return next(floating, default)


def _one(network: nn.Module) -> nn.Module:
    if isinstance(network, ParticleModule):
        return network.particle(*(0 for _ in network.leading))
    return network


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*(torch.Tensor for _ in range(count)))
    except TypeError:
        return False
    return True
