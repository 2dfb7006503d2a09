"""Fixtures of all tests: fixed seeds, one thread, and the variants of maths tests."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from torchrl_stein.products import choose_float32_products

# `from tests.oracles import ...` also when started as bare `pytest`.
if str(root := Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(root))


def pytest_configure(config):
    # torch.pdist under vmap runs as a loop; torch says so once, we know.
    config.addinivalue_line("filterwarnings", "ignore:There is a performance drop:UserWarning")


@pytest.hookimpl(tryfirst=True)  # before the slow ones are left out
def pytest_collection_modifyitems(items):
    # To compile takes seconds: a test does it for its first numbers, in `make test-all` for all.
    compiled = set()
    for item in items:
        call = getattr(item, "callspec", None)
        if call is not None and call.params.get("variant") == "compile":
            name = item.nodeid.split("[")[0]
            if name in compiled:
                item.add_marker(pytest.mark.slow)
            compiled.add(name)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # The tensors here are small: threads cost more than they save, and change rounding.
    torch.set_num_threads(1)
    choose_float32_products()


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal():
    # Where tests run under nohup, SIGHUP is ignored, by the processes that they start too.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # pytest captures at debug level, for which the compiler writes hundreds of empty lines.
    logging.getLogger("torch.__trace").setLevel(logging.INFO)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@dataclass(frozen=True)
class Variant:
    """A way to run a function of tensors: ``variant(function, *args)``.

    Attributes:
        name: ``eager``, ``vmap``, ``compile`` or ``float64``.
        dtype: of the tensors to feed; :meth:`tensor` makes them.
        tolerance: for ``assert_close`` against an exact result of order 1.
    """

    name: str
    dtype: torch.dtype
    tolerance: dict[str, float]

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        return _RUN[self.name](function, *args)

    def tensor(self, data: Any) -> Tensor:
        """``data`` in the dtype of this variant."""
        return torch.as_tensor(data, dtype=self.dtype)

    def randn(self, *shape: int, seed: int = 0) -> Tensor:
        """The same normal numbers in every variant, up to rounding."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype)

    def close(self, actual: Any, expected: Any) -> None:
        """Assert that ``actual`` (a tensor) is near ``expected`` (anything array-like)."""
        assert actual.dtype == self.dtype
        want = torch.as_tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(actual.double(), want, **self.tolerance)


def _vmap(function: Callable[..., Any], *args: Any) -> Any:
    # A second, different element: results that leak between elements of the batch show.
    second = tree_map(lambda a: 0.5 * a if _is_float(a) else a, args)
    stacked = [
        torch.stack([a, b]) if _is_float(a) else a for a, b in zip(args, second, strict=True)
    ]
    both = torch.vmap(function, in_dims=tuple(0 if _is_float(a) else None for a in args))(*stacked)
    alone = tree_leaves(function(*second))
    for batched, single in zip(tree_leaves(both), alone, strict=True):
        torch.testing.assert_close(batched[1], single)
    return tree_map(lambda t: t[0], both)


def _compile(function: Callable[..., Any], *args: Any) -> Any:
    # aot_eager traces all that inductor would, without seconds of C++ compilation per test.
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend="aot_eager")
    result = compiled(*args)
    other = tree_map(lambda a: 0.5 * a if _is_float(a) else a, args)
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(*other)
    return result


def _is_float(a: Any) -> bool:
    return isinstance(a, Tensor) and a.is_floating_point()


def _eager(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


_RUN = {"eager": _eager, "vmap": _vmap, "compile": _compile, "float64": _eager}
# float32 carries 7 digits, of which sums of some ten terms lose one; float64 carries 16, and
# softplus switches to its asymptote at an error of 2e-9.
_SINGLE, _DOUBLE = {"rtol": 2e-5, "atol": 2e-6}, {"rtol": 1e-8, "atol": 1e-8}


@pytest.fixture(params=list(_RUN))
def variant(request: pytest.FixtureRequest) -> Variant:
    """The four ways in which every function of the maths must give the same numbers."""
    if request.param == "compile":
        torch.compiler.reset()
    double = request.param == "float64"
    dtype = torch.float64 if double else torch.float32
    return Variant(request.param, dtype, _DOUBLE if double else _SINGLE)
