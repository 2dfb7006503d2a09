"""Stein variational and Wasserstein policy optimization as TorchRL components.

Names and subpackages are imported when they are first asked for: ``torchrl_stein.functional`` needs
torch alone, and gymnasium learns of our tasks with ``torchrl_stein.envs``.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchrl_stein import envs
    from torchrl_stein.modules import AmortizedSVGDActor, ParticleModule
    from torchrl_stein.objectives import SoftQLoss, SteinPolicyLoss, WassersteinTrustRegionLoss

__version__ = "0.2.0"

__all__ = [
    "AmortizedSVGDActor",
    "ParticleModule",
    "SoftQLoss",
    "SteinPolicyLoss",
    "WassersteinTrustRegionLoss",
    "envs",
]

_HOMES = {
    "AmortizedSVGDActor": "modules",
    "ParticleModule": "modules",
    "SoftQLoss": "objectives",
    "SteinPolicyLoss": "objectives",
    "WassersteinTrustRegionLoss": "objectives",
}
_SUBPACKAGES = {found.name for found in iter_modules(__path__) if found.ispkg}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBPACKAGES})
