"""Float32 matrix products on a CPU: as fast as the machine does them at the rounding of float32."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

__all__ = ["ProductReport", "choose_float32_products"]

# Of torch.backends.mkldnn.matmul.fp32_precision: without and with leave to round to bfloat16.
_STRICT, _FAST = "ieee", "bf16"
_SIZE, _ROUNDS = 256, 7
# As many roundings, in another order. Those of bfloat16 would be off by thousands of times as much.
_SAME_ROUNDING = 4.0
# Less is noise, for which nothing shall be changed.
_CLEARLY_FASTER = 1.15


@dataclass(frozen=True)
class ProductReport:
    """How a CPU does float32 products, and which of two ways is in force.

    Example:
        >>> print(ProductReport("bf16", 98.0, 2e-7, 212.0, 3e-7))
        Float32 products: 212 GFLOP/s, error 3e-07, by oneDNN in place of 98, error 2e-07
        >>> print(ProductReport("none", 114.0, 2e-7, 285.0, 2e-3))
        Float32 products: 114 GFLOP/s, error 2e-07; oneDNN's 285, error 2e-03, are not used
    """

    setting: str  # what torch.backends.mkldnn.matmul.fp32_precision is from here on
    gflops: float  # 1e9 operations per second of a product at "ieee"
    error: float  # of that product, relative to float64
    fast_gflops: float  # the same at "bf16"
    fast_error: float

    def __str__(self) -> str:
        """One line."""
        strict = f"{self.gflops:.0f}", f"error {self.error:.0e}"
        fast = f"{self.fast_gflops:.0f}", f"error {self.fast_error:.0e}"
        if self.setting == _FAST:
            words = f"{fast[0]} GFLOP/s, {fast[1]}, by oneDNN in place of {', '.join(strict)}"
        else:
            words = f"{strict[0]} GFLOP/s, {strict[1]}; oneDNN's {', '.join(fast)}, are not used"
        return f"Float32 products: {words}"


@cache
def choose_float32_products() -> ProductReport:
    """Let oneDNN take float32 products where that is as exact as the usual way, and faster.

    With leave to round to bfloat16, oneDNN takes products that are otherwise MKL's. A CPU without
    AMX has nothing to gain from rounding, so it does not round, and on AMD's the products are twice
    as fast. A CPU with AMX does round, to three digits. No name says which, so one small product is
    timed and checked against float64 both ways, in 10 ms.

    Products on a GPU stay what they are, but ``torch.get_float32_matmul_precision()``, PyTorch's
    one answer for both, refuses to give it where they differ. Call it at the start of a program,
    after the number of threads is set. It measures once; later calls change nothing.
    """
    products = _products()
    setting = products.fp32_precision
    try:
        (gflops, error), (fast_gflops, fast_error) = _measure()
        if fast_error <= _SAME_ROUNDING * error and fast_gflops >= _CLEARLY_FASTER * gflops:
            setting = _FAST
    finally:
        products.fp32_precision = setting
    return ProductReport(setting, gflops, error, fast_gflops, fast_error)


def _products() -> Any:
    backend: Any = torch.backends.mkldnn  # whose type does not know what it has
    return backend.matmul


def _measure() -> list[tuple[float, float]]:
    """GFLOP/s, best of several, and relative error at each setting."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, _SIZE, _SIZE, generator=generator, dtype=torch.float32, device="cpu")
    exact = a.double() @ b.double()
    seconds, error = {_STRICT: math.inf, _FAST: math.inf}, {}
    for _ in range(_ROUNDS):  # in turn, since other work on the machine comes and goes
        for setting in seconds:
            _products().fp32_precision = setting
            start = time.perf_counter()
            product = a @ b
            seconds[setting] = min(seconds[setting], time.perf_counter() - start)
            error[setting] = ((product.double() - exact).norm() / exact.norm()).item()
    return [(2e-9 * _SIZE**3 / seconds[setting], error[setting]) for setting in seconds]
