"""Any world of pure functions as a batched TorchRL environment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase, FrameSkipTransform, TransformedEnv
from torchrl.envs.transforms import AutoResetTransform, Transform

from torchrl_stein._checks import check_count, check_keys
from torchrl_stein._torchrl import unmoved_rows

from .world import World, check_world


class BatchedEnv(EnvBase):
    """A batch of independent copies of one world as a TorchRL environment.

    Reads "action" [*B, A] in [-1, 1] and writes "observation" [*B, O], "state" [*B, S], "reward"
    [*B, 1], and "terminated", "truncated", "done" [*B, 1] (bool). The world terminates; the
    horizon only truncates. The object holds no state of the episodes: it travels in the tensordict,
    with the steps taken as "elapsed_steps" [*B, 1] (int64), which leaves "step_count" to TorchRL's
    ``StepCounter``. Numbers are float32. ``step`` never makes the host wait for the device; a reset
    waits once, where TorchRL looks at the flags.

    A world of several agents, which has ``num_agents`` = n, is laid out as TorchRL's multi-agent
    environments are: ("agents", "action") [*B, n, A] and ("agents", "observation") [*B, n, O], with
    one reward for all.

    TorchRL's transforms that step or reset an environment themselves presume that it remembers
    where it is: ``FrameSkipTransform`` would repeat one step, and ``auto_reset=True`` would never
    reset. Both are refused at the first reset; ``ActionRepeatWorld`` skips frames. Around a
    ``ParallelEnv`` of these worlds they cannot be seen, and must not be used.

    Args:
        world: the dynamics, see ``World``.
        batch_size: shape B of the batch of independent worlds, such as [n, E]; () is one world.
        device: where tensors live; None means the CPU, left undeclared as TorchRL does.
        horizon: number of steps after which an episode is truncated.
        seed: seed of the generator that draws the starts; None takes one from torch's global
            generator, so that ``torch.manual_seed`` governs it.

    Example:
        >>> from torchrl_stein.envs import CartpoleWorld
        >>> env = BatchedEnv(CartpoleWorld(pole_length=2.0), (16, 4), horizon=500, seed=0)
        >>> env.rollout(10, break_when_any_done=False)["next", "reward"].shape
        torch.Size([16, 4, 10, 1])
    """

    state_key = "state"  # or "observation", for a world that shows all of its state

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
        super().__init__(device=device, batch_size=as_batch_size(owner, batch_size))
        self.world = world
        self.num_agents: int | None = getattr(world, "num_agents", None)
        self.horizon = horizon
        self._make_specs()
        self.set_seed(seed)

    def render(self, tensordict: TensorDictBase) -> Tensor:
        """Draw the worlds of a rollout or of one row of it: RGB images, uint8 [..., H, W, 3].

        Raises:
            KeyError: if the tensordict does not hold the state.
            NotImplementedError: if the world cannot draw itself.
        """
        render = getattr(self.world, "render", None)
        if render is None:
            raise NotImplementedError(f"{type(self.world).__name__} has no render(state).")
        check_keys(type(self).__name__, tensordict, [self.state_key])
        return render(tensordict.get(self.state_key))

    def to(self, device: torch.device | str | int) -> Self:
        """Move the environment; its generator starts again from the last seed."""
        super().to(device)
        self._set_seed(self._seed)  # a torch.Generator cannot change device
        return self

    @property
    def generator(self) -> torch.Generator:
        """What draws the starts: all that the environment remembers between steps."""
        return self._generator

    def draw_starts(self, shape: Sequence[int]) -> Tensor:
        """Draw start states [*shape, S] as a reset does, from the environment's generator."""
        return self.world.sample_state(shape, generator=self._generator, device=self.device)

    @property
    def _acting(self) -> torch.Size:
        """[*B], or [*B, n] where n agents act."""
        agents = () if self.num_agents is None else (self.num_agents,)
        return torch.Size((*self.batch_size, *agents))

    def _make_observation_leaf(self) -> TensorSpec:
        shape = (*self._acting, self.world.observation_dim)
        return Unbounded(shape=shape, device=self.device, dtype=torch.float32)

    def _make_action_leaf(self) -> TensorSpec:
        shape = (*self._acting, self.world.action_dim)
        return Bounded(-1.0, 1.0, shape=shape, device=self.device, dtype=torch.float32)

    def _unbounded(self, size: int) -> TensorSpec:
        return Unbounded(shape=(*self.batch_size, size), device=self.device, dtype=torch.float32)

    def _of_agents(self, **leaf: TensorSpec) -> dict[str, TensorSpec]:
        """Under "agents", where there are several."""
        if self.num_agents is None:
            return dict(leaf)
        return {"agents": Composite(leaf, shape=self._acting, device=self.device)}

    def _make_specs(self) -> None:
        batch, device = self.batch_size, self.device
        elapsed = Bounded(0, self.horizon, shape=(*batch, 1), device=device, dtype=torch.int64)
        leaves = self._of_agents(observation=self._make_observation_leaf())
        leaves["elapsed_steps"] = elapsed
        if self.state_key not in leaves:
            leaves[self.state_key] = self._unbounded(self.world.state_dim)
        self.observation_spec = Composite(leaves, shape=batch, device=device)
        # A step reads back what the last one wrote, which TorchRL carries only if it is told.
        carried = {key: leaves[key].clone() for key in (self.state_key, "elapsed_steps")}
        self.state_spec = Composite(carried, shape=batch, device=device)
        self.full_action_spec = Composite(
            self._of_agents(action=self._make_action_leaf()), shape=batch, device=device
        )
        self.reward_spec = self._unbounded(1)
        flag = Binary(1, shape=(*batch, 1), device=device, dtype=torch.bool)
        self.done_spec = Composite(
            done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=batch, device=device
        )

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        _refuse_stateful_transforms(self)
        # All rows get a start: EnvBase keeps only those that a "_reset" mask names.
        elapsed = torch.zeros((*self.batch_size, 1), dtype=torch.int64, device=self.device)
        return self._pack(self.draw_starts(self.batch_size), elapsed, elapsed.bool())

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        action = tensordict.get("action" if self.num_agents is None else ("agents", "action"))
        state, reward, terminated = self.world.step(tensordict.get(self.state_key), action)
        elapsed = tensordict.get("elapsed_steps") + 1
        following = self._pack(state, elapsed, terminated, reward=reward)
        # A transform that lets some rows wait says so here and leaves them to the environment.
        moving = tensordict.get("_step", None)
        if moving is None:
            return following
        return following.where(moving, unmoved_rows(self, tensordict))

    def _pack(
        self, state: Tensor, elapsed: Tensor, terminated: Tensor, **reward: Tensor
    ) -> TensorDictBase:
        truncated = elapsed >= self.horizon
        # The state comes first: where a world shows all of it, both are one entry.
        entries: dict[str, Any] = {self.state_key: state}
        seen = {"observation": self.world.observe(state)}
        if self.num_agents is None:
            entries |= seen
        else:
            entries["agents"] = TensorDict(seen, batch_size=self._acting, device=self.device)
        entries |= {"elapsed_steps": elapsed, **reward, "terminated": terminated}
        entries |= {"truncated": truncated, "done": terminated | truncated}
        return TensorDict(entries, batch_size=elapsed.shape[:-1], device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        if seed is None:
            seed = int(torch.randint(2**62, ()).item())
        check_count(type(self).__name__, at_least=0, at_most=2**64 - 1, seed=seed)
        self._seed = int(seed)
        # Not from the seed itself: noise that is drawn after torch.manual_seed(seed) would equal
        # the starts.
        own = int(np.random.SeedSequence(self._seed).generate_state(1, np.uint64)[0])
        self._generator = torch.Generator(device=self.device or "cpu").manual_seed(own)


class ClassicEnv(BatchedEnv):
    """A world made of its constants, and episodes of 500 steps, as those of rllab's tasks."""

    make_world: ClassVar[Callable[..., World]]

    def __init__(
        self,
        batch_size: Sequence[int] = (),
        device: torch.device | str | int | None = None,
        *,
        horizon: int = 500,
        seed: int | None = None,
        **world: Any,
    ) -> None:
        made = type(self).make_world(**world)
        super().__init__(made, batch_size, device, horizon=horizon, seed=seed)


def as_batch_size(owner: str, batch_size: Sequence[int]) -> torch.Size:
    """The batch size that an environment is given; TypeError or ValueError if it is none."""
    if not isinstance(batch_size, Sequence):
        raise TypeError(
            f"{owner}: batch_size must be a sequence of integers >= 1, got {batch_size!r}"
        )
    for size in batch_size:
        check_count(owner, batch_size=size)
    return torch.Size(batch_size)


def _refuse_stateful_transforms(env: EnvBase) -> None:
    """Refuse the transforms around an environment that presume that it remembers where it is.

    An environment is not told what stands around it. But whoever resets it is on the stack, even
    where the environment is compiled, and a reset is rare enough to look.
    """
    if torch.compiler.is_compiling():
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_reset":
            caller = frame.f_locals.get("self")
            if isinstance(caller, TransformedEnv):
                for transform in caller.transform.modules():
                    _refuse(type(env).__name__, transform)
        frame = frame.f_back


def _refuse(owner: str, transform: Transform) -> None:
    if isinstance(transform, FrameSkipTransform) and transform.frame_skip > 1:
        raise ValueError(
            f"{owner}: transforms must not include FrameSkipTransform, which repeats one step of a "
            f"world whose state travels in the tensordict; use BatchedEnv(ActionRepeatWorld(world, "
            f"{transform.frame_skip}), ...)"
        )
    if isinstance(transform, AutoResetTransform):
        raise ValueError(
            f"{owner}: transforms must not include AutoResetTransform (auto_reset=True), this "
            "environment does not reset itself; rollout and collectors reset it"
        )
