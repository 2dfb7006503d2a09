"""A distribution of one-hot actions whose mode is one of them."""

from __future__ import annotations

import torchrl.modules
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = ["OneHotCategorical"]


class OneHotCategorical(torchrl.modules.OneHotCategorical):
    """TorchRL's, but that its mode is one action, the first: of equal values it has them all.

    Such a row of two ones is no action, and an environment may refuse it or take the wrong one.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.0, 1.0, 1.0])
        >>> OneHotCategorical(logits).mode, torchrl.modules.OneHotCategorical(logits).mode
        (tensor([0, 1, 0]), tensor([0, 1, 1]))
    """

    @property
    def mode(self) -> Tensor:
        """The likeliest action, ``[..., n]``."""
        return one_hot(self.logits.argmax(-1), self.logits.shape[-1])
