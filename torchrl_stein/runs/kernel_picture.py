"""The kernel between the particles of a population, as a picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchrl_stein.objectives import SteinPolicyLoss

__all__ = ["kernel_image", "kernel_matrix"]


@torch.no_grad()
def kernel_matrix(loss: SteinPolicyLoss) -> Tensor:
    """The Gram matrix of the particles as they are now.

    Near the identity, particles do not interact; with all entries alike they interact whatever
    they do.

    Args:
        loss: of n particles. A kernel between behaviours looks at the states of the last batch.

    Returns:
        Tensor: ``[n, n]``, entry [j, i] is k(theta_j, theta_i).

    Raises:
        TypeError: if ``loss`` is no SteinPolicyLoss.

    Source: k of Liu et al. 2017 (arXiv:1704.02399), eq. (9).

    Example:
        >>> from torchrl.objectives import ReinforceLoss
        >>> from torchrl_stein.envs import CartpoleEnv
        >>> from torchrl_stein.runs import make_gaussian_actor, make_linear_critic
        >>> env = CartpoleEnv((3, 2), seed=0)
        >>> actor, critic = make_gaussian_actor(env, 3, [8]), make_linear_critic(env, 3)
        >>> kernel_matrix(SteinPolicyLoss(ReinforceLoss(actor, critic))).diagonal()
        tensor([1., 1., 1.])
    """
    if not isinstance(loss, SteinPolicyLoss):
        raise TypeError(f"kernel_matrix: loss must be a SteinPolicyLoss, got {type(loss).__name__}")
    return loss.kernel(loss.particles.detach()[:, : loss.population.kernel_dim])


def kernel_image(matrix: Tensor, size: int = 480) -> Tensor:
    """A matrix as squares of colour, dark for its lowest entry (or 0) and bright for its highest.

    Colours are matplotlib's viridis, whose lightness grows evenly.

    Args:
        matrix: ``[n, m]``, such as a Gram matrix; row j is the j-th row of squares from the top.
        size: pixels that the longer side has at most, if every entry has one.

    Returns:
        Tensor: uint8 ``[n * c, m * c, 3]``, with c pixels for each entry.

    Raises:
        ValueError: if ``matrix`` is not ``[n, m]``, empty or not finite, or ``size`` < 1.

    Example:
        >>> kernel_image(torch.eye(16)).shape
        torch.Size([480, 480, 3])
    """
    if matrix.ndim != 2 or not matrix.numel() or not matrix.isfinite().all():
        raise ValueError(
            f"kernel_image: matrix must be [n, m] and finite, got shape {list(matrix.shape)} with "
            f"{int((~matrix.isfinite()).sum())} values that are not"
        )
    if size < 1:
        raise ValueError(f"kernel_image: size must be >= 1, got {size}")
    from matplotlib import colormaps  # an extra: only recipes need it

    values = matrix.detach().double().cpu()
    low, high = values.min().clamp(max=0.0), values.max()
    shade = (values - low) / (high - low) if high > low else torch.zeros_like(values)
    colours = torch.from_numpy(np.asarray(colormaps["viridis"](shade.numpy(), bytes=True)))[..., :3]
    pixels = max(1, size // max(matrix.shape))
    return colours.repeat_interleave(pixels, 0).repeat_interleave(pixels, 1)
