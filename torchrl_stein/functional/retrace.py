"""Returns from the actions of other policies: Retrace."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_expands, check_floating, check_number, check_type

__all__ = ["retrace"]


def retrace(
    state_action_value: Tensor,
    next_state_value: Tensor,
    reward: Tensor,
    done: Tensor,
    terminated: Tensor,
    trace: Tensor,
    *,
    gamma: float | Tensor,
) -> Tensor:
    r"""Retrace's estimates of Q(s_t, a_t) from trajectories of another policy.

    .. math::
        Q^{ret}_t = r_t + \gamma V(s_{t+1})
            + \gamma c_{t+1} \left[ Q^{ret}_{t+1} - Q(s_{t+1}, a_{t+1}) \right]

    V is 0 behind a step that is terminated. The bracket is dropped behind a step that is done, and
    behind the last one. With c = min(1, pi / mu) the estimates are safe however far the policies
    are apart; c = lambda, with V(s_t) in place of Q(s_t, a_t), is TD(lambda), and c = 1 the Q^opc
    of ACER.

    Args:
        state_action_value: Q(s_t, a_t), ``[..., T, 1]``, as for the value functions of TorchRL.
        next_state_value: V(s_{t+1}), where an episode was cut off that of its last state.
        reward: r_t.
        done: whether the episode ends with the step, bool.
        terminated: whether it ends by itself, bool.
        trace: c_t, of the action a_t, in [0, 1] for Retrace.
        gamma: discount, in [0, 1].

    Returns:
        Tensor: ``[..., T, 1]``.

    Source: Munos et al. 2016 (arXiv:1606.02647), eq. (3), as the recursion of Wang et al. 2017
    (arXiv:1611.01224), eq. (5). TorchRL 0.14 has V-trace, of V; this is of Q.

    Example:
        >>> q, v, reward = torch.zeros(3, 2, 1)
        >>> ends = torch.tensor([[False], [True]])
        >>> retrace(q, v, reward + 1, ends, ends, torch.ones(2, 1), gamma=0.5)
        tensor([[1.5000],
                [1.0000]])
    """
    owner, q = "retrace", state_action_value
    floating = {"state_action_value": q, "next_state_value": next_state_value}
    floating |= {"reward": reward, "trace": trace}
    check_floating(owner, **floating)
    check_type(owner, "a tensor of flags", Tensor, done=done, terminated=terminated)
    if q.ndim < 2:
        raise ValueError(f"{owner}: state_action_value must be [..., T, 1], got {list(q.shape)}")
    given = {**floating, "done": done, "terminated": terminated}
    check_expands(owner, q.shape, "state_action_value", **given)
    check_number(owner, at_least=0, at_most=1, gamma=gamma)
    one_step = reward + gamma * ~terminated.bool() * next_state_value
    onward = (gamma * ~done.bool()).expand_as(q)
    trace = trace.expand_as(q)
    behind = torch.zeros_like(q[..., 0, :])  # c_{t+1} [Q^ret_{t+1} - Q_{t+1}]
    returns = []
    for t in reversed(range(q.shape[-2])):
        returns.append(one_step[..., t, :] + onward[..., t, :] * behind)
        behind = trace[..., t, :] * (returns[-1] - q[..., t, :])
    return torch.stack(returns[::-1], -2)
