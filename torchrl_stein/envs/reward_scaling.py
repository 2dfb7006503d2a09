"""Rewards in one unit for every task: divided by the running spread of the discounted return."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import Transform

from torchrl_stein._checks import check_columns, check_count, check_finite, check_keys, check_number


class RunningRewardScaling(Transform):
    r"""A replay buffer's transform: rewards divided by the running scale of the return.

    What is sampled has r / max(sqrt(var(G) + eps), max|G| / bound), with the variance and the
    largest size of all G_t = r_t + gamma G_{t-1} that were stored so far, G = 0 before an episode.

    The buffer holds rewards as they were, and a whole batch is divided by the scale of now.
    Scaled when they are collected, the rewards of one buffer would have as many units as the
    scale had values, and no Q-function fits all of them. A temperature is in units of the scaled
    reward, so that one number suits tasks of any reward: (alpha, r) and (c alpha, c r) are the
    same problem.

    Args:
        batch_size: of the environment, ``[*B]``; ``[]`` for a single one.

    Keyword Args:
        gamma: discount of G, in [0, 1].
        bound: of |G| / scale; > 0. It is what keeps rare large rewards small.
        eps: added to the variance; > 0.
        reward_key: of the reward, ``[..., 1]``.
        done_key: of the end of an episode, whatever ended it, bool ``[..., 1]``.

    Every row's stretches are stored in their order, each once: what a collector gives,
    ``[*B]`` or ``[*B, T]``, also flattened, ``[B * T]``. The state is in float64 and in
    ``state_dict``, with G of the running episodes; for another number of rows these begin anew.
    Nothing waits for a device, which should be that of the data: ``.to(device)``.

    Raises:
        TypeError, ValueError: for arguments of another kind or out of range, data that are not
            whole steps of all rows, an environment in the place of a buffer, and, on a CPU,
            rewards that are not finite.
        KeyError: if the data lack the reward or, when they are stored, the end.

    Source: SimbaV2 (Lee et al. 2025, arXiv:2502.15280), with ``bound=5``.

    Example:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
        >>> scaling = RunningRewardScaling([2], gamma=0.5)
        >>> buffer = TensorDictReplayBuffer(
        ...     storage=LazyTensorStorage(100), transform=scaling, batch_size=4
        ... )
        >>> ends = torch.zeros(2, 1, dtype=torch.bool)
        >>> for rewards in ([4.0, 4.0], [2.0, 4.0]):  # G = 4 and 4, then 2 + 4/2 and 4 + 4/2
        ...     reward = torch.tensor(rewards).unsqueeze(-1)
        ...     step = TensorDict({"reward": reward, "done": torch.zeros(2, 1).bool()}, [2])
        ...     _ = buffer.extend(TensorDict({"next": step}, [2]))
        >>> round(scaling.scale.item(), 3)  # 6 / 5, more than the standard deviation
        1.2
    """

    discounted_returns: Tensor
    count: Tensor
    mean: Tensor
    squares: Tensor
    largest: Tensor

    def __init__(
        self,
        batch_size: Sequence[int],
        *,
        gamma: float = 0.99,
        bound: float = 5.0,
        eps: float = 1e-8,
        reward_key: NestedKey = ("next", "reward"),
        done_key: NestedKey = ("next", "done"),
    ) -> None:
        super().__init__(in_keys=[reward_key])
        for size in batch_size:
            check_count("RunningRewardScaling", batch_size=size)
        check_number("RunningRewardScaling", at_least=0, at_most=1, gamma=gamma)
        check_number("RunningRewardScaling", above=0, bound=bound, eps=eps)
        self.gamma, self.bound, self.eps = gamma, bound, eps
        self.reward_key, self.done_key = reward_key, done_key
        rows = torch.zeros(tuple(batch_size), dtype=torch.float64)
        self.register_buffer("discounted_returns", rows, persistent=False)
        for name in ("count", "mean", "squares", "largest"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @property
    def scale(self) -> Tensor:
        """What rewards are divided by, ``[]``."""
        spread = (self.squares / self.count.clamp_min(1) + self.eps).sqrt()
        return torch.maximum(spread, self.largest / self.bound)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Scale the rewards of a sampled batch."""
        check_keys("RunningRewardScaling", tensordict, [self.reward_key])
        reward = tensordict.get(self.reward_key)
        return tensordict.set(self.reward_key, reward / self.scale.to(reward))

    @torch.no_grad()
    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Look at data on their way into the buffer, where they stay what they are."""
        owner, keys = "RunningRewardScaling", [self.reward_key, self.done_key]
        check_keys(owner, tensordict, keys)
        check_columns(owner, tensordict, keys)
        reward, done = (tensordict.get(key) for key in keys)
        check_finite(owner, {self.reward_key: reward})
        rows = self.discounted_returns.shape
        if reward.numel() % rows.numel():
            raise ValueError(
                f"{owner}: data must be whole steps of batch_size {list(rows)}, got "
                f"{reward.numel()} transitions"
            )
        rewards = reward.reshape(*rows, -1).to(self.discounted_returns)
        ends = done.reshape(*rows, -1).to(self.discounted_returns.device)
        returns, running = [], self.discounted_returns
        for now, end in zip(rewards.unbind(-1), ends.unbind(-1), strict=True):
            returns.append(now + self.gamma * running)
            running = torch.where(end, 0.0, returns[-1])
        if returns:
            self.discounted_returns.copy_(running)
            self._merge(torch.stack(returns))
        return tensordict

    def _merge(self, values: Tensor) -> None:
        """Mean and sum of squared deviations of more values, by Chan et al. 1979."""
        mean, change = values.mean(), values.mean() - self.mean
        total = self.count + values.numel()
        self.squares += (values - mean).square().sum()
        self.squares += change.square() * self.count * values.numel() / total
        self.mean += change * values.numel() / total
        self.count.copy_(total)
        self.largest.copy_(torch.maximum(self.largest, values.abs().amax()))

    def get_extra_state(self) -> Tensor:
        """G of the running episodes, ``[*B]``."""
        return self.discounted_returns.clone()

    def set_extra_state(self, state: Tensor) -> None:
        """G of the running episodes; with another number of rows they begin anew."""
        if state.shape == self.discounted_returns.shape:
            self.discounted_returns.copy_(state)
        else:
            self.discounted_returns.zero_()

    def transform_output_spec(self, output_spec: object) -> object:
        """Refused: an environment would store rewards in many units."""
        raise TypeError(
            "RunningRewardScaling: must be the transform of a replay buffer, got an environment"
        )
