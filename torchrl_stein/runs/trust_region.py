"""The trust region of the recipes, and its previous policy."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase
from torchrl.objectives import HardUpdate, SoftUpdate
from torchrl.objectives.utils import TargetNetUpdater

from torchrl_stein.objectives import ActionSpace, ParameterSpace, WassersteinTrustRegionLoss

from .settings import TrustRegion
from .targets import build

__all__ = ["make_trust_region"]


def make_trust_region(
    settings: TrustRegion | None,
    actor: TensorDictModuleBase,
    space: ActionSpace | ParameterSpace,
    *,
    scale: float = 1.0,
) -> tuple[WassersteinTrustRegionLoss | None, TargetNetUpdater | None]:
    """A loss that keeps a policy near its predecessor, and what makes the policy the predecessor.

    The weight is multiplied by ``scale``.

    Returns:
        tuple: the loss, and an updater to step after the gradients and before the optimizer:
        afterwards both policies would be the same. Without a trust region both are None.
    """
    if settings is None or settings.weight == 0:
        return None, None
    weight, cost = scale * settings.weight, build(settings.cost)
    region = WassersteinTrustRegionLoss(actor, weight=weight, cost=cost, space=space)
    if settings.tau is not None:
        return region, SoftUpdate(region, tau=settings.tau)
    return region, HardUpdate(region, value_network_update_interval=0)  # at every step
