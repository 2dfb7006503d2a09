"""A trust region as the training loops use it: a loss and the keeper of its previous policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.objectives import HardUpdate, SoftUpdate
from torchrl.objectives.utils import TargetNetUpdater

from torchrl_stein.objectives import WassersteinTrustRegionLoss

from .compilation import CompileSettings

__all__ = ["TrustRegion", "make_trust_region"]


@dataclass
class TrustRegion:
    """A term beside another loss, and what updates its previous policy.

    Attributes:
        loss: the term.
        updater: of its target parameters.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> actor = AmortizedSVGDActor(MLP(5, 2), action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> loss = WassersteinTrustRegionLoss(actor)
        >>> region = TrustRegion(loss, SoftUpdate(loss, tau=0.01))
        >>> region.follow()
    """

    loss: WassersteinTrustRegionLoss
    updater: TargetNetUpdater
    _fused_loss: Callable[[TensorDictBase], TensorDictBase] | None = field(
        default=None, init=False, repr=False
    )

    def compile(self, settings: CompileSettings) -> None:
        """Compile the term, or make sure that a CUDA graph may hold it and its previous policy.

        Args:
            settings: what to do; the graph is that of the whole update.

        Raises:
            ValueError: if ``settings.cudagraphs`` and the previous policy does not follow in the
                same way at every update.
        """
        if settings.compile:
            self._fused_loss = settings.compiled(self.loss)
        counts = isinstance(self.updater, HardUpdate)
        if settings.cudagraphs and counts and self.updater.value_network_update_interval != 0:
            raise ValueError(
                "compile.cudagraphs needs a previous policy that follows at every update, a "
                "SoftUpdate or a HardUpdate with value_network_update_interval=0, got "
                f"{self.updater.value_network_update_interval}"
            )

    def backward(self, batch: TensorDictBase) -> TensorDictBase:
        """Add the term's gradient to that of the other loss.

        Args:
            batch: of the update.

        Returns:
            TensorDictBase: the term and its diagnostics, detached.
        """
        forward = self.loss if self._fused_loss is None else self._fused_loss
        losses = forward(batch)
        losses["loss_trust_region"].backward()
        return losses.detach()

    def follow(self) -> None:
        """The present policy becomes the previous one: call it BEFORE the optimizer's step.

        After it both would be one and the same whenever the term is computed.
        """
        self.updater.step()


def make_trust_region(
    actor: TensorDictModuleBase, *, weight: float, tau: float | None, **options: Any
) -> TrustRegion | None:
    """The trust region of a recipe, or None for ``weight`` 0.

    Args:
        actor: the policy.
        weight: see :class:`~torchrl_stein.objectives.WassersteinTrustRegionLoss`.
        tau: rate of the moving average that is the previous policy (strategy ii of E.1 of Zhang
            et al. 2018); None is the policy of the last update (strategy i).
        **options: further arguments of the loss.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> actor = AmortizedSVGDActor(MLP(5, 2), action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> make_trust_region(actor, weight=0.0, tau=None) is None
        True
    """
    if weight == 0:
        return None
    loss = WassersteinTrustRegionLoss(actor, weight=weight, **options)
    if tau is None:  # interval=n copies at every (n + 1)st step
        return TrustRegion(loss, HardUpdate(loss, value_network_update_interval=0))
    return TrustRegion(loss, SoftUpdate(loss, tau=tau))
