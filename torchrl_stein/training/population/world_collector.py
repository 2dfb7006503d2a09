"""Collecting data from our batched worlds in one fused loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.modules import IndependentNormal, ProbabilisticActor

from torchrl_stein.envs import BatchedEnv
from torchrl_stein.modules import ParticleModule

from ..bookkeeping.collector_state import warn_of_fresh_episodes

__all__ = ["WorldCollector"]


class WorldCollector:
    """Drop-in for TorchRL's Collector, for a batched world and a Gaussian policy; faster.

    Policy, dynamics and reset of finished rows are one function of tensors per step, nothing is
    looked up in tensordicts, and one tensordict is made at the end. Episodes go on from one
    batch of data to the next.

    Each batch ``[*B, T]`` holds "observation", "elapsed_steps", "loc", "scale", "action",
    "action_log_prob" and under "next" "observation", "elapsed_steps", "reward", "done",
    "terminated", "truncated" and "episode_reward" (the undiscounted return so far, as TorchRL's
    RewardSum writes it). With a population on rows ``[n, ...]`` also "particle", i in row i, by
    which losses notice that rows were shuffled.

    Args:
        env: a batched world, batch size ``[*B]``.
        policy: an actor that reads "observation" and writes "loc" and "scale" of an
            IndependentNormal.
        frames_per_batch: environment steps per batch of data, a multiple of the number of rows.
        total_frames: environment steps in all.
        compiled: whether ``torch.compile`` fuses each step (tens of seconds at the start).

    Raises:
        TypeError: if the environment or the policy is not of that kind.
        ValueError: if ``frames_per_batch`` is not a positive multiple of the number of rows, or
            the policy reads anything but "observation".

    Example:
        >>> from torchrl_stein.envs import CartpoleEnv
        >>> from torchrl_stein.training import make_gaussian_actor
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
        if not isinstance(env, BatchedEnv):
            raise TypeError(
                "WorldCollector: env must be a BatchedEnv without transforms, use TorchRL's "
                f"Collector for others; got {type(env).__name__}"
            )
        _check_policy(policy)
        rows = env.batch_size.numel()
        if frames_per_batch < 1 or frames_per_batch % rows:
            raise ValueError(
                f"WorldCollector: frames_per_batch must be a positive multiple of the {rows} rows "
                f"of the environment, got {frames_per_batch}"
            )
        self.env = env
        self.policy = policy
        self.steps = frames_per_batch // rows
        self.batches = -(-total_frames // frames_per_batch)
        self._network = policy[0].module
        populations = [m for m in policy.modules() if isinstance(m, ParticleModule)]
        sizes = [population.num_particles for population in populations]
        self._rows_are_particles = sizes == list(env.batch_size[:1])
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
        """Go on in the middle of those episodes.

        Args:
            state: of a collector with as many rows; with another number the episodes start anew,
                with a warning.
        """
        if state["state"].shape != self._state.shape:
            warn_of_fresh_episodes(state["state"].shape[:-1], self.env.batch_size)
            return
        self._state, self._elapsed = state["state"], state["elapsed_steps"]
        self._return = state["episode_reward"]
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
        return self._as_tensordict(columns)

    @torch.no_grad()
    def mean_action_returns(self, starts: Tensor, max_steps: int) -> Tensor:
        """Return of one episode from each start, acting with the mean; as fast as collecting.

        Training data go on where they were.

        Args:
            starts: states of the world ``[n, M, S]`` for a batch ``[n, E]`` of rows; any M.
            max_steps: an episode still running then counts with what it has.

        Returns:
            Tensor: undiscounted returns ``[n, M]``.

        Raises:
            ValueError: if ``starts`` has another n, or ``max_steps`` < 1.
        """
        shape = self.env.batch_size
        if starts.ndim != 3 or len(shape) != 2 or starts.shape[0] != shape[0]:
            raise ValueError(
                f"WorldCollector: starts must be [{shape[0]}, M, S] for a batch of rows "
                f"{list(shape)}, got {list(starts.shape)}"
            )
        if max_steps < 1:
            raise ValueError(f"WorldCollector: max_steps must be >= 1, got {max_steps}")
        count, rows = starts.shape[1], shape[1]
        # Rows of the shape of the training data, so that nothing is compiled anew.
        index = torch.arange(-(-count // rows) * rows, device=starts.device) % count
        parts = starts[:, index].split(rows, 1)
        returns = [self._first_returns(part.contiguous(), max_steps) for part in parts]
        return torch.cat(returns, 1)[:, :count]

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
        return carried, (
            observation,
            elapsed,
            loc,
            scale,
            action,
            world.observe(following),
            steps,
            reward,
            terminated,
            truncated,
            done,
            total,
        )

    def _as_tensordict(self, columns: list[Tensor]) -> TensorDict:
        names = ("observation", "elapsed_steps", "loc", "scale", "action")
        next_names = (
            "observation",
            "elapsed_steps",
            "reward",
            "terminated",
            "truncated",
            "done",
            "episode_reward",
        )
        batch = columns[0].shape[:-1]
        data = TensorDict(dict(zip(names, columns, strict=False)), batch)
        following = dict(zip(next_names, columns[len(names) :], strict=True))
        data["next"] = TensorDict(following, batch)
        distribution = IndependentNormal(data["loc"], data["scale"])
        data["action_log_prob"] = distribution.log_prob(data["action"])
        if self._rows_are_particles:
            rows = torch.arange(batch[0], device=self.env.device)
            data["particle"] = rows.view(-1, *(1,) * len(batch)).repeat(1, *batch[1:], 1)
        return data


def _check_policy(policy: ProbabilisticActor) -> None:
    is_actor = isinstance(policy, ProbabilisticActor)
    kind = policy[-1].distribution_class if is_actor else type(policy)
    if kind is not IndependentNormal:
        raise TypeError(
            "WorldCollector: policy must be a ProbabilisticActor with an IndependentNormal, use "
            f"TorchRL's Collector for others; got {kind.__name__}"
        )
    if list(policy.in_keys) != ["observation"]:
        raise ValueError(
            f"WorldCollector: policy must read 'observation' alone, got {list(policy.in_keys)}"
        )
