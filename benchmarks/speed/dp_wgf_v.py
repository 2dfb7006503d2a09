"""DP-WGF-V with its trust region at K = M = 8 beside SAC, like with like: eager, compiled.

Both are the updates of recipes, on the same batch. SAC has two Q-networks and one action for each
state; DP-WGF-V a mixture of policies, Q and V, eight actions that push, eight that are moved, eight
for V(s), and transport between eight of the policy and eight of its predecessor.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.speed.agents import HALF_CHEETAH, WAYS, make_agent, random_transitions
from benchmarks.speed.harness import Call, Case, Roofline, interleave
from torchrl_stein.runs.process import prepare_cpu

__all__ = ["cases", "make_update"]

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


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """A row for each number of networks and each way of both."""
    prepare_cpu(1)
    ways = WAYS if device.type == "cuda" else {way: WAYS[way] for way in ("eager", "compiled")}
    sac = {way: make_update("sac", settings, device) for way, settings in ways.items()}
    for count in NETWORKS:
        for way, settings in ways.items():
            words = [*EIGHT, f"actor.num_particles={count}", *settings]
            ours = make_update("soft_qv", words, device)
            peers = {f"SAC, {way}": sac[way]}
            ours_ms, found, memory = interleave(ours, peers, device, rounds=15, memory=True)
            figures = {"updates/s": 1e3 / ours_ms, "times SAC": 1 / found[0].ratio}
            name = f"DP-WGF-V with its trust region, {count} networks, K = M = 8, {way}"
            group = "DP-WGF-V beside SAC"
            yield Case(group, name, ours_ms, found, memory, target=TARGET, figures=figures)
