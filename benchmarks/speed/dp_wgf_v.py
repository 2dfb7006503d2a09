"""DP-WGF-V with its trust region at K = M = 8 beside SAC, like with like: eager, compiled.

Both are the updates of recipes, on the same batch. SAC has two Q-networks and one action for each
state; DP-WGF-V a mixture of policies, Q and V, eight actions that push, eight that are moved, eight
for V(s), and transport between eight of the policy and eight of its predecessor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.speed.agents import HALF_CHEETAH, WAYS, make_agent, random_transitions
from benchmarks.speed.harness import Call, Case, Roofline, interleave
from torchrl_stein.runs.process import prepare_cpu

__all__ = ["cases", "count_flops", "make_update"]

BATCH = 256
NETWORKS = (16, 4)  # of the mixture
EIGHT = ["loss.num_action_samples=8", "loss.num_value_samples=8"]
EIGHT += ["trust_region.num_action_samples=8", "trust_region.weight=0.4"]
TARGET = "at most 3 x SAC in the same way"


def make_update(recipe: str, overrides: list[str], device: torch.device) -> Call:
    """An update that has been compiled, or captured, if its settings say so."""
    agent = make_agent(recipe, HALF_CHEETAH, device, overrides)
    batch = random_transitions(BATCH, HALF_CHEETAH, device)
    for _ in range(8):
        agent.update(batch)
    return lambda: agent.update(batch)


class _Counter(TorchDispatchMode):
    """Adds up what products do; torch's own counter stumbles over parameters in a TensorDict."""

    flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        of_product = flop_registry.get(func.overloadpacket)
        if of_product is not None:
            self.flops += of_product(*args, **(kwargs or {}), out_val=result)
        return result


def count_flops(call: Call) -> int:
    """Operations of the matrix products of a call, which must not be compiled."""
    with _Counter() as counter:
        call()
    return counter.flops


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """A row for each number of networks and each way of both."""
    prepare_cpu(1)
    ways = WAYS if device.type == "cuda" else {way: WAYS[way] for way in ("eager", "compiled")}
    sac = {way: make_update("sac", settings, device) for way, settings in ways.items()}
    flops_of_sac = count_flops(make_update("sac", [], device))
    for count in NETWORKS:
        number = [*EIGHT, f"actor.num_particles={count}"]
        flops = count_flops(make_update("soft_qv", number, device))
        least = roofline.least_ms(flops, 0.0)
        for way, settings in ways.items():
            ours = make_update("soft_qv", [*number, *settings], device)
            peers = {f"SAC, {way}": sac[way]}
            ours_ms, found, memory = interleave(ours, peers, device, rounds=15, memory=True)
            figures = {"updates/s": 1e3 / ours_ms, "times SAC": 1 / found[0].ratio}
            figures |= {"times SAC's products": flops / flops_of_sac, "products, ms": least}
            name = f"DP-WGF-V with its trust region, {count} networks, K = M = 8, {way}"
            group = "DP-WGF-V beside SAC"
            yield Case(group, name, ours_ms, found, memory, ours_ms / least, TARGET, figures)
