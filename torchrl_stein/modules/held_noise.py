"""Exploration that lasts: a sampler acts with the same noise for several steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.utils import ExplorationType, exploration_type

from torchrl_stein._checks import check_count, check_keys, check_number, check_type

from .samplers import SamplingActor

__all__ = ["HeldNoiseActor"]

_NOISE, _LEFT = "_held_noise", "_held_steps"


class HeldNoiseActor(TensorDictModuleBase):
    r"""A sampler whose noise xi stays the same for n steps, n drawn from a truncated zeta law.

    P(n) = n^-s / sum_{m=1}^{N} m^-s for n = 1 ... N, for each row by itself; then, or with a new
    episode, noise and n are drawn anew. For a while a row follows one of the policies
    s -> f(xi; s) that the sampler is made of.

    Noise ``[*B, noise_dim]`` and steps that are left ``[*B, 1]`` travel in the data, as
    "_held_noise" and "_held_steps": TorchRL's collectors and rollouts carry them from step to
    step, and collectors leave them out of what they return. With an exploration type other than
    RANDOM it acts as the sampler alone.

    Args:
        actor: a :class:`SamplingActor`, which it shares.
        max_steps: N, at least 1; with 1 it is the sampler.

    Keyword Args:
        exponent: s > 0.
        is_init_key: of the flag ``[*B, 1]`` that an episode begins, which TorchRL's ``InitTracker``
            writes.

    Raises:
        TypeError, ValueError: for another actor or numbers that are none or out of range.
        KeyError: at the call, if the data lack the flag or what the sampler reads.

    Source: the noise repetition of FlashSAC (arXiv:2604.04539), with ``max_steps=16``; the law is
    that of Dabney et al. 2021 (arXiv:2006.01782), who hold actions.

    Example:
        >>> from torchrl.envs import InitTracker, TransformedEnv
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> env = TransformedEnv(MultiGoalEnv(batch_size=(5,), seed=0), InitTracker())
        >>> actor = AmortizedSVGDActor(
        ...     torch.nn.Linear(4, 2), action_spec=env.action_spec_unbatched
        ... )
        >>> env.rollout(30, HeldNoiseActor(actor, 16), break_when_any_done=False)["action"].shape
        torch.Size([5, 30, 2])
    """

    boundaries: Tensor

    def __init__(
        self,
        actor: SamplingActor,
        max_steps: int,
        *,
        exponent: float = 2.0,
        is_init_key: NestedKey = "is_init",
    ) -> None:
        super().__init__()
        check_type("HeldNoiseActor", "a SamplingActor", SamplingActor, actor=actor)
        check_count("HeldNoiseActor", max_steps=max_steps)
        check_number("HeldNoiseActor", above=0, exponent=exponent)
        self.actor, self.is_init_key = actor, is_init_key
        self.in_keys = [*actor.in_keys, is_init_key]
        self.out_keys = [*actor.out_keys, _NOISE, _LEFT]
        weights = torch.arange(1, max_steps + 1, dtype=torch.float64) ** -exponent
        boundaries = (weights.cumsum(0) / weights.sum())[:-1].to(actor.low)
        self.register_buffer("boundaries", boundaries, persistent=False)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write one action per state, ``[*B, A]``, and what is to be remembered."""
        if exploration_type() not in (ExplorationType.RANDOM, None):
            return self.actor(tensordict)
        check_keys("HeldNoiseActor", tensordict, [self.is_init_key])
        begins = tensordict.get(self.is_init_key)
        noise = self.actor.draw_noise(tensordict, 1).squeeze(-2)
        steps = self.draw_steps(begins.shape)
        left = tensordict.get(_LEFT, None)
        if left is not None:
            redrawn = begins | (left == 0)
            noise = torch.where(redrawn, noise, tensordict.get(_NOISE))
            steps = torch.where(redrawn, steps, left)
        tensordict.set(_NOISE, noise).set(_LEFT, steps - 1)
        u = self.actor.unsquashed(tensordict, noise.unsqueeze(-2))
        action = self.actor.squash(u).squeeze(-2).to(self.actor.action_dtype)
        return tensordict.set(self.actor.out_keys[0], action)

    def draw_steps(self, shape: Sequence[int]) -> Tensor:
        """Holding times n, int64, of any shape."""
        unit = torch.rand(tuple(shape), device=self.boundaries.device, dtype=self.boundaries.dtype)
        return torch.searchsorted(self.boundaries, unit, right=True) + 1
