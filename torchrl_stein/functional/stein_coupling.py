"""Stein coupling of particles: both terms of eq. (9) of Liu et al. 2017 (arXiv:1704.02399).

The coupled particles theta~ = sg(theta) + K (theta - sg(theta)) equal theta, and a loss at theta~
with gradients g gives theta the gradients K g. ``repulsion_surrogate`` adds the other term.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchrl_stein._checks import check_count, check_floating, check_same_size


def couple_particles(particles: Tensor, gram: Tensor, num_columns: int) -> Tensor:
    r"""theta~ = sg(theta) + K (theta - sg(theta)): the particles, with the gradient K g.

    Where g_j is the gradient of a loss at theta~_j, particle i gets sum_j k(theta_j, theta_i) g_j.
    Values stay to the bit. It is linear in g: losses may be scaled, gradients accumulated.

    Args:
        particles: theta, ``[n, d]`` or ``[S, n, d]``.
        gram: K, detached, ``gram[..., j, i] = k(theta_j, theta_i)``, ``[n, n]`` or ``[S, n, n]``.
        num_columns: how many of the first columns are coupled; the others keep their own g.

    Returns:
        Tensor: theta~, as ``particles``.

    Source: Liu et al. 2017 (arXiv:1704.02399), the first term of eq. (9).

    Example:
        >>> theta = torch.tensor([[1.0], [2.0]], requires_grad=True)
        >>> coupled = couple_particles(theta, torch.tensor([[1.0, 0.5], [0.5, 1.0]]), 1)
        >>> coupled[0].sum().backward()  # g = (1, 0)
        >>> coupled.tolist(), theta.grad.tolist()
        ([[1.0], [2.0]], [[1.0], [0.5]])
    """
    check_floating("couple_particles", particles=particles, gram=gram)
    check_same_size("couple_particles", gram=(gram, -1), particles=(particles, -2))
    check_count("couple_particles", num_columns=num_columns)
    fixed = particles.detach()
    zero = particles - fixed
    if num_columns == particles.shape[-1]:
        add: Any = torch.addmm if particles.ndim == 2 else torch.baddbmm
        coupled: Tensor = add(fixed, gram, zero)
        return coupled
    own = zero[..., num_columns:]
    return fixed + torch.cat([gram @ zero[..., :num_columns], own], -1)


def repulsion_surrogate(particles: Tensor, gram: Tensor, repulsion: Tensor) -> Tensor:
    r"""A number whose descent pushes particles apart: sum_ij k(theta_j, theta_i).

    Its gradient for particle i is -sum_j grad_{theta_j} k(theta_j, theta_i), also where the kernel
    is not a function of the difference of its arguments.

    Args:
        particles: theta_i, ``[..., m, d]``.
        gram: ``gram[..., j, i] = k(theta_j, theta_i)``, detached, ``[..., n, m]``.
        repulsion: ``sum_j grad_{theta_j} k(theta_j, theta_i)``, detached, ``[..., m, d]``.

    Source: Liu et al. 2017 (arXiv:1704.02399), the second term of eq. (9).

    Example:
        >>> theta = torch.zeros(2, 1, requires_grad=True)
        >>> push = torch.tensor([[-1.0], [1.0]])
        >>> repulsion_surrogate(theta, torch.ones(2, 2), push).backward()
        >>> theta.grad.flatten().tolist()
        [1.0, -1.0]
    """
    owner = "repulsion_surrogate"
    check_floating(owner, particles=particles, gram=gram, repulsion=repulsion)
    check_same_size(owner, particles=(particles, -2), repulsion=(repulsion, -2), gram=(gram, -1))
    check_same_size(owner, particles=(particles, -1), repulsion=(repulsion, -1))
    push = (particles * repulsion).sum()
    return gram.sum() - (push - push.detach())
