"""Helpers of the contract: hold a bandwidth fixed, watch the size of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchrl_stein._checks import check_type
from torchrl_stein._torchrl import TorchDispatchMode, tree_leaves

__all__ = ["LargestTensor", "ReplayedRule"]


class ReplayedRule:
    """A bandwidth rule that records its answers, then repeats them whatever the points are.

    Args:
        rule: the rule to record.

    Raises:
        TypeError: if ``rule`` is no function.

    Example:
        >>> import torch
        >>> rule = ReplayedRule(lambda pairs, n: pairs.mean(-1))
        >>> first = rule(torch.tensor([1.0, 3.0]), 2)
        >>> rule.replay()
        >>> rule(torch.tensor([100.0]), 2).item()
        2.0
    """

    def __init__(self, rule: Callable[[Tensor, int], Tensor]) -> None:
        check_type("ReplayedRule", "a bandwidth rule", Callable, rule=rule)
        self.rule = rule
        self.answers: list[Tensor] = []
        self.calls: int | None = None

    def replay(self) -> None:
        """Stop recording; from now on give the recorded answers in turn."""
        self.calls = 0

    def __call__(self, pairs: Tensor, n: int) -> Tensor:
        """Record the answer of the rule, or repeat one."""
        if self.calls is None:
            self.answers.append(self.rule(pairs, n))
            return self.answers[-1]
        self.calls += 1
        return self.answers[(self.calls - 1) % len(self.answers)]


class LargestTensor(TorchDispatchMode):
    """Context that records the size of the largest tensor any operation returns.

    Attributes:
        bytes: size of that tensor.

    Example:
        >>> import torch
        >>> with LargestTensor() as largest:
        ...     _ = torch.zeros(10) + torch.zeros(3, 1)
        >>> largest.bytes  # [3, 10] in float32
        120
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and look at the memory behind what it returns; views add nothing."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return result
