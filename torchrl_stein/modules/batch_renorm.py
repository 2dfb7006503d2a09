"""Batch renormalization (Ioffe 2017), for any leading dimensions, seeds and compilation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchrl.modules import BatchRenorm1d

from torchrl_stein._checks import check_count, check_number

__all__ = ["BatchRenorm"]


class BatchRenorm(BatchRenorm1d):
    """TorchRL's ``BatchRenorm1d`` over all dimensions but the last: x ``[..., F]``.

    In training mode, with mean m and standard deviation s of the batch and M and S those that run
    along, ``(x - m) / s * r + d`` with r = s / S and d = (m - M) / S, clamped and without gradient;
    in the first ``warmup_steps`` calls r = 1 and d = 0, which is batch normalization. In evaluation
    mode ``(x - M) / S``, which is the same unless r or d is clamped. Then a learnt scale and shift.

    TorchRL's (0.14) multiplies r - 1 and d by the number of calls over ``warmup_steps``, whole or
    with ``smooth``, also where that is above 1: it is wrong from twice the warm-up on (with
    ``smooth``, from its end). It also has features in dimension 1, and no way through
    ``torch.compile(fullgraph=True)`` where a loss lends its buffers.

    Args:
        num_features: F.

    Keyword Args:
        momentum: weight of a new batch in M and S^2.
        eps: added to variances.
        max_r: r is kept in [1 / max_r, max_r].
        max_d: d is kept in [-max_d, max_d].
        warmup_steps: see above; CrossQ takes 100 000 (arXiv:1902.05605).
        smooth: r and d grow with the calls of the warm-up and do not come at its end.

    Raises:
        TypeError, ValueError: for a number that is none or out of its range; at the call, of torch
            and in training mode, for a batch of one row.

    Source: Ioffe 2017 (arXiv:1702.03275), algorithm 1.

    Example:
        >>> layer = BatchRenorm(4, warmup_steps=1000)
        >>> layer(torch.randn(8, 3, 4)).shape, int(layer.num_batches_tracked)
        (torch.Size([8, 3, 4]), 1)
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.01,
        eps: float = 1e-5,
        max_r: float = 3.0,
        max_d: float = 5.0,
        warmup_steps: int = 10_000,
        smooth: bool = False,
    ) -> None:
        check_count("BatchRenorm", num_features=num_features)
        check_count("BatchRenorm", at_least=0, warmup_steps=warmup_steps)
        check_number("BatchRenorm", above=0, at_most=1, momentum=momentum)
        check_number("BatchRenorm", above=0, eps=eps)
        check_number("BatchRenorm", at_least=1, max_r=max_r)
        check_number("BatchRenorm", at_least=0, max_d=max_d)
        super().__init__(
            num_features,
            momentum=momentum,
            eps=eps,
            max_r=max_r,
            max_d=max_d,
            warmup_steps=warmup_steps,
            smooth=smooth,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Of x ``[..., F]``."""
        rows, scale, shift = x.flatten(0, -2), self.weight, self.bias
        if self.training:
            with torch.no_grad():
                r, d = self._corrections(rows)
                self.num_batches_tracked.add_(1)  # in place: compilers cannot follow an assignment
            scale, shift = scale * r, torch.addcmul(shift, scale, d)
        return functional.batch_norm(
            rows,
            self.running_mean,
            self.running_var,
            scale,
            shift,
            self.training,
            self.momentum,
            self.eps,
        ).view_as(x)

    def _corrections(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """r and d of rows [R, F], both [F]."""
        var, mean = torch.var_mean(rows, 0, correction=0)
        running_std = (self.running_var + self.eps).sqrt()
        r = ((var + self.eps).sqrt() / running_std).clamp(1 / self.max_r, self.max_r)
        d = ((mean - self.running_mean) / running_std).clamp(-self.max_d, self.max_d)
        # On the device: the host need not know how many calls there were.
        weight = (self.num_batches_tracked >= self.warmup_steps).to(r.dtype)
        if self.smooth and self.warmup_steps > 0:
            weight = (self.num_batches_tracked / self.warmup_steps).clamp(max=1.0)
        return 1.0 + (r - 1.0) * weight, d * weight
