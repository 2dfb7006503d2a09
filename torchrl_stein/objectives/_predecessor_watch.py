"""Says once that the policy a trust region pulls back to never moves, or is the present one."""

from __future__ import annotations

import warnings

import torch
from tensordict import TensorDictBase
from torch import Tensor

__all__ = ["PredecessorWatch"]

# Calls at which both policies are compared: few, since each look waits for the device, and at
# uneven distances, so that no updater that copies at every kth call can meet all of them.
_LOOKS = (8, 13, 21, 34, 55)
# Calls without a change of the previous policy before the warning. Off-policy, HardUpdate may wait
# for 1000 of them; of populations whole runs have fewer.
_PATIENCE = {"action": 10_000, "parameter": 100}


class PredecessorWatch:
    """Counts the calls of a trust region and looks at both policies at a few of them.

    Args:
        space: of the particles, "action" or "parameter"; populations are called less often.
    """

    def __init__(self, space: str) -> None:
        self.patience = _PATIENCE[space]
        self.calls = 0
        self.always_equal = True
        self.first: tuple[Tensor, Tensor] | None = None  # present and previous at the first call

    def look(self, present: TensorDictBase, previous: TensorDictBase, weight: Tensor) -> None:
        """Count one call; warn if the last look shows that the updater is missing or misplaced.

        Args:
            present: parameters of the policy.
            previous: those of its predecessor.
            weight: of the trust region; at 0 it does not matter where the predecessor is.
        """
        self.calls += 1
        if self.calls not in (1, *_LOOKS, self.patience):
            return
        if weight.is_cuda and torch.cuda.is_current_stream_capturing():  # nobody can look then
            self.always_equal = False
            return
        now, before = _fingerprint(present), _fingerprint(previous)
        if self.first is None:
            self.first = now, before
            return
        first_now, first_before = (seen.to(now.device) for seen in self.first)
        if self.calls in _LOOKS:
            self.always_equal = self.always_equal and now.equal(before) and bool(weight > 0)
            has_moved = not now.equal(first_now)
            if self.always_equal and has_moved and self.calls == _LOOKS[-1]:
                warnings.warn(
                    "WassersteinTrustRegionLoss: the previous policy was equal to the present one "
                    f"at each of {len(_LOOKS)} looks during {self.calls} calls, so the cost is 0 "
                    "and nothing is held; call step() of the SoftUpdate or HardUpdate between "
                    "backward() and the optimizer's step, not after it",
                    stacklevel=4,
                )
        elif before.equal(first_before) and not before.equal(now):
            warnings.warn(
                f"WassersteinTrustRegionLoss: the previous policy stood still for {self.calls} "
                "calls, so the policy is held near where it began; call step() of a SoftUpdate or "
                "HardUpdate made for this loss",
                stacklevel=4,
            )


@torch.no_grad()
def _fingerprint(params: TensorDictBase) -> Tensor:
    leaves = params.values(True, True)
    return torch.stack([leaf.double().sum() for leaf in leaves if leaf.is_floating_point()])
