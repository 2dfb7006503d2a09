"""Two or more programs that do the same, timed in turn in one process.

Times on a CPU are CPU seconds of this process, which other work on the machine inflates less than
the clock; on CUDA they are seconds of the clock between two synchronisations. What is read are the
ratios of one round, of which the median and the quartiles are kept.
"""

from __future__ import annotations

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

__all__ = [
    "Case",
    "Peer",
    "Roofline",
    "cost",
    "interleave",
    "measure_roofline",
    "ours_without_fast_products",
    "peak_memory",
    "without_fast_products",
]

Call = Callable[[], object]
_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peer:
    """Somebody else's time over ours, in the same round.

    Attributes:
        name: of the program.
        ratio: median over the rounds; above 1 ours is the faster one.
        low, high: quartiles.
        memory_mb: peak of memory beyond what was there before the call, or None.
    """

    name: str
    ratio: float
    low: float
    high: float
    memory_mb: float | None = None


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        group: what is compared, a section of the page.
        name: its size.
        ours_ms: median.
        peers: the others.
        memory_mb: peak of ours beyond what was there before the call, or None.
        roofline: ours over the least time the machine could take, or None.
        target: what issue or promise it is held against, in words.
        figures: more numbers by name, such as updates per second.
    """

    group: str
    name: str
    ours_ms: float
    peers: tuple[Peer, ...] = ()
    memory_mb: float | None = None
    roofline: float | None = None
    target: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Roofline:
    """What the machine can do.

    Attributes:
        gflops: of a float32 matrix product.
        gbytes: of a copy, read and written, per second.
    """

    gflops: float
    gbytes: float

    def least_ms(self, flops: float, bytes_moved: float) -> float:
        """The time below which no program gets that does so much."""
        return 1e3 * max(flops / (1e9 * self.gflops), bytes_moved / (1e9 * self.gbytes))


def cost(call: Call, device: torch.device, repeats: int = 1) -> float:
    """Seconds of one call, see the module."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize(device)
    start = clock()
    for _ in range(repeats):
        call()
    if on_gpu:
        torch.cuda.synchronize(device)
    return (clock() - start) / repeats


def interleave(
    ours: Call,
    theirs: Mapping[str, Call],
    device: torch.device,
    *,
    rounds: int = 9,
    repeats: int | None = None,
    memory: bool = False,
    warm: bool = False,
    budget: float = math.inf,
) -> tuple[float, tuple[Peer, ...], float | None]:
    """Time all in turn, after a call or two of each that do not count.

    Args:
        ours: our program.
        theirs: the others, by name.
        device: where they run.
        rounds: of all in turn.
        repeats: calls that are timed as one; None picks so many that ours takes 20 ms.
        memory: also measure peaks, in a call before the rounds.
        warm: all have been called before, by a check.
        budget: seconds after which a slow peer sits out the rounds that are left; it has three
            at least.

    Returns:
        tuple: our median in ms, the peers, our peak in MiB (None without ``memory``).
    """
    if not warm:
        for call in (ours, *theirs.values()):
            call()
    seconds, own_peak = _cost_and_peak(ours, device, memory)
    if repeats is None:
        repeats = max(1, min(200, int(0.02 / max(seconds, 1e-5))))
    counts: dict[str, int] = {}
    peaks: dict[str, float | None] = {}
    for name, call in theirs.items():
        seconds, peaks[name] = _cost_and_peak(call, device, memory)
        # A peer a hundred times slower need not be called as often for the same precision.
        counts[name] = max(1, min(repeats, int(0.1 / max(seconds, 1e-5))))
    times: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in theirs}
    spent = dict.fromkeys(theirs, 0.0)
    for _ in range(rounds):
        times.append(cost(ours, device, repeats))
        for name, call in theirs.items():
            if len(ratios[name]) >= 3 and spent[name] > budget:
                continue
            seconds = cost(call, device, counts[name])
            ratios[name].append(seconds / times[-1])
            spent[name] += counts[name] * seconds
    peers = tuple(_peer(name, ratios[name], peaks[name]) for name in theirs)
    return 1e3 * statistics.median(times), peers, own_peak


def _cost_and_peak(call: Call, device: torch.device, memory: bool) -> tuple[float, float | None]:
    if not memory:
        return cost(call, device), None
    peak: list[float | None] = []
    return cost(lambda: peak.append(peak_memory(call, device)), device), peak[0]


def _peer(name: str, ratios: list[float], memory: float | None) -> Peer:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Peer(name, middle, low, high, memory)


def peak_memory(call: Call, device: torch.device) -> float | None:
    """MiB that a call needs beyond what was in use before it; None where nobody says.

    On a CPU from the resident set of the process, to about 1 MiB, for any library.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or the call would live in what earlier ones left
        _RESET_PEAK.write_text("5")  # Linux: the peak becomes what is resident now
    except (OSError, AttributeError):
        return None
    before = _resident("VmRSS")
    call()
    return max(0.0, _resident("VmHWM") - before)


def without_fast_products(call: Call) -> Call:
    """The same with float32 products as torch does them where nobody has chosen any."""
    products = torch.backends.mkldnn.matmul

    def strict() -> object:
        before = products.fp32_precision
        products.fp32_precision = "ieee"
        try:
            return call()
        finally:
            products.fp32_precision = before

    return strict


def ours_without_fast_products(ours: Call, device: torch.device) -> tuple[Peer, ...]:
    """Ours beside itself, apart from peers that would leave the cache to one of both; CPU only."""
    if device.type != "cpu":
        return ()
    strict = {"ours without fast products": without_fast_products(ours)}
    return interleave(ours, strict, device, rounds=15, warm=True)[1]


def _resident(key: str) -> float:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1024


def measure_roofline(device: torch.device) -> Roofline:
    """Best of five of each, as programs differ in how near they come to it."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    out = torch.empty_like(a)
    # Far larger than any cache.
    source = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)

    def product() -> None:
        torch.mm(a, b, out=out)

    def copy() -> None:
        target.copy_(source)

    for call in (product, copy):
        call()
    gemm = min(cost(product, device, 3) for _ in range(5))
    moved = min(cost(copy, device, 2) for _ in range(5))
    return Roofline(2e-9 * size**3 / gemm, 2e-9 * source.numel() * source.element_size() / moved)
