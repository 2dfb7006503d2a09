"""Any world of pure functions as a batched TorchRL environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from torchrl_stein._checks import check_count, check_keys
from torchrl_stein._torchrl import unmoved_rows
from torchrl_stein.envs.stateless import refuse_stateful_transforms
from torchrl_stein.envs.world import World, check_world


class BatchedEnv(EnvBase):
    """TorchRL environment of a batch of independent copies of one world.

    Reads "action" [*B, A] in [-1, 1] and writes "observation" [*B, O], "state" [*B, S], "reward"
    [*B, 1], and "terminated", "truncated", "done" [*B, 1] (bool). The world terminates; the
    horizon only truncates. The environment object holds no state of the episodes: the state and
    the steps taken so far travel in the tensordict, these as "elapsed_steps" [*B, 1] (int64), a
    name of its own so that TorchRL's ``StepCounter`` keeps "step_count". Floating-point entries
    are float32. ``step`` never makes the host wait for the device; of a reset, only TorchRL's own
    look at the flags does.

    TorchRL's transforms that step or reset an environment behind its back presume that it remembers
    where it is: ``FrameSkipTransform`` would repeat one step, and ``auto_reset=True`` would never
    reset. Both are refused at the first reset; ``ActionRepeatWorld`` skips frames. Around a
    ``ParallelEnv`` of these worlds nobody can see them, and they must not be used.

    Args:
        world: the dynamics, see ``World``.
        batch_size: shape B of the batch of independent worlds, of integers >= 1; () is one world.
        device: where tensors live; None means the CPU, left undeclared as TorchRL does.
        horizon: number of steps after which an episode is truncated.
        seed: seed of the generator that draws the starts; None takes one from torch's global
            generator, so that ``torch.manual_seed`` governs it.

    Attributes:
        world: the world.
        horizon: the horizon.
        state_key: where the state travels; "state", or "observation" for a world that shows all
            of its state.

    Raises:
        TypeError: if ``world`` is no ``World``, or a count or seed no integer.
        ValueError: if ``horizon`` or a size of the batch is below 1, or ``seed`` is negative.

    Example:
        >>> from torchrl_stein.envs import CartpoleWorld
        >>> env = BatchedEnv(CartpoleWorld(pole_length=2.0), (16, 4), horizon=500, seed=0)
        >>> env.rollout(10, break_when_any_done=False)["next", "reward"].shape
        torch.Size([16, 4, 10, 1])
    """

    state_key = "state"

    def __init__(
        self,
        world: World,
        batch_size: Sequence[int] = (),
        device: torch.device | str | int | None = None,
        *,
        horizon: int,
        seed: int | None = None,
    ) -> None:
        owner = type(self).__name__
        check_world(owner, world)
        check_count(owner, horizon=horizon)
        check_count(owner, at_most=torch.iinfo(torch.int64).max, horizon=horizon)
        super().__init__(device=device, batch_size=_as_batch_size(owner, batch_size))
        self.world = world
        self.horizon = horizon
        self._make_specs()
        self.set_seed(seed)

    def render(self, tensordict: TensorDictBase) -> Tensor:
        """Draws the worlds of a tensordict, such as a rollout or one row of it.

        Args:
            tensordict: of any batch size [...], with the entry ``state_key`` [..., S].

        Returns:
            RGB images, uint8 [..., H, W, 3].

        Raises:
            KeyError: if the tensordict has no such entry.
            NotImplementedError: if the world cannot draw itself.

        Example:
            >>> from torchrl_stein.envs import CartpoleEnv
            >>> env = CartpoleEnv((3,), seed=0)
            >>> env.render(env.rollout(5, break_when_any_done=False)).shape[:2]
            torch.Size([3, 5])
        """
        render = getattr(self.world, "render", None)
        if render is None:
            raise NotImplementedError(f"{type(self.world).__name__} has no render(state).")
        check_keys(type(self).__name__, tensordict, [self.state_key])
        return render(tensordict.get(self.state_key))

    def to(self, device: torch.device | str | int) -> Self:
        """Moves the environment; its generator starts again from the last seed.

        Args:
            device: where tensors shall live.

        Returns:
            The environment itself.

        Example:
            >>> from torchrl_stein.envs import CartpoleEnv
            >>> CartpoleEnv().to("cpu").device
            device(type='cpu')
        """
        super().to(device)
        self._set_seed(self._seed)  # why: a torch.Generator cannot change device
        return self

    @property
    def generator(self) -> torch.Generator:
        """Draws the starts: all that the environment remembers from one step to the next."""
        return self._generator

    def draw_starts(self, shape: Sequence[int]) -> Tensor:
        """Draws start states as a reset does, from the environment's generator.

        Args:
            shape: leading dimensions of the result; any.

        Returns:
            Start states, [*shape, S].

        Example:
            >>> from torchrl_stein.envs import CartpoleEnv
            >>> CartpoleEnv((3,), seed=0).draw_starts((10, 3)).shape
            torch.Size([10, 3, 7])
        """
        return self.world.sample_state(shape, generator=self._generator, device=self.device)

    def _make_observation_leaf(self) -> TensorSpec:
        return self._unbounded(self.world.observation_dim)

    def _unbounded(self, size: int) -> TensorSpec:
        return Unbounded(shape=(*self.batch_size, size), device=self.device, dtype=torch.float32)

    def _make_specs(self) -> None:
        batch, device = self.batch_size, self.device
        elapsed = Bounded(0, self.horizon, shape=(*batch, 1), device=device, dtype=torch.int64)
        leaves = {"observation": self._make_observation_leaf(), "elapsed_steps": elapsed}
        if self.state_key not in leaves:
            leaves[self.state_key] = self._unbounded(self.world.state_dim)
        self.observation_spec = Composite(leaves, shape=batch, device=device)
        # why: a step reads back what the last one wrote, which TorchRL must know of to carry it
        carried = {key: leaves[key].clone() for key in (self.state_key, "elapsed_steps")}
        self.state_spec = Composite(carried, shape=batch, device=device)
        self.action_spec = Bounded(
            -1.0, 1.0, shape=(*batch, self.world.action_dim), device=device, dtype=torch.float32
        )
        self.reward_spec = self._unbounded(1)
        flag = Binary(1, shape=(*batch, 1), device=device, dtype=torch.bool)
        self.done_spec = Composite(
            done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=batch, device=device
        )

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        refuse_stateful_transforms(self)
        # why all rows: EnvBase keeps only those that the "_reset" mask of a partial reset names
        shape = self.batch_size
        state = self.draw_starts(shape)
        never = torch.zeros((*shape, 1), dtype=torch.bool, device=self.device)
        return TensorDict(
            {
                # why before "observation": for a world that shows all it is the same entry
                self.state_key: state,
                "observation": self.world.observe(state),
                "elapsed_steps": torch.zeros_like(never, dtype=torch.int64),
                "done": never,
                "terminated": never.clone(),
                "truncated": never.clone(),
            },
            batch_size=shape,
            device=self.device,
        )

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        state, reward, terminated = self.world.step(
            tensordict.get(self.state_key), tensordict.get("action")
        )
        elapsed = tensordict.get("elapsed_steps") + 1
        truncated = elapsed >= self.horizon
        following = TensorDict(
            {
                self.state_key: state,
                "observation": self.world.observe(state),
                "elapsed_steps": elapsed,
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "done": terminated | truncated,
            },
            batch_size=tensordict.batch_size,
            device=self.device,
        )
        # why: a transform that lets some rows wait says so here and trusts the environment with it
        moving = tensordict.get("_step", None)
        if moving is None:
            return following
        return following.where(moving, unmoved_rows(self, tensordict))

    def _set_seed(self, seed: int | None) -> None:
        if seed is None:
            seed = int(torch.randint(2**62, ()).item())
        check_count(type(self).__name__, at_least=0, at_most=2**64 - 1, seed=seed)
        self._seed = int(seed)
        self._generator = torch.Generator(device=self.device or "cpu").manual_seed(self._seed)


def _as_batch_size(owner: str, batch_size: Sequence[int]) -> torch.Size:
    if not isinstance(batch_size, Sequence):
        raise TypeError(
            f"{owner}: batch_size must be a sequence of integers >= 1, got {batch_size!r}"
        )
    for size in batch_size:
        check_count(owner, batch_size=size)
    return torch.Size(batch_size)
