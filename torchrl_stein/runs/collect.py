"""Data for a loop: a fast collector for batched worlds, and the state of collectors and buffers."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.data import PrioritizedSampler, ReplayBuffer
from torchrl.envs import EnvBase, RewardScaling, Transform, TransformedEnv
from torchrl.modules import IndependentNormal, ProbabilisticActor

from torchrl_stein._checks import check_count, check_type
from torchrl_stein._torchrl import (
    carried_data,
    collector_counts,
    set_carried_data,
    tree_leaves,
)
from torchrl_stein.envs import BatchedEnv, NStepReturns, RunningRewardScaling
from torchrl_stein.modules import ParticleModule

from .evaluation import base_env

__all__ = ["CollectorState", "ReplayState", "ReturnMeter", "WorldCollector"]
__all__ += ["make_reward_scaling"]

_ROW = ("observation", "elapsed_steps", "loc", "scale", "action")
_AFTER = ("observation", "elapsed_steps", "reward", "terminated", "truncated", "done")
_NEXT = (*_AFTER, "episode_reward")
# Transforms of buffers that remember something, and what that is called in a checkpoint.
_TRANSFORMS = {RunningRewardScaling: "reward_scaling", NStepReturns: "n_step_returns"}


class WorldCollector:
    """Drop-in for TorchRL's Collector, for a batched world and a Gaussian policy; faster.

    Policy, dynamics and reset of finished rows are one function of tensors per step; one tensordict
    is made at the end. Episodes go on from one batch of data to the next.

    Each batch ``[*B, T]`` holds "observation", "elapsed_steps", "loc", "scale", "action",
    "action_log_prob" and under "next" "observation", "elapsed_steps", "reward", "done",
    "terminated", "truncated" and "episode_reward" (the undiscounted return so far, as TorchRL's
    RewardSum writes it). With a population on rows ``[n, ...]`` or ``[S, n, ...]`` also "particle",
    i in row i, by which losses see data of other particles.

    Args:
        env: a batched world without transforms, batch size ``[*B]``; else TypeError.
        policy: an actor that reads "observation" alone and writes "loc" and "scale" of an
            IndependentNormal; else TypeError or ValueError.
        frames_per_batch: environment steps per batch of data, a multiple of the number of rows.
        total_frames: environment steps in all.
        compiled: whether ``torch.compile`` fuses each step (tens of seconds at the start).

    Example:
        >>> from torchrl_stein.envs import CartpoleEnv
        >>> from torchrl_stein.runs import make_gaussian_actor
        >>> env = CartpoleEnv(batch_size=(2, 3), seed=0)
        >>> actor = make_gaussian_actor(env, num_particles=2, num_cells=[8])
        >>> data = next(iter(WorldCollector(env, actor, frames_per_batch=60, total_frames=60)))
        >>> data.batch_size
        torch.Size([2, 3, 10])
    """

    def __init__(
        self,
        env: BatchedEnv,
        policy: ProbabilisticActor,
        *,
        frames_per_batch: int,
        total_frames: int,
        compiled: bool = False,
    ) -> None:
        others = "(TorchRL's Collector takes others)"
        check_type(
            "WorldCollector", f"a BatchedEnv without transforms {others}", BatchedEnv, env=env
        )
        actor = isinstance(policy, ProbabilisticActor) and policy[-1].distribution_class
        if actor is not IndependentNormal:
            kind = actor.__name__ if actor else type(policy).__name__
            raise TypeError(
                "WorldCollector: policy must be a ProbabilisticActor with an IndependentNormal "
                f"{others}, got {kind}"
            )
        if list(policy.in_keys) != ["observation"]:
            raise ValueError(
                f"WorldCollector: policy must read 'observation' alone, got {list(policy.in_keys)}"
            )
        check_count("WorldCollector", frames_per_batch=frames_per_batch, total_frames=total_frames)
        if frames_per_batch % env.numel():
            raise ValueError(
                f"WorldCollector: frames_per_batch must be a multiple of the {env.numel()} rows of "
                f"the environment, got {frames_per_batch}"
            )
        self.env, self.policy = env, policy
        self.steps = frames_per_batch // env.numel()
        self.batches = -(-total_frames // frames_per_batch)
        self._network = policy[0].module
        populations = [m for m in policy.modules() if isinstance(m, ParticleModule)]
        leading = populations[0].leading if len(populations) == 1 else torch.Size()
        rows_are_particles = leading == env.batch_size[: len(leading)]
        self._leading = leading if rows_are_particles else torch.Size()
        self._step = torch.compile(self._one_step, fullgraph=True) if compiled else self._one_step
        shape = env.batch_size
        self._state = env.draw_starts(shape)
        self._elapsed = torch.zeros((*shape, 1), dtype=torch.int64, device=env.device)
        self._return = torch.zeros((*shape, 1), device=env.device)

    def __iter__(self) -> Iterator[TensorDictBase]:
        for _ in range(self.batches):
            yield self.collect()

    def shutdown(self) -> None:
        """Nothing to shut down; as TorchRL's collectors have it."""

    def state_dict(self) -> dict[str, Tensor]:
        """Where the episodes are, and the generator of further starts."""
        return {
            "state": self._state,
            "elapsed_steps": self._elapsed,
            "episode_reward": self._return,
            "generator": self.env.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on in the middle of those episodes; of another number of rows they start anew."""
        if state["state"].shape != self._state.shape:
            _warn_of_fresh_episodes(state["state"].shape[:-1], self.env.batch_size)
            return
        self._state, self._elapsed, self._return = (
            state[name].to(self.env.device) for name in ("state", "elapsed_steps", "episode_reward")
        )
        self.env.generator.set_state(state["generator"].cpu())

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """The next batch of data ``[*B, T]``."""
        batch = self.env.batch_size
        action_dim = self.env.world.action_dim
        noise = torch.randn(self.steps, *batch, action_dim, device=self.env.device)
        fresh = self.env.draw_starts((self.steps, *batch))
        rows: list[tuple[Tensor, ...]] = []
        for eps, start in zip(noise.unbind(0), fresh.unbind(0), strict=True):
            carried, written = self._step(self._state, self._elapsed, self._return, eps, start)
            self._state, self._elapsed, self._return = carried
            rows.append(written)
        columns = [torch.stack(column, len(batch)) for column in zip(*rows, strict=True)]
        shape = (*batch, self.steps)
        data = TensorDict(dict(zip(_ROW, columns, strict=False)), shape)
        data["next"] = TensorDict(dict(zip(_NEXT, columns[len(_ROW) :], strict=True)), shape)
        distribution = IndependentNormal(data["loc"], data["scale"])
        data["action_log_prob"] = distribution.log_prob(data["action"])
        if self._leading:  # losses look whether row i is still that of particle i
            owners = torch.arange(self._leading[-1], device=self.env.device)
            inner = data.ndim - len(self._leading) + 1
            data["particle"] = owners.view(-1, *(1,) * inner).expand(*shape, 1).clone()
        return data

    @torch.no_grad()
    def mean_action_returns(self, starts: Tensor, max_steps: int) -> Tensor:
        """Return of one episode from each start, acting with the mean; training does not notice.

        Args:
            starts: states of the world ``[..., M, d]`` for a batch ``[..., E]`` of rows; any M.
            max_steps: an episode still running then counts with what it has.

        Returns:
            Tensor: undiscounted returns ``[..., M]``.
        """
        shape = self.env.batch_size
        if len(shape) < 2 or starts.shape[:-2] != shape[:-1]:
            words = ", ".join(map(str, shape[:-1]))
            raise ValueError(
                f"WorldCollector: starts must be [{words}, M, d] for a batch of rows "
                f"{list(shape)}, got {list(starts.shape)}"
            )
        check_count("WorldCollector", max_steps=max_steps)
        count, rows = starts.shape[-2], shape[-1]
        # Rows of the shape of the training data, so that nothing is compiled anew.
        index = torch.arange(-(-count // rows) * rows, device=starts.device) % count
        parts = starts[..., index, :].split(rows, -2)
        returns = [self._first_returns(part.contiguous(), max_steps) for part in parts]
        return torch.cat(returns, -1)[..., :count]

    def _first_returns(self, state: Tensor, max_steps: int) -> Tensor:
        noise = torch.zeros(*self.env.batch_size, self.env.world.action_dim, device=state.device)
        elapsed, total = torch.zeros_like(self._elapsed), torch.zeros_like(self._return)
        returns, running = torch.zeros_like(total), torch.ones_like(total, dtype=torch.bool)
        for _ in range(max_steps):
            (state, elapsed, total), written = self._step(state, elapsed, total, noise, state)
            *_, done, so_far = written
            returns = torch.where(running, so_far, returns)
            running = running & ~done
        return returns.squeeze(-1)

    def _one_step(
        self, state: Tensor, elapsed: Tensor, total: Tensor, noise: Tensor, fresh: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        world = self.env.world
        observation = world.observe(state)
        loc, scale = self._network(observation)
        action = loc + scale * noise
        following, reward, terminated = world.step(state, action)
        steps = elapsed + 1
        truncated = steps >= self.env.horizon
        done = terminated | truncated
        total = total + reward
        carried = (
            torch.where(done, fresh, following),
            torch.where(done, 0, steps),
            torch.where(done, 0.0, total),
        )
        row = (observation, elapsed, loc, scale, action)
        after = (world.observe(following), steps, reward, terminated, truncated, done, total)
        return carried, row + after


class CollectorState:
    """The part of TorchRL's Collector that its own ``state_dict`` leaves out (0.14).

    A :class:`~torchrl_stein.envs.BatchedEnv`, with transforms or without, goes on in the middle of
    its episodes: all that it knows is in the data that the collector carries from step to step,
    and in one generator. Simulators hide what they know: they start from a reset, with other
    starts than those of the beginning of the run.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def shutdown(self) -> None:
        """Close the collector and its environments."""
        self._collector.shutdown()

    def state_dict(self) -> dict[str, Any]:
        """Counts, episodes and generator of a batched world; of simulators a seed."""
        env = self._collector.env
        state: dict[str, Any] = {
            **collector_counts(self._collector),
            "transforms": dict(env.state_dict()) if isinstance(env, TransformedEnv) else {},
        }
        world = base_env(env)
        if isinstance(world, BatchedEnv):
            carrier = carried_data(self._collector).to_dict()
            return state | {"carrier": carrier, "generator": world.generator.get_state()}
        # A digest: to draw a seed would change the run that goes on.
        return state | {"seed": zlib.crc32(torch.get_rng_state().numpy().tobytes()) >> 1}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there; with another number of environments their episodes start anew."""
        counted = {"frames": state["frames"], "iter": state["iter"]}
        self._collector.load_state_dict(counted, strict=False)
        env, old = self._collector.env, carried_data(self._collector)
        if isinstance(env, TransformedEnv):
            env.load_state_dict(state["transforms"])
        world = base_env(env)
        if not isinstance(world, BatchedEnv):
            env.set_seed(state["seed"])
            self._collector.reset()
            return
        saved, here = state["carrier"]["done"].shape[:-1], env.batch_size
        if saved != here:
            _warn_of_fresh_episodes(saved, here)
            return
        set_carried_data(self._collector, _restored(state["carrier"], here, old.device))
        world.generator.set_state(state["generator"].cpu())


def _restored(
    entries: Mapping[str, Any], batch_size: torch.Size, device: torch.device | None = None
) -> TensorDict:
    """Data of plain dictionaries, in which that of n agents has lost its batch size [*B, n]."""
    data = TensorDict(entries, batch_size, device=device)
    for part in (data, data.get("next", None)):
        agents = None if part is None else part.get("agents", None)
        if agents is not None:
            agents.batch_size = agents.get("observation").shape[:-1]
    return data


def _warn_of_fresh_episodes(saved: Sequence[int], here: Sequence[int]) -> None:
    warnings.warn(
        f"the checkpoint has environments {list(saved)}, here are {list(here)}: "
        "their episodes start anew",
        stacklevel=3,
    )


class ReplayState:
    """A buffer as a component of a checkpoint, as large as what it holds and not as its capacity.

    TorchRL's own state of a buffer has the whole storage, and when it is loaded, its capacity
    silently becomes the saved one. Of its transforms, a running scale of rewards and the steps
    that wait for n-step returns are saved. TypeError if a sampler remembers more than tensors,
    numbers and the trees of prioritized replay.
    """

    def __init__(self, buffer: ReplayBuffer) -> None:
        self._buffer = buffer
        found = buffer.transform.modules()
        self._transforms = {_TRANSFORMS[type(t)]: t for t in found if type(t) in _TRANSFORMS}
        plain = Tensor | bool | int | float | str | None
        for value in tree_leaves(self._sampler_state()):
            if not isinstance(value, plain):  # which no one could load again
                raise TypeError(
                    "a buffer in a checkpoint must have a sampler whose state is tensors and "
                    f"numbers, got {type(value).__name__} of {type(buffer.sampler).__name__}"
                )

    def state_dict(self) -> dict[str, Any]:
        """Capacity, transitions in the order of the storage, and where the next one goes."""
        buffer = self._buffer
        state: dict[str, Any] = {
            "capacity": buffer.storage.max_size,
            "writer": buffer.writer.state_dict(),
            "sampler": self._sampler_state(),
        }
        for name, transform in self._transforms.items():  # a fixed scale is a setting
            state[name] = dict(transform.state_dict())
        if len(buffer) > 0:
            # A file of a slice would hold all of the storage that the slice is of.
            part = len(buffer) < buffer.storage.max_size
            held = buffer.storage[:]
            state["transitions"] = (held.clone() if part else held).to_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Fill the empty buffer, whose capacity must be the same."""
        buffer = self._buffer
        if state["capacity"] != buffer.storage.max_size:
            raise ValueError(
                f"the buffer has {state['capacity']} places in the checkpoint, it cannot have "
                f"{buffer.storage.max_size}"
            )
        if "transitions" in state:
            # An index has the batch size of a row, which is the seeds where there are several.
            rows = _restored(state["transitions"], state["transitions"]["index"].shape)
            buffer.storage.set(torch.arange(len(rows)), rows)
        buffer.writer.load_state_dict(state["writer"])
        sampler = dict(state["sampler"])
        # The trees are classes of C++, which no file holds: their leaves are put into new ones.
        for name, tree in self._trees().items():
            leaves, rows = sampler[name], torch.arange(len(buffer))
            if len(rows) > 0:
                tree[rows] = leaves
            sampler[name] = tree
        buffer.sampler.load_state_dict(sampler)
        for name, transform in self._transforms.items():
            if name in state:
                transform.load_state_dict(state[name])

    def _trees(self) -> dict[str, Any]:
        """Copies of the trees of priorities, by their names in the state of the sampler."""
        state = self._buffer.sampler.state_dict()
        prioritized = isinstance(self._buffer.sampler, PrioritizedSampler)
        return {name: tree for name, tree in state.items() if prioritized and "tree" in name}

    def _sampler_state(self) -> dict[str, Any]:
        """The state of the sampler, of trees the leaves that are in use."""
        rows = torch.arange(len(self._buffer))
        leaves = {name: torch.as_tensor(tree[rows]) for name, tree in self._trees().items()}
        return self._buffer.sampler.state_dict() | leaves


def make_reward_scaling(scale: float | Literal["auto"], env: EnvBase, gamma: float) -> Transform:
    """The transform of a buffer that scales rewards: by a number, or by what returns spread.

    "auto" is :class:`~torchrl_stein.envs.RunningRewardScaling` for data of the environment; a
    temperature is then in units of the scaled reward.
    """
    if scale == "auto":
        return RunningRewardScaling(env.batch_size, gamma=gamma).to(env.device or "cpu")
    return RewardScaling(0.0, scale, in_keys=[("next", "reward")])


class ReturnMeter:
    """Mean return of the training episodes that ended since the last reading, without a sync."""

    def __init__(self) -> None:
        self._totals = torch.zeros(2)

    def add(self, data: TensorDictBase) -> None:
        """Take in data; without "episode_reward" under "next" there is nothing to take."""
        total = data.get(("next", "episode_reward"), None)
        if total is None:
            return
        done = data.get(("next", "done"))
        part = torch.stack([(total * done).sum(), done.sum()])
        self._totals = self._totals.to(part.device) + part

    def read(self) -> float | None:
        """The mean, or None if no episode ended; and begin anew."""
        total, count = self._totals.tolist()
        self._totals.zero_()
        return total / count if count else None

    def state_dict(self) -> dict[str, Tensor]:
        """What was taken in since the last reading."""
        return {"totals": self._totals}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore it."""
        self._totals = state["totals"].clone()
