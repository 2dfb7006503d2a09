"""A call as its operations below autograd, each timed by itself: see profile_update."""

from __future__ import annotations

import os
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from benchmarks.speed.harness import Call, cost

__all__ = ["MATHS", "Profile", "Share", "category", "profile_call"]

_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "linear", "matmul"}
_PRODUCTS |= {"linalg_slogdet", "_linalg_slogdet", "linalg_solve"}
_REDUCTIONS = {"sum", "mean", "median", "amax", "amin", "max", "min", "any", "all", "argmin"}
_REDUCTIONS |= {"logsumexp", "argmax", "sort", "cumsum", "norm", "linalg_vector_norm", "std", "var"}
_RANDOM = {"randn", "rand", "randint", "normal_", "uniform_", "random_", "bernoulli_"}
_COPIES = {"clone", "copy_", "cat", "stack", "_to_copy", "fill_", "zero_", "index", "gather"}
_COPIES |= {"zeros", "ones", "empty", "full", "zeros_like", "ones_like", "empty_like", "full_like"}
_COPIES |= {"new_zeros", "new_empty", "new_full", "new_ones", "scatter_add", "index_put", "arange"}
_COPIES |= {"scalar_tensor", "lift_fresh", "lift_fresh_copy", "index_select", "select_backward"}
_COPIES |= {"slice_backward", "new_empty_strided", "empty_strided", "select_scatter", "eye"}
_COPIES |= {"scatter", "index_add_", "_local_scalar_dense", "repeat", "contiguous"}
_VIEWS = {"view", "_unsafe_view", "t", "transpose", "expand", "unsqueeze", "squeeze", "detach"}
_VIEWS |= {"select", "slice", "split", "permute", "unbind", "alias", "as_strided", "reshape"}
_VIEWS |= {"split_with_sizes", "chunk", "detach_", "_reshape_alias", "diagonal", "unfold"}

MATHS = ("products", "elementwise", "reductions", "random numbers")


@dataclass(frozen=True)
class Share:
    """All calls of one operation in one update.

    Attributes:
        name: of the operation.
        kind: see :func:`category`.
        calls: how many.
        ms: what they take, launches included.
        launch_ms: of that, what the same calls take on a few numbers.
    """

    name: str
    kind: str
    calls: int
    ms: float
    launch_ms: float


@dataclass(frozen=True)
class Profile:
    """One update.

    Attributes:
        total_ms: of the update.
        system_ms: of that, in the system: page faults.
        in_order_ms: of the maths in the order of the update, each call once.
        shares: by operation, the longest first.
    """

    total_ms: float
    system_ms: float
    in_order_ms: float
    shares: tuple[Share, ...]

    def of_kind(self, *kinds: str) -> float:
        """ms of some categories."""
        return sum(share.ms for share in self.shares if share.kind in kinds)

    def outside_maths(self, *, launches: bool = False) -> float:
        """Part of the time that is not maths; launches of maths are or are not overhead."""
        inside = self.of_kind(*MATHS)
        if launches:
            inside -= sum(share.launch_ms for share in self.shares if share.kind in MATHS)
        return 1.0 - inside / self.total_ms


def category(name: str) -> str:
    """Products, elementwise, reductions, random numbers, copies or views."""
    kinds = {
        "products": _PRODUCTS,
        "reductions": _REDUCTIONS,
        "random numbers": _RANDOM,
        "copies": _COPIES,
        "views": _VIEWS,
    }
    for kind, names in kinds.items():
        if name in names:
            return kind
    return "elementwise"  # optimizers' _foreach_ and _fused_ operations too


class _Recorder(TorchDispatchMode):
    """Writes down operations by what their time depends on, with arguments of the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Any] = Counter()
        self.example: dict[Any, tuple[Any, tuple, dict]] = {}
        self.order: list[Any] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        key = (func, str(tree_map(_describe, (args, kwargs))))
        if key not in self.example:
            # Copies: operations in place would change the networks when they are called again.
            self.example[key] = (func, *tree_map(_copy, (args, kwargs)))
        self.calls[key] += 1
        self.order.append(key)
        return func(*args, **kwargs)


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return value


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _shrunk(value: Any) -> Any:
    """A tensor of the same rank with at most two entries per dimension, at the same strides."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value[tuple(slice(0, 2) for _ in range(value.ndim))]


def profile_call(call: Call, device: torch.device, *, rounds: int = 5) -> Profile:
    """Time an update as a whole and by operation, see the module.

    Args:
        call: the update.
        device: a CPU.
        rounds: of update and operations in turn; medians count.
    """
    call()
    totals: list[float] = []
    systems: list[float] = []
    in_order: list[float] = []
    times: dict[Any, list[float]] = defaultdict(list)
    launches: dict[Any, list[float]] = defaultdict(list)
    for _ in range(rounds):
        before = os.times().system
        totals.append(cost(call, device, 5))
        systems.append((os.times().system - before) / 5)
        # Anew in each round: what it keeps would change where the update finds memory.
        recorder = _Recorder()
        with recorder:
            call()
        maths = [recorder.example[key] for key in recorder.order if _is_maths(key[0])]
        in_order.append(_time(_run_all, (maths,), {}, device))
        for key, (func, args, kwargs) in recorder.example.items():
            times[key].append(_time(func, args, kwargs, device))
            launches[key].append(_launch(func, args, kwargs, device, times[key][-1]))
    total, system, ordered = (
        1e3 * statistics.median(seconds) for seconds in (totals, systems, in_order)
    )
    return Profile(total, system, ordered, _by_name(recorder.calls, times, launches))


def _is_maths(func: Any) -> bool:
    return category(_name(func)) in MATHS


def _run_all(calls: list[tuple[Any, tuple, dict]]) -> None:
    for func, args, kwargs in calls:
        func(*args, **kwargs)


def _time(func: Any, args: tuple, kwargs: dict, device: torch.device) -> float:
    def call() -> None:
        func(*args, **kwargs)

    with torch.no_grad():
        call()
        once = max(cost(call, device), 1e-6)
        return cost(call, device, max(3, min(200, int(2e-3 / once))))


def _launch(func: Any, args: tuple, kwargs: dict, device: torch.device, whole: float) -> float:
    """Seconds of the same on a few numbers; where that is another operation, all of it counts."""
    if not _is_maths(func) or not any(
        isinstance(leaf, Tensor) for leaf in tree_flatten((args, kwargs))[0]
    ):
        return 0.0
    small_args, small_kwargs = tree_map(_shrunk, (args, kwargs))
    try:
        return min(whole, _time(func, small_args, small_kwargs, device))
    except (RuntimeError, IndexError):
        return min(whole, 2e-6)  # sizes in its arguments: what a launch takes at least


def _name(func: Any) -> str:
    return func._schema.name.split("::")[1]


def _by_name(calls: Counter, times: dict, launches: dict) -> tuple[Share, ...]:
    names = dict.fromkeys(_name(func) for func, _ in calls)
    shares = []
    for name in names:
        keys = [key for key in calls if _name(key[0]) == name]
        ms, launch = (
            1e3 * sum(calls[key] * statistics.median(taken[key]) for key in keys)
            for taken in (times, launches)
        )
        count = sum(calls[key] for key in keys)
        shares.append(Share(name, category(name), count, ms, launch))
    return tuple(sorted(shares, key=lambda share: -share.ms))
