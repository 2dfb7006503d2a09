"""What several tries of one policy achieve together: what a policy with several modes is for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchrl_stein._checks import check_count, check_same_size, check_type

__all__ = ["removal_success_in_tries", "success_in_tries"]


def success_in_tries(success: Tensor, tries: int = 5) -> Tensor:
    """Share of groups of successive episodes of which at least one succeeds.

    On a map with obstacles that training did not have, this is the obstacle SR5 of Wang et al. 2025
    (arXiv:2511.01374).

    Args:
        success: whether each of E episodes succeeded, bool ``[..., E]`` with E >= ``tries``.
        tries: episodes of a group; episodes left over at the end do not count.

    Returns:
        Tensor: float32 ``[...]``, in [0, 1].

    Raises:
        TypeError, ValueError: if ``success`` is not a bool tensor, ``tries`` is not an integer >= 1
            or there are fewer episodes.

    Example:
        >>> success_in_tries(torch.tensor([False, True, False, False, True, True]), tries=2)
        tensor(0.6667)
    """
    if not isinstance(success, Tensor) or success.dtype != torch.bool:
        raise TypeError(f"success_in_tries: success must be a bool tensor, got {success!r}")
    return _groups("success_in_tries", "success", success, tries).any(-1).float().mean(-1)


def removal_success_in_tries(goals: Tensor, num_goals: int, tries: int = 5) -> Tensor:
    r"""Chance that a group of episodes reaches a goal that is left when half of them are removed.

    Of N goals, r = N // 2 are removed, each set of r with equal chance. With R distinct goals
    reached in a group, some of them is left with probability

    .. math:: 1 - \binom{N - R}{r - R} \Big/ \binom{N}{r},

    and surely if R > r. The mean over groups of successive episodes is the removal SR5 of Wang et
    al. 2025 (arXiv:2511.01374).

    Args:
        goals: index of the goal that each of E episodes reached, -1 for none; integers
            ``[..., E]`` with E >= ``tries``, below ``num_goals``.
        num_goals: N >= 2.
        tries: episodes of a group; episodes left over at the end do not count.

    Returns:
        Tensor: float32 ``[...]``, in [0, 1].

    Raises:
        TypeError, ValueError: if ``goals`` does not hold integers, a count is not one or there are
            fewer episodes.

    Example:
        >>> removal_success_in_tries(torch.tensor([0, -1, 3, 0, 0]), num_goals=4)  # 1 - 1/6
        tensor(0.8333)
    """
    owner = "removal_success_in_tries"
    check_type(owner, "a tensor", Tensor, goals=goals)
    if goals.is_floating_point() or goals.is_complex() or goals.dtype == torch.bool:
        raise TypeError(f"{owner}: goals must hold integers, got {goals.dtype}")
    check_count(owner, at_least=2, num_goals=num_goals)
    removed = num_goals // 2
    left = [
        1.0 - math.comb(num_goals - reached, removed - reached) / math.comb(num_goals, removed)
        if reached <= removed
        else 1.0
        for reached in range(num_goals + 1)
    ]
    groups = _groups(owner, "goals", goals, tries)
    names = torch.arange(num_goals, device=goals.device)
    reached = (groups.unsqueeze(-1) == names).any(-2).sum(-1)
    return torch.tensor(left, device=goals.device)[reached].mean(-1)


def _groups(owner: str, name: str, episodes: Tensor, tries: int) -> Tensor:
    """``[..., E]`` as ``[..., E // tries, tries]``."""
    check_count(owner, tries=tries)
    check_same_size(owner, **{name: (episodes, -1)})
    count = episodes.shape[-1] // tries
    check_count(owner, **{f"the number of groups of {tries} in {name}": count})
    return episodes[..., : count * tries].unflatten(-1, (count, tries))
