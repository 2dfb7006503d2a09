"""Values of a state from sampled actions: soft, Boltzmann, mellowmax, with entropy, expected.

All are functions ``(q, log density, temperature) -> V``, the ``value_target`` of the losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchrl_stein._checks import check_expands, check_floating, check_number, check_numbers

__all__ = ["boltzmann_value", "entropy_regularized_value", "expected_value", "mellowmax_value"]
__all__ += ["soft_value"]


def soft_value(q: Tensor, log_proposal: Tensor, temperature: Tensor | float) -> Tensor:
    r"""Soft value V = alpha log E_{a ~ proposal}[ exp(Q(s, a) / alpha) / proposal(a) ].

    The estimate from K samples is alpha (logsumexp_k(Q_k / alpha - log proposal_k) - log K). The
    maximum is taken out before the division by alpha, so V tends to max_k Q_k as alpha -> 0
    without overflow.

    Args:
        q: values Q(s, a_k) of K sampled actions, ``[..., K]``.
        log_proposal: log density of the samples (of the action, in the action's own units),
            expandable to ``[..., K]``. Uniform on a box: minus the log of its volume.
        temperature: alpha > 0, a number or a tensor expandable to ``[...]``.

    Returns:
        Tensor: V(s), ``[...]``, dtype of ``q``.

    Raises:
        TypeError, ValueError: for tensors that are not floating-point, no samples, shapes that do
            not expand, or a temperature that is not positive (in a tensor, seen on a CPU only).

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), eq. (10). Differs: none.

    Example:
        >>> q = torch.zeros(4)  # Q = 0 on a box of volume 4: V = alpha log 4
        >>> v = soft_value(q, torch.tensor(-math.log(4.0)), temperature=0.5)
        >>> round(v.item(), 4) == round(0.5 * math.log(4.0), 4)
        True
    """
    temperature = _check("soft_value", q, temperature, log_proposal=log_proposal)
    # Detached: V does not depend on the shift, and neither does its gradient.
    top = q.detach().amax(-1, keepdim=True)
    log_weights = (q - top) / temperature - log_proposal
    mean = torch.logsumexp(log_weights, -1, keepdim=True) - math.log(q.shape[-1])
    return (top + temperature * mean).squeeze(-1)


def boltzmann_value(q: Tensor, log_proposal: Tensor, temperature: Tensor | float) -> Tensor:
    r"""Expected Q of the Boltzmann policy: V = E_{a ~ pi}[Q(s, a)], pi ~ exp(Q / alpha).

    Estimated with self-normalised weights softmax_k(Q_k / alpha - log proposal_k). Without the
    entropy, the fixed point of the Bellman equation is the ordinary value of its own Boltzmann
    policy: for that policy, V of :func:`soft_value` less alpha times the entropy.

    Arguments, result and errors as for :func:`soft_value`.

    Source: Zhang et al. 2018 (arXiv:1808.03030), proposition 8.

    Example:
        >>> boltzmann_value(torch.tensor([0.0, 1.0]), torch.zeros(()), temperature=1e-3)
        tensor(1.)
    """
    temperature = _check("boltzmann_value", q, temperature, log_proposal=log_proposal)
    top = q.detach().amax(-1, keepdim=True)
    weights = torch.softmax((q - top) / temperature - log_proposal, -1)
    return (weights * q).sum(-1)


def mellowmax_value(q: Tensor, log_proposal: Tensor, temperature: Tensor | float) -> Tensor:
    r"""Mellowmax: the soft value less alpha times the entropy of the PROPOSAL.

    V = alpha log E_{a ~ proposal}[exp(Q / alpha) / proposal(a)] - alpha H(proposal), H estimated
    by the samples. With a uniform proposal the volume of the box cancels and
    alpha log mean exp(Q / alpha) remains. It is neither the soft value nor the expected Q of a
    Boltzmann policy, and lies between the mean and the maximum of Q.

    Arguments, result and errors as for :func:`soft_value`.

    Source: Asadi & Littman 2017 (arXiv:1612.05628); Zhang et al. 2018 (arXiv:1808.03030),
    section 4.2, the target of J_Q as printed, for any proposal.

    Example:
        >>> q, log_proposal = torch.zeros(4), torch.tensor(-math.log(4.0))
        >>> mellowmax_value(q, log_proposal, temperature=0.5)  # no bonus for the volume
        tensor(0.)
    """
    _check("mellowmax_value", q, temperature, log_proposal=log_proposal)
    entropy = -log_proposal.expand_as(q).mean(-1)
    return soft_value(q, log_proposal, temperature) - temperature * entropy


def entropy_regularized_value(q: Tensor, log_policy: Tensor, temperature: Tensor | float) -> Tensor:
    r"""Value of a policy with its entropy: V = E_{a ~ pi}[Q(s, a) - alpha log pi(a | s)].

    A lower bound of :func:`soft_value` for every policy, equal to it for pi ~ exp(Q / alpha), and
    of far less variance: no exponential is averaged. ``q`` and ``log_policy`` are of K actions of
    the policy; result and errors as for :func:`soft_value`.

    Source: Haarnoja et al. 2018 (arXiv:1801.01290), eq. (5); Zhang et al. 2018
    (arXiv:1808.03030), section 4.2, the form of J_V that "works well".

    Example:
        >>> entropy_regularized_value(torch.tensor([0.0, 2.0]), torch.tensor([-1.0, -1.0]), 0.5)
        tensor(1.5000)
    """
    temperature = _check("entropy_regularized_value", q, temperature, log_policy=log_policy)
    return (q - temperature * log_policy).mean(-1)


def expected_value(
    q: Tensor, log_policy: Tensor | None, temperature: Tensor | float | None
) -> Tensor:
    r"""Value of a policy without its entropy: V = E_{a ~ pi}[Q(s, a)], of K actions of the policy.

    Needs neither densities nor a temperature: both are ignored and may be None. The fixed point of
    the Bellman equation is the ordinary value of the policy that the actions come from.

    Args:
        q: values of K actions, ``[..., K]``.
        log_policy: ignored.
        temperature: ignored.

    Returns:
        Tensor: ``[...]``.

    Raises:
        TypeError, ValueError: for a tensor that is not floating-point, or no samples.

    Example:
        >>> expected_value(torch.tensor([0.0, 2.0]), None, None)
        tensor(1.)
    """
    check_floating("expected_value", q=q)
    _check_samples("expected_value", q)
    return q.mean(-1)


def _check_samples(function: str, q: Tensor) -> None:
    if q.ndim == 0 or q.shape[-1] == 0:
        raise ValueError(
            f"{function}: q must have a last dimension of samples [..., K], got {list(q.shape)}"
        )


def _check(
    function: str, q: Tensor, temperature: Tensor | float, **log_density: Tensor
) -> Tensor | float:
    """The temperature, ready to be broadcast over samples."""
    check_floating(function, q=q, **log_density)
    _check_samples(function, q)
    check_expands(function, q.shape, "q", **log_density)
    if not isinstance(temperature, Tensor) or temperature.ndim == 0:
        check_number(function, above=0, temperature=temperature)
        return temperature
    check_expands(function, q.shape[:-1], "the states of q", temperature=temperature)
    check_numbers(function, above=0, temperature=temperature)
    return temperature.unsqueeze(-1)
