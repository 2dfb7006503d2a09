"""n-step returns of data on their way into a replay buffer."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torchrl.data import MultiStep
from torchrl.envs import Transform

from torchrl_stein._checks import check_columns, check_count, check_keys, check_number

__all__ = ["NStepReturns"]


class NStepReturns(Transform):
    r"""A replay buffer's transform: transitions over n steps in the place of those over one.

    The reward of a step becomes :math:`\sum_{k < m} \gamma^k r_{t+k}`, its next state that after m
    steps, with what ended the episode there. m is n, or as many steps as the episode still has;
    it is written as ``steps_to_next_obs``, by which TorchRL's TD(0) discounts with gamma^m.

    Data ``[*B, T]``, T > 0, are successive stretches of B rows; what is stored are single
    transitions, a flat batch. Each step waits until n others have followed it, and the transform
    remembers these. A row that does not begin where its last step ended is another episode, such as
    after ``resume`` with a simulator: returns stop there, as where an episode is truncated. For
    another number of rows all begin anew.

    Args:
        n_steps: n >= 1.

    Keyword Args:
        gamma: discount, in (0, 1].
        observation_key: of the entry by which rows are compared, ``[*B, T, ...]``.

    Raises:
        TypeError, ValueError: for arguments of another kind or out of range, data without a
            dimension of time or whose reward and ends are not ``[*B, T, 1]``, and an environment in
            the place of a buffer.
        KeyError: if the data lack an entry.

    Source: Sutton 1988; Barth-Maron et al. 2018 (arXiv:1804.08617), Algorithm 1. The sums are
    those of TorchRL's ``MultiStep``.

    Example:
        >>> from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
        >>> buffer = TensorDictReplayBuffer(
        ...     storage=LazyTensorStorage(100), transform=NStepReturns(2, gamma=0.5), batch_size=4
        ... )
        >>> time, ends = torch.arange(4.0).view(1, 4, 1), torch.zeros(1, 4, 1).bool()
        >>> following = {"observation": time + 1, "reward": time, "done": ends, "terminated": ends}
        >>> _ = buffer.extend(TensorDict({"observation": time, "next": following}, [1, 4]))
        >>> buffer[:]["next", "reward"].flatten()  # 0 + 1/2 and 1 + 2/2; two more steps wait
        tensor([0.5000, 2.0000])
    """

    def __init__(
        self, n_steps: int, *, gamma: float, observation_key: NestedKey = "observation"
    ) -> None:
        super().__init__()
        check_count("NStepReturns", n_steps=n_steps)
        check_number("NStepReturns", above=0, at_most=1, gamma=gamma)
        self.n_steps, self.observation_key = n_steps, observation_key
        # Not MultiStepTransform: no checkpoint would hold what it remembers.
        self.sums = MultiStep(gamma, n_steps)
        # By default both leave "done" and "terminated" as they are at the first of the n steps.
        # Symptom: returns that reach the end of an episode add the value of its last state.
        self.sums.done_keys = ()
        self._window: TensorDictBase | None = None  # the last n steps, [*B, n] or fewer

    @torch.no_grad()
    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase | None:
        """Take in data ``[*B, T]``; all that is complete, ``[N]``, or None."""
        data = self._checked(tensordict)
        if self._window is not None and self._window.batch_size[:-1] == data.batch_size[:-1]:
            data = torch.cat([self._window_before(data), data], -1)
        self._window = data[..., -self.n_steps :].clone()
        if data.shape[-1] <= self.n_steps:
            return None
        complete = self.sums(data)[..., : -self.n_steps]
        complete = complete.exclude(("next", "original_reward"), "gamma", "nonterminal")
        return complete.reshape(-1)

    def _window_before(self, data: TensorDictBase) -> TensorDictBase:
        """The window, with an end in rows whose next step in ``data`` is of another episode."""
        assert self._window is not None
        window, time = self._window.to(data.get(("next", "done")).device), data.ndim - 1
        reached = window.get(unravel_key(("next", self.observation_key))).select(time, -1)
        begins = data.get(self.observation_key).select(time, 0)
        goes_on = (reached == begins).flatten(time).all(-1, keepdim=True)
        window.get(("next", "done")).select(time, -1).logical_or_(~goes_on)
        return window

    def _checked(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = [("next", name) for name in ("reward", "done", "terminated")]
        observations = [self.observation_key, unravel_key(("next", self.observation_key))]
        check_keys("NStepReturns", tensordict, [*observations, *keys])
        if tensordict.ndim < 2 or tensordict.shape[-1] == 0:
            raise ValueError(
                "NStepReturns: data must be [*B, T], rows and at least one step of each, got "
                f"batch size {list(tensordict.batch_size)}"
            )
        check_columns("NStepReturns", tensordict, keys)
        return tensordict

    def get_extra_state(self) -> dict[str, Any]:
        """The steps that wait for others, as plain tensors."""
        return {} if self._window is None else self._window.to_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The steps that wait for others."""
        self._window = None
        if state:
            self._window = TensorDict(state, state["next"]["done"].shape[:-1]).clone()

    def transform_output_spec(self, output_spec: object) -> object:
        """Refused: a policy that acts has no steps after the present one."""
        raise TypeError(
            "NStepReturns: must be the transform of a replay buffer, got an environment"
        )
