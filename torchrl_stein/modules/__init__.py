"""Policies that are more than one Gaussian, as TensorDict modules."""

from .amortized_svgd_actor import AmortizedSVGDActor

__all__ = ["AmortizedSVGDActor"]
