"""The linear value function of classic policy-gradient experiments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchrl_stein._checks import check_count, check_finite, check_number, check_particles

__all__ = ["LinearBaseline"]


class LinearBaseline(nn.Module):
    r"""Value functions linear in features of state and time, one per particle, fitted exactly.

    V_i(s, t) = w_i . [s, s^2, t/100, (t/100)^2, (t/100)^3, 1] with s clipped to +-10. The weights
    are buffers, fitted by :meth:`fit` in closed form and not by gradients; before the first fit
    the value is 0. Wrap it in a ValueOperator and it is the critic of any TorchRL loss.

    Args:
        num_particles: n, or a pair (S, n) for S seeds.
        observation_dim: O.
        ridge: weight of the penalty on |w|^2.

    Raises:
        TypeError: if an argument is no number, or a count no integer.
        ValueError: if an argument is out of range, a leading dimension is not n or, in ``fit``,
            numbers on a CPU are not finite.

    Source: Duan et al. 2016 (arXiv:1604.06778), the baseline of the toolkit that the experiments
    of Liu et al. 2017 (arXiv:1704.02399) were made with.

    Example:
        >>> import torch
        >>> baseline = LinearBaseline(num_particles=2, observation_dim=3)
        >>> s, t = torch.randn(2, 50, 3), torch.arange(50.0).expand(2, 50).unsqueeze(-1)
        >>> baseline.fit(s, t, 5.0 * torch.ones(2, 50, 1))
        >>> bool((baseline(s, t) - 5.0).abs().max() < 1e-3)
        True
    """

    weight: Tensor

    def __init__(
        self,
        num_particles: int | tuple[int, ...],
        observation_dim: int,
        *,
        ridge: float = 1e-5,
    ) -> None:
        super().__init__()
        owner = "LinearBaseline"
        leading = check_particles(owner, num_particles)
        check_count(owner, observation_dim=observation_dim)
        check_number(owner, above=0, ridge=ridge)
        self.ridge = ridge
        self.register_buffer("weight", torch.zeros(*leading, 2 * observation_dim + 4))

    def forward(self, observation: Tensor, elapsed_steps: Tensor) -> Tensor:
        """Values ``[n, ..., 1]``.

        Args:
            observation: ``[n, ..., O]``.
            elapsed_steps: steps since the start of the episode, ``[n, ..., 1]``.
        """
        features = self._features(observation, elapsed_steps)
        *leading, width = self.weight.shape
        weight = self.weight.view(*leading, *(1,) * (features.ndim - self.weight.ndim), width)
        return (features * weight).sum(-1, keepdim=True)

    @torch.no_grad()
    def fit(self, observation: Tensor, elapsed_steps: Tensor, target: Tensor) -> None:
        """Least squares, particle by particle.

        Args:
            observation: ``[n, ..., O]``.
            elapsed_steps: ``[n, ..., 1]``.
            target: what the value should be, ``[n, ..., 1]``.
        """
        if target.shape != elapsed_steps.shape:
            raise ValueError(
                "LinearBaseline: target must have the shape of elapsed_steps, "
                f"{list(elapsed_steps.shape)}, got {list(target.shape)}"
            )
        numbers = {"observation": observation, "elapsed_steps": elapsed_steps, "target": target}
        check_finite("LinearBaseline", numbers)
        features = self._features(observation, elapsed_steps).double()
        leading = self.weight.ndim - 1
        features = features.flatten(leading, -2)
        gram = features.mT @ features
        gram.diagonal(dim1=-2, dim2=-1).add_(self.ridge)
        moment = features.mT @ target.double().flatten(leading, -2)
        # solve_ex: solve waits for the device to look for errors; a ridge leaves none
        self.weight.copy_(torch.linalg.solve_ex(gram, moment).result.squeeze(-1))

    def _features(self, observation: Tensor, elapsed_steps: Tensor) -> Tensor:
        *leading, width = self.weight.shape
        given = list(observation.shape)
        if given[: len(leading)] != leading or 2 * given[-1] + 4 != width:
            words = ", ".join(map(str, leading))
            raise ValueError(
                f"LinearBaseline: observation must have shape [{words}, ..., {(width - 4) // 2}] "
                f"(one leading row per particle), got {given}"
            )
        s = observation.clamp(-10.0, 10.0)
        t = elapsed_steps.to(s.dtype) / 100.0
        return torch.cat([s, s.square(), t, t.square(), t**3, torch.ones_like(t)], -1)
