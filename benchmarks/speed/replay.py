"""Sampling from the recipes' replay buffer, beside the updates that it feeds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import RewardScaling

from benchmarks.speed.harness import Call, Case, Roofline, interleave
from torchrl_stein.runs.process import prepare_cpu

__all__ = ["cases", "filled_buffer", "sb3_buffer"]

GROUP = "Replay"
BATCH, HELD = 256, 100_000
AGENTS = {
    "SoftQLoss, K = M = 16": ("soft_q", ["loss.num_action_samples=16"]),
    "DP-WGF, K = M = 16": ("soft_q", ["loss.num_action_samples=16", "trust_region.weight=0.4"]),
    "DP-WGF-V, K = M = 16": ("soft_qv", ["loss.num_action_samples=16"]),
    "SAC": ("sac", []),
    "TD3": ("td3", []),
    "DDPG": ("ddpg", []),
}


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """A row for the buffers, and one for each algorithm."""
    prepare_cpu(1)
    from benchmarks.speed.agents import HALF_CHEETAH, make_agent, random_transitions

    transitions = random_transitions(HELD, HALF_CHEETAH, device)
    buffer = filled_buffer(transitions, BATCH)
    theirs = {}
    baselines = sb3_buffer(transitions, BATCH, device)
    if baselines is not None:
        theirs["stable-baselines3's buffer"] = baselines
    # Read and written once.
    least = roofline.least_ms(0.0, 2.0 * buffer.sample().bytes())
    ours_ms, peers, _ = interleave(buffer.sample, theirs, device, rounds=15)
    name = f"a batch of {BATCH}, {HALF_CHEETAH.name}, {HELD} transitions held"
    yield Case(GROUP, name, ours_ms, peers, roofline=ours_ms / least)
    for name, (recipe, overrides) in AGENTS.items():
        agent = make_agent(recipe, HALF_CHEETAH, device, overrides)
        batch = buffer.sample()
        ours_ms, peers, _ = interleave(
            buffer.sample, {"the update": lambda a=agent, b=batch: a.update(b)}, device
        )
        share = {"of an update, %": 100 / peers[0].ratio}
        target = "at most 10 % of an update"
        title = f"a batch of {BATCH} beside the update of {name}, 2 x 128"
        yield Case(GROUP, title, ours_ms, peers, target=target, figures=share)


def filled_buffer(transitions: TensorDict, batch_size: int) -> TensorDictReplayBuffer:
    """The recipes' buffer with these transitions, as large as they are.

    Raises:
        AssertionError: if a sample is not rows of them.
    """
    size = len(transitions)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(size, device=transitions.device),
        batch_size=batch_size,
        transform=RewardScaling(0.0, 0.1, in_keys=[("next", "reward")]),
    )
    buffer.extend(transitions.clone())
    sample = buffer.sample()
    rows = transitions[sample["index"].reshape(-1)]
    for key in ("observation", "action", ("next", "observation"), ("next", "terminated")):
        torch.testing.assert_close(sample[key], rows[key])
    torch.testing.assert_close(sample["next", "reward"], 0.1 * rows["next", "reward"])
    return buffer


def sb3_buffer(transitions: TensorDict, batch_size: int, device: torch.device) -> Call | None:
    """Sampling of the same from stable-baselines3's buffer; None without it.

    Raises:
        AssertionError: if a sample is not rows of the transitions.
    """
    try:
        import gymnasium
        from stable_baselines3.common.buffers import ReplayBuffer
    except ImportError:
        print("stable-baselines3 is not installed: its buffer is left out", flush=True)
        return None
    size, observations = transitions["observation"].shape
    box = gymnasium.spaces.Box
    buffer = ReplayBuffer(
        size,
        box(-np.inf, np.inf, (observations,), np.float32),
        box(-1.0, 1.0, (transitions["action"].shape[-1],), np.float32),
        device=device,
    )
    columns = {  # whole columns, as its add() takes one transition at a time
        "observations": transitions["observation"],
        "next_observations": transitions["next", "observation"],
        "actions": transitions["action"],
        "rewards": transitions["next", "reward"][:, 0],
        "dones": transitions["next", "terminated"][:, 0],
    }
    for name, values in columns.items():
        column = getattr(buffer, name)
        column[:, 0] = values.cpu().numpy()
    buffer.pos, buffer.full = 0, True
    sample = buffer.sample(batch_size)
    distance = torch.cdist(sample.observations, transitions["observation"]).amin(1)
    assert distance.max() < 1e-2
    return lambda: buffer.sample(batch_size)
