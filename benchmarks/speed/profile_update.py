"""Where the time of an off-policy update goes: maths, or what surrounds it.

How it is measured. Clocks of profilers are those of the wall, which lie where the machine is
shared, and they slow down what has many small parts. So the update runs by itself, timed in CPU
seconds, and once more under a dispatch mode that writes down each operation below autograd, with
shapes and strides: forward, backward and optimizer. Each of these is then called again by itself,
many times in a row, in CPU seconds too. What they take together, taken from the time of the
update, leaves what is not an operation: Python, TensorDict, the graph of autograd, checks, and the
time that the system takes to hand out, zeroed, memory that the process had just given back; the
clocks of the process tell that apart. How much it is depends on what the process freed before: from
nothing to a third of an update.

Two shares result, as an operation's own launch can be counted on either side. In the first the
launch belongs to the operation, as in a profiler's table; in the second it is overhead: the time of
the same operation on no more than a few numbers is taken off. Beside them stands the time of the
same update of two transitions and networks of two units: all launches and all Python.

Calls in a row find their operands in the cache, so operations look cheaper than they are, and the
difference looks like overhead: the first share is an upper bound. The maths is also called once
through in the order of the update, on copies of its own that lie far apart. Its operands are then
further away than in the update, so the share from that is a lower bound.

On CUDA there is one share, the device's time in kernels over the time of the update; the rest it
waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import torch

from benchmarks import RESULTS
from benchmarks.speed.agents import HALF_CHEETAH, make_agent, random_transitions
from benchmarks.speed.dp_wgf_v import EIGHT
from benchmarks.speed.harness import Call, Case, Roofline, cost, interleave
from benchmarks.speed.operations import MATHS, Profile, profile_call
from torchrl_stein.runs.process import prepare_cpu

__all__ = ["cases", "page"]

AGENTS = {
    "SoftQLoss, K = M = 16": ("soft_q", ["loss.num_action_samples=16"]),
    "DP-WGF-V without its trust region, K = M = 16": (
        "soft_qv",
        ["loss.num_action_samples=16", "trust_region.weight=0"],
    ),
    "DP-WGF-V, K = M = 16": ("soft_qv", ["loss.num_action_samples=16"]),
    "DP-WGF-V, K = M = 8": ("soft_qv", EIGHT),
    "DP-WGF-V, K = M = 8, four networks": ("soft_qv", [*EIGHT, "actor.num_particles=4"]),
    "SAC": ("sac", []),
}
TINY = ["network.num_cells=[2,2]"]
FEW = ["loss.num_action_samples=2", "loss.num_value_samples=2"]


def page(profiles: dict[str, Profile], tiny_ms: dict[str, float]) -> str:
    """Markdown: categories and the 25 longest operations of each agent.

    Args:
        profiles: by agent.
        tiny_ms: time of the same update at next to no size.
    """
    lines = [
        "# Where the time of an off-policy update goes",
        "",
        f"`python -m benchmarks.speed --only profile_update`, {date.today().isoformat()}, torch "
        f"{torch.__version__}, one thread, CPU time, 2 x 128 units,",
        f"B = 256, {HALF_CHEETAH.name}. Every operation of one update is timed by itself; how, and "
        "why not by a profiler, is",
        "said in `benchmarks/speed/profile_update.py`. In brackets: launches of maths counted as "
        "overhead. A share below zero: timed alone, from colder caches, operations took longer "
        "than in the update; read it as little.",
    ]
    for name, profile in profiles.items():
        lines += ["", f"## {name}", "", *_page_of(profile, tiny_ms[name])]
    return "\n".join(lines) + "\n"


def _page_of(profile: Profile, tiny_ms: float) -> list[str]:
    total = profile.total_ms
    outside, with_launches = profile.outside_maths(), profile.outside_maths(launches=True)
    in_order = 1 - profile.in_order_ms / total
    lines = [
        f"{total:.1f} ms, {sum(share.calls for share in profile.shares)} operations; outside maths "
        f"{outside:.0%} [{with_launches:.0%}]; {in_order:.0%} if the maths is timed "
        f"in order. At next to no size: {tiny_ms:.1f} ms.",
        "",
        "| what | ms | share |",
        "|---|---|---|",
    ]
    kinds = [*MATHS, "copies", "views"]
    rows = {kind: profile.of_kind(kind) for kind in kinds}
    rows["memory zeroed by the system"] = profile.system_ms
    rows["Python, autograd, TensorDict"] = total - sum(rows.values())
    lines += [f"| {kind} | {ms:.2f} | {ms / total:.0%} |" for kind, ms in rows.items()]
    lines += ["", "| operation | kind | calls | ms | share |", "|---|---|---|---|---|"]
    return lines + [
        f"| {share.name} | {share.kind} | {share.calls} | {share.ms:.2f} | {share.ms / total:.1%} |"
        for share in profile.shares[:25]
    ]


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """A row for each agent; on a CPU also the page of the operations."""
    prepare_cpu(1)
    profiles: dict[str, Profile] = {}
    tiny_ms: dict[str, float] = {}
    for name, (recipe, overrides) in AGENTS.items():
        update = _update_of(recipe, overrides, 256, device)
        if device.type == "cuda":
            yield _device_case(name, update, device)
            continue
        profile = profiles[name] = profile_call(update, device)
        small = [*overrides, *TINY, *(FEW if recipe != "sac" else [])]
        tiny = _update_of(recipe, small, 2, device)
        tiny_ms[name] = interleave(tiny, {}, device)[0]
        figures = {
            "outside maths, %": 100 * profile.outside_maths(),
            "the same, maths in order, %": 100 * (1 - profile.in_order_ms / profile.total_ms),
            "with launches, %": 100 * profile.outside_maths(launches=True),
            "memory zeroed by the system, %": 100 * profile.system_ms / profile.total_ms,
            "ms at next to no size": tiny_ms[name],
        }
        target = "at most 35 % outside maths"
        yield Case("Off-policy overhead", name, profile.total_ms, target=target, figures=figures)
    if profiles:
        (RESULTS / "profile_update.md").write_text(page(profiles, tiny_ms))


def _update_of(recipe: str, overrides: list[str], rows: int, device: torch.device) -> Call:
    agent = make_agent(recipe, HALF_CHEETAH, device, overrides)
    batch = random_transitions(rows, HALF_CHEETAH, device)

    def update() -> None:
        agent.update(batch)

    return update


def _device_case(name: str, update: Call, device: torch.device) -> Case:
    for _ in range(3):
        update()
    seconds = cost(update, device, 20)
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profiler:
        cost(update, device, 20)
    busy = 1e-6 * sum(event.self_device_time_total for event in profiler.key_averages()) / 20
    figures = {"device busy, %": 100 * busy / seconds}
    return Case("Off-policy overhead", name, 1e3 * seconds, figures=figures)
