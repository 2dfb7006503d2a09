"""Squared Euclidean distances that stay accurate when particles nearly coincide.

The textbook Gram form |x|^2 + |y|^2 - 2 x.y cancels catastrophically: particles with a spread of
1e-4 around a point of norm 100 give negative squared distances in float32. Three exact forms
replace it, chosen by shape, device and dtype, and none forms a tensor of size [n, m, d] for large
d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_same_size

__all__ = ["distinct_pairs", "index_nearest_to_all", "nearest_to_all", "squared_distances"]

# Up to this many dimensions a loop over dimensions is the fastest exact form (action spaces).
_LOOP_DIMS = 8
# Up to this many particles torch.pdist costs about as much as a Gram product on a CPU. On a GPU it
# reads each particle once for every other one, from memory where they are large.
_PDIST_POINTS = 64
_PDIST_DTYPES = (torch.float32, torch.float64)
# Columns promoted to float64 at a time, so that the copy stays small beside [n, d].
_BLOCK = 1 << 15


def squared_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """All squared distances |x_j - y_i|^2.

    Args:
        x: ``[..., n, d]``.
        y: ``[..., m, d]``; ``None`` means y = x, with an exactly zero diagonal.

    Returns:
        Tensor: ``[..., n, m]``, non-negative, dtype of ``x``.

    Raises:
        TypeError: if x or y are no floating-point tensors.
        ValueError: if one is no ``[..., n, d]``, they differ in d, or d is 0.

    Example:
        >>> import torch
        >>> squared_distances(torch.tensor([[0.0], [3.0]]))
        tensor([[0., 9.],
                [9., 0.]])
    """
    check_floating("squared_distances", x=x)
    check_same_size("squared_distances", x=(x, -2))
    if y is not None:
        check_floating("squared_distances", y=y)
        check_same_size("squared_distances", y=(y, -2))
        check_same_size("squared_distances", x=(x, -1), y=(y, -1))
    n, d = x.shape[-2:]
    if d == 0:
        raise ValueError(
            f"squared_distances: x must have at least one feature, got shape {list(x.shape)}"
        )
    if d <= _LOOP_DIMS:
        return _loop_over_dims(x, x if y is None else y)
    if y is None and _pdist_pays(x):
        return _condensed_to_square(torch.pdist(x).square(), n)
    return _shifted_gram(x, x if y is None else y, same=y is None)


def _pdist_pays(x: Tensor) -> bool:
    few = x.ndim == 2 and x.shape[0] <= _PDIST_POINTS
    return few and x.device.type == "cpu" and x.dtype in _PDIST_DTYPES


def _loop_over_dims(x: Tensor, y: Tensor) -> Tensor:
    # Rows of one dimension each, so that numbers which are used together lie together.
    x, y = x.mT.contiguous(), y.mT.contiguous()
    out = _differences(x, y, 0).square()
    for c in range(1, x.shape[-2]):
        difference = _differences(x, y, c)
        if torch.is_grad_enabled():
            out = out + difference.square()
        else:
            out.addcmul_(difference, difference)
    return out


def _differences(x: Tensor, y: Tensor, c: int) -> Tensor:
    return x[..., c, :, None] - y[..., c, None, :]


def _condensed_to_square(condensed: Tensor, n: int) -> Tensor:
    row, column = torch.triu_indices(n, n, 1, device=condensed.device)
    upper = condensed.new_zeros(n, n).index_put((row, column), condensed)
    return upper + upper.mT


def _shifted_gram(x: Tensor, y: Tensor, *, same: bool) -> Tensor:
    # Both cancellations end here: the shift removes the common point, float64 the rest. The cast
    # comes before the subtraction, so that the shift itself does not round.
    origin = x[..., :1, :].detach()
    out = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, x.shape[-1], _BLOCK):
        stop = start + _BLOCK
        base = origin[..., start:stop].double()
        xs = x[..., start:stop].double() - base
        ys = xs if same else y[..., start:stop].double() - base
        cross = xs @ ys.mT
        if same:
            of_x = of_y = cross.diagonal(dim1=-2, dim2=-1)
        else:
            of_x, of_y = xs.square().sum(-1), ys.square().sum(-1)
        out = out + (of_x[..., :, None] + of_y[..., None, :] - 2.0 * cross)
    out = out.clamp_min(0.0)
    if same:
        eye = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
        out = out.masked_fill(eye, 0.0)
    return out.to(x.dtype)


def distinct_pairs(square: Tensor, *, same: bool) -> Tensor:
    """The distinct pairs of a matrix of distances, as a vector.

    Args:
        square: ``[..., n, m]``.
        same: True if both point sets are one and the same (n = m): the diagonal and the lower
            triangle then carry no information and are left out.

    Returns:
        Tensor: ``[..., n (n - 1) / 2]`` if same, else ``[..., n m]``.

    Raises:
        ValueError: if ``square`` is no matrix, or none with n = m though ``same``.

    Example:
        >>> import torch
        >>> distinct_pairs(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), same=True)
        tensor([1.])
    """
    if square.ndim < 2 or (same and square.shape[-2] != square.shape[-1]):
        expected = "[..., n, n]" if same else "[..., n, m]"
        raise ValueError(
            f"distinct_pairs: square must be {expected}, got shape {list(square.shape)}"
        )
    if not same:
        return square.flatten(-2)
    row, column = torch.triu_indices(square.shape[-2], square.shape[-1], 1, device=square.device)
    return square[..., row, column]


def nearest_to_all(x: Tensor, square: Tensor) -> Tensor:
    """The medoid: the point of x with the smallest summed distance to the other set.

    Used as origin before a product with coordinates: a point inside the bulk keeps the
    subtraction exact for every neighbour. The mean does not, since an outlier drags it along, nor
    does the point with the smallest sum of squares, which is the one nearest to the mean.

    Args:
        x: ``[..., n, d]``.
        square: ``squared_distances(x, y)``, ``[..., n, m]``.

    Returns:
        Tensor: ``[..., 1, d]``, detached.

    Raises:
        ValueError: if ``x`` and ``square`` differ in n.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [9.0]])
        >>> nearest_to_all(x, squared_distances(x))
        tensor([[1.]])
    """
    check_same_size("nearest_to_all", x=(x, -2), square=(square, -2))
    index = index_nearest_to_all(square)
    batch = index.shape
    index = index[..., None, None].expand(*batch, 1, x.shape[-1])
    return x.detach().expand(*batch, *x.shape[-2:]).gather(-2, index)


def index_nearest_to_all(square: Tensor) -> Tensor:
    """Index of the point with the smallest summed distance, see :func:`nearest_to_all`.

    Args:
        square: squared distances, ``[..., n, m]``, of which it takes the roots.

    Returns:
        Tensor: ``[...]``, int64.

    Example:
        >>> import torch
        >>> index_nearest_to_all(squared_distances(torch.tensor([[0.0], [1.0], [9.0]])))
        tensor(1)
    """
    # The sum of distances has its minimum in the bulk, that of their squares near the mean.
    return square.detach().sqrt().sum(-1).argmin(-1)
