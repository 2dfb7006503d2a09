"""Distributions on a fixed support, as categorical critics have them."""

from __future__ import annotations

from torch import Tensor

from torchrl_stein._checks import check_expands, check_floating, check_same_size, may_look

__all__ = ["project_to_support"]


def project_to_support(probabilities: Tensor, atoms: Tensor, support: Tensor) -> Tensor:
    r"""The distribution sum_j p_j delta(y_j), with atoms anywhere, on an evenly spaced support.

    The mass of an atom between two points z_i < y_j < z_{i+1} goes to both, in proportion to its
    distance from the other one; beyond an end it goes to that end:

    .. math::
        (\Phi p)_i = \sum_j p_j \max\!\Big(0,\; 1 - \frac{|[y_j]_{z_1}^{z_N} - z_i|}{\Delta z}\Big)

    It keeps the total mass, and the mean, as long as no atom with mass is beyond an end.

    Args:
        probabilities: p, ``[..., M]``.
        atoms: y, expandable to ``[..., M]``.
        support: z, ``[N]``, N >= 2, ascending in equal steps.

    Returns:
        Tensor: ``[..., N]``, dtype of ``probabilities``.

    Raises:
        TypeError, ValueError: for tensors that are not floating-point, shapes that do not fit or a
            support that is not evenly spaced (seen on a CPU only).

    Source: Bellemare et al. 2017 (arXiv:1707.06887), eq. (7).

    Example:
        >>> import torch
        >>> support = torch.tensor([0.0, 1.0, 2.0])
        >>> project_to_support(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 9.0]), support)
        tensor([0.3750, 0.1250, 0.5000])
    """
    owner = "project_to_support"
    check_floating(owner, probabilities=probabilities, atoms=atoms, support=support)
    check_same_size(owner, probabilities=(probabilities, -1))
    check_expands(owner, probabilities.shape, "probabilities", atoms=atoms)
    _check_support(owner, support)
    last = len(support) - 1
    spacing = (support[-1] - support[0]) / last
    # Cut after the division, whose rounding would otherwise lose mass at the upper end.
    place = ((atoms - support[0]) / spacing).clamp(0, last).expand_as(probabilities)
    below = place.floor().clamp_max(last - 1)
    share = (place - below).to(probabilities.dtype)  # of the point above
    index = below.nan_to_num().long()  # what is no number has no place, and leaves no mass one
    masses = probabilities.new_zeros(*probabilities.shape[:-1], last + 1)
    masses = masses.scatter_add(-1, index, probabilities * (1 - share))
    return masses.scatter_add(-1, index + 1, probabilities * share)


def _check_support(owner: str, support: Tensor) -> None:
    if support.ndim != 1 or len(support) < 2:
        raise ValueError(
            f"{owner}: support must be [N] with N >= 2 points, got shape {list(support.shape)}"
        )
    if not may_look(support):
        return
    steps = support.diff()
    # Rounding of a support such as linspace(-150, 150, 51) leaves far less than a thousandth.
    if not (steps > 0).all() or steps.max() > 1.001 * steps.min():
        raise ValueError(
            f"{owner}: support must ascend in equal steps, got steps from {steps.min():g} to "
            f"{steps.max():g}"
        )
