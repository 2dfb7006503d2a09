"""Temperatures that a loss learns: they hold the policy's entropy, or its diversity, at a target.

Both minimise ``loss_alpha`` = log alpha sg(measure(s) - target), TorchRL's convention: where the
policy is less spread than its target, alpha grows.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_stein._checks import check_number, check_numbers
from torchrl_stein.functional import log_distance
from torchrl_stein.modules import SamplingActor

__all__ = ["EntropyTarget", "LearntTemperature", "LogDistanceTarget"]


class LearntTemperature:
    """What both have in common; use one of the two.

    Args:
        alpha_init: first value of alpha > 0, in units of the return. A tensor that expands to the
            batch ``[*B]``, such as ``[S, 1]`` for S seeds, gives each of them its own.
        min_alpha: lower bound > 0, or None.
        max_alpha: upper bound, or None.
    """

    measure_key: str

    def __init__(
        self, alpha_init: float | Tensor, min_alpha: float | None, max_alpha: float | None
    ) -> None:
        owner = type(self).__name__
        check = check_numbers if isinstance(alpha_init, Tensor) else check_number
        check(owner, above=0, alpha_init=alpha_init)
        given = {"min_alpha": min_alpha, "max_alpha": max_alpha}
        check_number(owner, above=0, **{k: v for k, v in given.items() if v is not None})
        if min_alpha is not None and max_alpha is not None and min_alpha > max_alpha:
            raise ValueError(
                f"{owner}: min_alpha must be at most max_alpha, got {min_alpha} and {max_alpha}"
            )
        self.alpha_init = torch.as_tensor(alpha_init, dtype=torch.float64)
        self.log_bounds = [None if b is None else math.log(b) for b in (min_alpha, max_alpha)]

    def target(self, actor: SamplingActor) -> float:
        """What the measure shall be, in nats."""
        raise NotImplementedError

    def check_target(self, owner: str, actor: SamplingActor) -> None:
        """ValueError for a target that uniform actions do not meet: alpha would grow to its bound.

        exp(Q / alpha) tends to the uniform density with alpha.
        """

    def measure(
        self, actor: SamplingActor, states: TensorDictBase, first: Tensor, second: Tensor
    ) -> Tensor:
        """How spread the policy is at states ``[*B]``, of two sets of its actions: ``[*B]``."""
        raise NotImplementedError

    def loss(self, log_alpha: Tensor, measured: Tensor, actor: SamplingActor) -> Tensor:
        """log alpha (measure - target), of a measure ``[*B]``."""
        return log_alpha * (measured - self.target(actor))


class EntropyTarget(LearntTemperature):
    r"""Holds the policy's entropy E[-log pi(a|s)]; for samplers that have a density.

    Args:
        target_entropy: in nats; ``"auto"``: -A, minus the number of action dimensions, as SAC has
            it, which is meant for a box of side 2.

    Keyword arguments are those of :class:`LearntTemperature`. Writes ``entropy``.

    Source: Haarnoja et al. 2018b (arXiv:1812.05905), section 5.

    Example:
        >>> EntropyTarget(target_entropy=-3.0, alpha_init=0.2, max_alpha=1.0).measure_key
        'entropy'
    """

    measure_key = "entropy"

    def __init__(
        self,
        target_entropy: float | Literal["auto"] = "auto",
        *,
        alpha_init: float | Tensor = 1.0,
        min_alpha: float | None = None,
        max_alpha: float | None = None,
    ) -> None:
        super().__init__(alpha_init, min_alpha, max_alpha)
        if target_entropy != "auto":
            check_number("EntropyTarget", target_entropy=target_entropy)
        self.target_entropy = target_entropy

    def target(self, actor: SamplingActor) -> float:
        """The target entropy."""
        return -float(actor.action_dim) if self.target_entropy == "auto" else self.target_entropy

    def check_target(self, owner: str, actor: SamplingActor) -> None:
        """Uniform actions have the logarithm of the box's volume."""
        target, most = self.target(actor), float((actor.high - actor.low).log().sum())
        if target >= most:
            raise ValueError(
                f"{owner}: temperature must have target_entropy below that of uniform actions, "
                f"{most:.3g} in this box, got {target:.3g}"
            )

    def measure(
        self, actor: SamplingActor, states: TensorDictBase, first: Tensor, second: Tensor
    ) -> Tensor:
        """The log density of one action of its own for each state, without the sign: [*B]."""
        return -actor.sample_with_log_prob(states, 1)[1].squeeze(-1)


class LogDistanceTarget(LearntTemperature):
    r"""Holds the mean log-distance of two actions at log(beta sqrt(A)); needs no density.

    Distances are those of actions in units of half the box, which spans [-1, 1] in each of A
    dimensions.

    Args:
        beta: > 0; the paper has 0.2 for robots and 0.8 for mazes of two dimensions, which
            :func:`log_distance_force` reaches by actions at the edges of the box. Samplers of
            exp(Q / alpha), those of :func:`svgd_force`, stay below that of uniform actions, which
            losses check: 0.45, 0.63, 0.70 and 0.76 for 1, 2, 3 and 6 dimensions.

    Keyword arguments are those of :class:`LearntTemperature`. Writes ``log_distance``.

    Source: Wang et al. 2025 (DrAC, arXiv:2511.01374).

    Example:
        >>> LogDistanceTarget(beta=0.8).measure_key
        'log_distance'
    """

    measure_key = "log_distance"

    def __init__(
        self,
        beta: float = 0.2,
        *,
        alpha_init: float | Tensor = 1.0,
        min_alpha: float | None = None,
        max_alpha: float | None = None,
    ) -> None:
        super().__init__(alpha_init, min_alpha, max_alpha)
        check_number("LogDistanceTarget", above=0, beta=beta)
        self.beta = beta

    def target(self, actor: SamplingActor) -> float:
        """log(beta sqrt(A))."""
        return math.log(self.beta * math.sqrt(actor.action_dim))

    def check_target(self, owner: str, actor: SamplingActor) -> None:
        """Uniform actions have a beta of their own."""
        size = actor.action_dim
        most = math.exp(self.of_uniform(size)) / math.sqrt(size)
        if self.beta >= most:
            raise ValueError(
                f"{owner}: temperature must have beta below that of uniform actions, {most:.3g} in "
                f"{size} dimension(s), got {self.beta:.3g}"
            )

    @staticmethod
    def of_uniform(action_dim: int) -> float:
        """E log|a - b| = 1/2 E log X, by E log X = int (exp(-t) - E exp(-t X)) dt / t."""
        t = torch.linspace(-40.0, 60.0, 10_001, dtype=torch.float64).exp()
        # E exp(-t u^2) of one coordinate u = a - b, whose density is (2 - |u|) / 4.
        each = (math.pi / (4 * t)).sqrt() * (2 * t.sqrt()).erf() + (-4 * t).expm1() / (4 * t)
        return 0.5 * float(torch.trapezoid((-t).exp() - each**action_dim, t.log()))

    def measure(
        self, actor: SamplingActor, states: TensorDictBase, first: Tensor, second: Tensor
    ) -> Tensor:
        """The mean log-distance of the two sets, ``[*B]``."""
        half = 0.5 * (actor.high - actor.low)
        return log_distance(first / half, second / half)
