"""Losses that drop into any TorchRL pipeline."""

from .soft_q import SoftQLoss

__all__ = ["SoftQLoss"]
