"""What a value estimator may be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchrl_stein._checks import check_numbers

__all__ = ["check_discounts"]


def check_discounts(owner: str, hyperparams: Mapping[str, Any]) -> None:
    """Require that "gamma" and "lmbda", where given, are inside of [0, 1].

    Args:
        owner: who asks, for the message.
        hyperparams: of ``make_value_estimator``.
    """
    given = {name: hyperparams[name] for name in ("gamma", "lmbda") if name in hyperparams}
    check_numbers(owner, at_least=0, at_most=1, **given)
