"""Calls by keyword, ``actor(observation=x)``, and a signature that tells of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from tensordict.nn import TensorDictModuleBase, dispatch

__all__ = ["by_keyword", "refuse_keywords"]


class by_keyword:  # noqa: N801
    """A ``forward`` that takes a tensordict, or the entries of ``in_keys`` by keyword.

    tensordict's ``dispatch`` makes the call. The names are in the signature because
    ``torch.export`` reads them there: of inputs that it only finds in ``**kwargs``, it can let no
    two share a dynamic dimension.

    The method is ``forward(self, tensordict, **others)``; ``others`` are what is not in
    ``in_keys``, and a module has names that may be there in ``optional_keywords``.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self.function = dispatch(auto_batch_size=False)(method)

    def __get__(self, module: Any, owner: Any = None) -> Any:
        """The method of a module, or the function of its class."""
        # The compiler knows plain methods only, and asks for no signature.
        if module is None or torch.compiler.is_dynamo_compiling():
            return self.function.__get__(module, owner)
        return _Method(self.function, module)


class _Method(functools.partial):
    @property
    def __signature__(self) -> inspect.Signature:
        parameter = inspect.Parameter
        return inspect.Signature(
            [
                parameter("tensordict", parameter.POSITIONAL_OR_KEYWORD, default=None),
                *(parameter(n, parameter.KEYWORD_ONLY, default=None) for n in _names(self.args[0])),
            ]
        )


def refuse_keywords(module: TensorDictModuleBase, others: Iterable[str]) -> None:
    """Refuse, with a TypeError, what came by keyword and is no input of a module."""
    known = _names(module)
    unknown = [name for name in others if name not in known]
    if unknown:
        owner = type(module).__name__
        raise TypeError(f"{owner}: keywords must be among {known}, got {unknown}")


def _names(module: TensorDictModuleBase) -> list[str]:
    keys = [key if isinstance(key, str) else "_".join(key) for key in module.in_keys]
    return [*keys, *getattr(module, "optional_keywords", ())]
