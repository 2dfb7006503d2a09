"""The vocabulary of what stands at the door: one line checks one kind of argument.

Every message names the owner and the argument, what was expected and what came. A wrong type is a
TypeError, a wrong value a ValueError, a missing entry a KeyError. Shapes are read from metadata.
Numbers inside of tensors are looked at on a CPU only, where it costs nothing; on an accelerator the
question would stall the queue (see :func:`may_look`).
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchrl_stein._torchrl import is_in_transform

if TYPE_CHECKING:
    from tensordict import TensorDictBase
    from tensordict.utils import NestedKey

# The built-in types first: asking an abstract one takes ten times as long.
_INTEGERS, _NUMBERS = (int, Integral), (float, int, Real)
_Bounds = tuple[float | None, float | None, float | None, float | None]

__all__ = [
    "check_choice",
    "check_columns",
    "check_count",
    "check_discounts",
    "check_expands",
    "check_finite",
    "check_floating",
    "check_keys",
    "check_number",
    "check_numbers",
    "check_pair",
    "check_particles",
    "check_same_size",
    "check_type",
    "may_look",
]

_LARGEST = sys.float_info.max  # integers may be larger, but no float holds them


def may_look(*tensors: Tensor) -> bool:
    """Whether the numbers inside of tensors may be read: on a CPU, and not while tracing.

    Nor inside of the transforms of ``torch.func``, which stand for many numbers at once.
    """
    if torch.compiler.is_compiling():
        return False
    return all(x.device.type == "cpu" and not is_in_transform(x) for x in tensors)


def check_number(
    owner: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    **values: Any,
) -> None:
    """Require finite real numbers inside of the bounds.

    Numbers of NumPy and tensors of no dimension are numbers; True is none.

    Example:
        >>> check_number("SoftQLoss", above=0, temperature=0.0)
        Traceback (most recent call last):
        ...
        ValueError: SoftQLoss: temperature must be > 0, got 0.0
    """
    bounds = (above, at_least, below, at_most)
    for name, value in values.items():
        number = value
        if isinstance(value, Tensor):
            if value.ndim == 0 and not may_look(value):
                continue
            number = value.item() if value.ndim == 0 else None
        if isinstance(number, bool) or not isinstance(number, _NUMBERS):
            got = _tensor_words(value) if isinstance(value, Tensor) else repr(value)
            raise TypeError(f"{owner}: {name} must be a number{_range_words(*bounds)}, got {got}")
        if not _inside(number, *bounds):
            raise _out_of_range(owner, name, number, bounds)


def check_numbers(
    owner: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    **values: Any,
) -> None:
    """:func:`check_number` for a number, a tensor or a list: every element, on a CPU."""
    bounds = (above, at_least, below, at_most)
    for name, value in values.items():
        if isinstance(value, Tensor) and value.ndim > 0:
            if value.dtype == torch.bool or value.is_complex():
                got = f"a tensor of {value.dtype}"
                raise TypeError(
                    f"{owner}: {name} must hold numbers{_range_words(*bounds)}, got {got}"
                )
            if value.numel() == 0 or not may_look(value):
                continue
            for end in value.detach().aminmax():  # both are NaN where one element is
                if not _inside(end.item(), *bounds):
                    raise _out_of_range(owner, name, end.item(), bounds)
        else:
            for number in value if isinstance(value, (list, tuple)) else (value,):
                check_number(
                    owner,
                    above=above,
                    at_least=at_least,
                    below=below,
                    at_most=at_most,
                    **{name: number},
                )


def check_count(
    owner: str, *, at_least: int | None = 1, at_most: int | None = None, **values: Any
) -> None:
    """Require integers inside of the bounds; 2.0 and True are none.

    Example:
        >>> check_count("ParticleModule", num_particles=2.5)
        Traceback (most recent call last):
        ...
        TypeError: ParticleModule: num_particles must be an integer >= 1, got 2.5
    """
    for name, value in values.items():
        if isinstance(value, torch.SymInt):  # traced with a size that may vary
            continue
        bounds = (None, at_least, None, at_most)
        if isinstance(value, bool) or not isinstance(value, _INTEGERS):
            words = _range_words(*bounds)
            raise TypeError(f"{owner}: {name} must be an integer{words}, got {value!r}")
        if not _inside(value, *bounds):
            raise _out_of_range(owner, name, value, bounds)


def check_discounts(owner: str, hyperparams: Mapping[str, Any]) -> None:
    """Require that "gamma" and "lmbda" of a value estimator, where given, are inside of [0, 1]."""
    given = {name: hyperparams[name] for name in ("gamma", "lmbda") if name in hyperparams}
    check_numbers(owner, at_least=0, at_most=1, **given)


def check_pair(owner: str, **values: Any) -> None:
    """Require counts, or pairs of counts."""
    for name, value in values.items():
        pair = value if isinstance(value, (tuple, list)) else (value, value)
        if len(pair) != 2:
            raise ValueError(
                f"{owner}: {name} must be an integer or a pair of integers, got {value!r}"
            )
        for number in pair:
            check_count(owner, **{name: number})


def check_particles(owner: str, num_particles: Any) -> torch.Size:
    """The leading dimensions of a population: ``(n,)`` for n, ``(S, n)`` for a pair."""
    several = isinstance(num_particles, tuple)
    if several and len(num_particles) not in (1, 2):
        raise ValueError(
            f"{owner}: num_particles must be an integer n or a pair (S, n), got {num_particles!r}"
        )
    leading = tuple(num_particles) if several else (num_particles,)
    for number in leading:
        check_count(owner, num_particles=number)
    return torch.Size(leading)


def check_choice(owner: str, choices: Collection[str], **values: Any) -> None:
    """Require one of some words.

    Example:
        >>> check_choice("SoftQLoss", ("mean", "sum", "none"), reduction="average")
        Traceback (most recent call last):
        ...
        ValueError: SoftQLoss: reduction must be one of ['mean', 'none', 'sum'], got 'average'
    """
    for name, value in values.items():
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{owner}: {name} must be one of {sorted(choices)}, got {value!r}")


def check_type(owner: str, expected: str, types: Any, **values: Any) -> None:
    """Require instances.

    Args:
        owner: who asks.
        expected: words for the message, with their article: "a Kernel".
        types: as for ``isinstance``.
        **values: by the names of their arguments.
    """
    for name, value in values.items():
        if not isinstance(value, types):
            got = f"the class {value.__name__}" if isinstance(value, type) else _words(value)
            raise TypeError(f"{owner}: {name} must be {expected}, got {got}")


def check_same_size(owner: str, **sizes: tuple[Tensor, int]) -> None:
    """Require that dimensions of tensors agree.

    Args:
        owner: who asks.
        **sizes: ``argument=(tensor, dim)``, one entry per dimension to compare.

    Example:
        >>> check_same_size("f", x=(torch.zeros(4, 2), -1), y=(torch.zeros(7, 2), -1))
    """
    first: tuple[str, int, Tensor] | None = None
    for name, (tensor, dim) in sizes.items():
        needed = -dim if dim < 0 else dim + 1
        if tensor.ndim < needed:
            raise ValueError(
                f"{owner}: {name} must have at least {needed} dimension(s), "
                f"got shape {list(tensor.shape)}"
            )
        if first is None:
            first = (name, tensor.shape[dim], tensor)
        elif tensor.shape[dim] != first[1]:
            raise ValueError(
                f"{owner}: {name} has size {tensor.shape[dim]} in dimension {dim} but "
                f"{first[0]} has {first[1]} ({name} {list(tensor.shape)}, "
                f"{first[0]} {list(first[2].shape)})"
            )


def check_expands(owner: str, shape: torch.Size, of: str, **tensors: Tensor) -> None:
    """Require tensors that expand to a shape, so that nothing grows by broadcasting.

    Args:
        owner: who asks.
        shape: what they may expand to.
        of: words for the message: whose shape it is.
        **tensors: by the names of their arguments.

    Example:
        >>> check_expands("f", torch.Size([4, 2]), "q", weight=torch.zeros(4))
        Traceback (most recent call last):
        ...
        ValueError: f: weight must expand to [4, 2], the shape of q, got shape [4]
    """
    for name, tensor in tensors.items():
        own = tensor.shape
        fits = len(own) <= len(shape)
        for mine, size in zip(reversed(own), reversed(shape), strict=False):
            fits = fits and (mine == size or mine == 1)
        if not fits:
            raise ValueError(
                f"{owner}: {name} must expand to {list(shape)}, the shape of {of}, got shape "
                f"{list(own)}"
            )


def check_floating(owner: str, **tensors: Any) -> None:
    """Require tensors of real floating-point numbers: integers would be truncated somewhere.

    Example:
        >>> check_floating("svgd_direction", scores=torch.tensor([[1], [2]]))
        Traceback (most recent call last):
        ...
        TypeError: svgd_direction: scores must be a floating-point tensor, got one of torch.int64
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{owner}: {name} must be a floating-point tensor, got {_words(tensor)}"
            )
        if not tensor.is_floating_point():
            raise TypeError(
                f"{owner}: {name} must be a floating-point tensor, got one of {tensor.dtype}"
            )


