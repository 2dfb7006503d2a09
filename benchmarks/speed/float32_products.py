"""Float32 products of a CPU as chosen by ``choose_float32_products``, beside those of torch alone.

Of the shapes that the rest of the suite is made of. Errors are relative to float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.speed.harness import Case, Roofline, interleave, without_fast_products

__all__ = ["cases"]

Product = Callable[..., Tensor]
# Name -> product and the shapes of its two factors.
PRODUCTS: dict[str, tuple[Product, tuple[int, ...], tuple[int, ...]]] = {
    "two matrices of 1024 x 1024": (torch.mm, (1024, 1024), (1024, 1024)),
    "a layer of 128 x 128 on 4096 rows": (torch.nn.functional.linear, (4096, 128), (128, 128)),
    "the gradient of its weights": (torch.mm, (128, 4096), (4096, 128)),
    "a Gram matrix of 64 x 100000": (lambda x, y: x @ y.mT, (64, 10**5), (64, 10**5)),
    "a layer of 100 x 50 of 16 networks on 1000 rows": (torch.bmm, (16, 1000, 100), (16, 100, 50)),
}


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """A row for each shape; none on CUDA, where nothing is chosen."""
    if device.type != "cpu":
        return
    for name, (product, first, second) in PRODUCTS.items():
        yield _case(name, product, torch.randn(first), torch.randn(second))


def _case(name: str, product: Product, x: Tensor, y: Tensor) -> Case:
    def ours() -> Tensor:
        return product(x, y)

    alone = without_fast_products(ours)
    ours_ms, peers, _ = interleave(ours, {"torch alone": alone}, x.device, rounds=15)
    exact = product(x.double(), y.double())
    errors = {
        words: ((call().double() - exact).norm() / exact.norm()).item()
        for words, call in (("error", ours), ("error of torch alone", alone))
    }
    target = "torch alone 1, its error 4 times at most"
    return Case("Float32 products", name, ours_ms, peers, figures=errors, target=target)
