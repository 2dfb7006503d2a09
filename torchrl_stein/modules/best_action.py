"""A sampler that looks before it acts: the best of its actions by a Q-function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl_stein._checks import check_count, check_type

from .samplers import SamplingActor

__all__ = ["BestActionActor"]


class BestActionActor(TensorDictModuleBase):
    """Of K actions of a sampler, the one with the largest Q: for evaluation.

    It is greedier than the sampler, and the more so the larger K: its return says what is lost by
    acting at random, and is to be shown beside the sampler's own, not in its place. It draws K
    actions whatever the exploration type.

    Args:
        actor: a :class:`SamplingActor`, which it shares.
        qvalue: ``(states, actions [*B, K, A]) -> Q [*B, K]``, such as ``loss.qvalue`` of
            SoftQLoss and SoftQVLoss, which is the minimum over the ensemble.
        num_action_samples: K >= 1.

    Raises:
        TypeError, ValueError: for another actor, a ``qvalue`` that cannot be called or, at the
            call, returns another shape, or K that is no such number.

    Example:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> box = Bounded(-1.0, 1.0, shape=(2,))
        >>> actor = AmortizedSVGDActor(torch.nn.Linear(3 + 2, 2), action_spec=box)
        >>> best = BestActionActor(actor, lambda states, actions: -actions.square().sum(-1), 16)
        >>> best(TensorDict({"observation": torch.zeros(5, 3)}, [5]))["action"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        actor: SamplingActor,
        qvalue: Callable[[TensorDictBase, Tensor], Tensor],
        num_action_samples: int,
    ) -> None:
        super().__init__()
        check_type("BestActionActor", "a SamplingActor", SamplingActor, actor=actor)
        expected = "a function of states and actions, such as loss.qvalue"
        check_type("BestActionActor", expected, Callable, qvalue=qvalue)
        check_count("BestActionActor", num_action_samples=num_action_samples)
        self.actor, self.num_action_samples = actor, num_action_samples
        # In a tuple, as a module would be registered here, whose parameters are not the policy's.
        self._qvalue = (qvalue,)
        self.in_keys, self.out_keys = list(actor.in_keys), list(actor.out_keys)

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write one action per state, ``[*B, A]``."""
        actions = self.actor.sample(tensordict, self.num_action_samples)
        q = self._qvalue[0](tensordict, actions)
        if q.shape != actions.shape[:-1]:
            raise ValueError(
                f"BestActionActor: qvalue must return [*B, K] = {list(actions.shape[:-1])}, got "
                f"{list(q.shape)}"
            )
        index = q.argmax(-1, keepdim=True).unsqueeze(-1)  # [*B, 1, 1]
        best = actions.take_along_dim(index, -2).squeeze(-2)
        return tensordict.set(self.out_keys[0], best.to(self.actor.action_dtype))