def check_keys(owner: str, tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> None:
    """Require that the batch holds every key."""
    for key in keys:
        if tensordict.get(key, None) is None:
            raise KeyError(
                f"{owner}: the batch lacks key {key!r}, "
                f"it holds {', '.join(sorted(map(str, tensordict.keys(True, True))))}"
            )


def check_columns(owner: str, tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> None:
    """Require that entries have the shape [*B, 1] of a scalar per row."""
    expected = (*tensordict.batch_size, 1)
    for key in keys:
        shape = tensordict.get(key).shape
        if shape != expected:
            raise ValueError(
                f"{owner}: {key!r} must have shape [*B, 1] = {list(expected)}, got {list(shape)}"
            )


def check_finite(owner: str, entries: Mapping[Any, Any]) -> None:
    """Require finite numbers in tensors, by the names of arguments or keys of a batch.

    Integers, flags and nested tensordicts pass. On an accelerator nobody looks here; there the
    training loop asks for finite losses.
    """
    for name, value in entries.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or not may_look(value):
            continue
        # A sum is finite nearly always where its terms are, and costs a third of asking each.
        if value.detach().sum().isfinite():
            continue
        bad = ~value.isfinite()
        if bad.any():
            raise ValueError(
                f"{owner}: {name!r} must be finite, got {int(bad.sum())} non-finite of "
                f"{value.numel()} values, the first {value[bad][0].item()}"
            )


def _inside(
    number: Any,
    above: float | None,
    at_least: float | None,
    below: float | None,
    at_most: float | None,
) -> bool:
    # Comparisons alone, which the compiler can trace with a number that may vary. NaN fails.
    return (
        -_LARGEST <= number <= _LARGEST
        and (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (below is None or number < below)
        and (at_most is None or number <= at_most)
    )


def _out_of_range(owner: str, name: str, number: Any, bounds: _Bounds) -> ValueError:
    words = _range_words(*bounds).removeprefix(" ")
    if not -_LARGEST <= number <= _LARGEST:
        words = f"finite and {words}" if words else "finite"
    return ValueError(f"{owner}: {name} must be {words}, got {number}")


def _range_words(
    above: float | None, at_least: float | None, below: float | None, at_most: float | None
) -> str:
    bounds = {">": above, ">=": at_least, "<": below, "<=": at_most}
    words = " and ".join(f"{sign} {bound}" for sign, bound in bounds.items() if bound is not None)
    return f" {words}" if words else ""


def _tensor_words(tensor: Tensor) -> str:
    return f"a tensor of shape {list(tensor.shape)}"


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return _tensor_words(value)
    plain = isinstance(value, (str, bytes, bool, Real, type(None), tuple, list, dict))
    return repr(value) if plain else type(value).__name__
