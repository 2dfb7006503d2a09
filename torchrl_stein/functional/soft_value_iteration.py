"""The soft optimum of a finite problem whose transitions are known and certain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchrl_stein._checks import (
    check_count,
    check_floating,
    check_number,
    check_numbers,
    may_look,
)

from .soft_value import soft_value

__all__ = ["soft_value_iteration"]


def soft_value_iteration(
    rewards: Tensor,
    following: Tensor,
    discounts: Tensor,
    temperature: float,
    *,
    tolerance: float = 1e-9,
    max_sweeps: int = 10_000,
) -> Tensor:
    r"""Soft-optimal Q of S states and n actions, by iteration to a fixed point.

        Q(s, a) = r(s, a) + gamma(s, a) V(s'),    V(s) = alpha log sum_a exp(Q(s, a) / alpha)

    The optimal policy is softmax(Q / alpha) over the last dimension. In float64: float32 may move
    by more than the default tolerance for ever.

    Args:
        rewards: r, ``[S, n]``.
        following: index of s', ``[S, n]``, integers.
        discounts: gamma in [0, 1], ``[S, n]``; 0 where an episode ends.
        temperature: alpha > 0.
        tolerance: stop when no value moves by more.
        max_sweeps: give up after so many.

    Returns:
        Tensor: Q, ``[S, n]``.

    Raises:
        RuntimeError: if the values still move after ``max_sweeps``.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), theorem 3, with sums for integrals.

    Example:
        >>> one = torch.ones(1, 2, dtype=torch.float64)  # one state for ever, two equal actions
        >>> q = soft_value_iteration(one, torch.zeros(1, 2, dtype=torch.long), 0.5 * one, 1.0)
        >>> torch.allclose(q, 1 + (one + math.log(2.0)))  # V = (1 + log 2) / (1 - 1 / 2)
        True
    """
    name = "soft_value_iteration"
    check_floating(name, rewards=rewards, discounts=discounts)
    check_number(name, above=0, temperature=temperature, tolerance=tolerance)
    check_numbers(name, at_least=0, at_most=1, discounts=discounts)
    check_count(name, max_sweeps=max_sweeps)
    if rewards.ndim != 2 or 0 in rewards.shape:
        raise ValueError(f"{name}: rewards must have shape [S, n], got {list(rewards.shape)}")
    for of, tensor in {"following": following, "discounts": discounts}.items():
        if tensor.shape != rewards.shape:
            raise ValueError(
                f"{name}: {of} must have the shape of rewards, {list(rewards.shape)}, got "
                f"{list(tensor.shape)}"
            )
    if following.dtype != torch.int64:
        raise TypeError(f"{name}: following must be an int64 tensor, got one of {following.dtype}")
    states, actions = rewards.shape
    if may_look(following) and not 0 <= int(following.min()) <= int(following.max()) < states:
        raise ValueError(
            f"{name}: following must hold indices of the {states} states, got "
            f"{int(following.min())} to {int(following.max())}"
        )
    log_proposal = rewards.new_full((), -math.log(actions))  # a sum over all, see DiscreteSoftQLoss
    values = rewards.new_zeros(states)
    for _ in range(max_sweeps):
        q = torch.addcmul(rewards, discounts, values[following])
        updated = soft_value(q, log_proposal, temperature)
        change = float((updated - values).abs().max())
        values = updated
        if change <= tolerance:
            return torch.addcmul(rewards, discounts, values[following])
    raise RuntimeError(
        f"{name}: values still moved by {change:.3g} (tolerance {tolerance:.3g}) after max_sweeps="
        f"{max_sweeps}"
    )
