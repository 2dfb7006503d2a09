"""Exploration in parameters: a policy acts with perturbed weights for a whole episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torch.nn.parameter import UninitializedParameter
from torchrl.envs.utils import ExplorationType, exploration_type, set_exploration_type

from torchrl_stein._checks import check_count, check_keys, check_number, check_type, may_look

__all__ = ["ParameterNoise"]

Distance = Callable[[TensorDictBase, TensorDictBase], Tensor]  # of outputs without and with noise


class ParameterNoise(TensorDictModuleBase):
    r"""A policy that acts with theta + sigma xi, xi from N(0, I), the same for a whole episode.

    Within an episode equal states have equal actions, so exploration is consistent, and it reaches
    where noise on each action by itself averages out. At the end of an episode xi is drawn anew,
    and the parameters are taken as they are then. With an exploration type other than RANDOM it
    acts as the policy alone.

    :meth:`adapt` finds the sigma that moves actions by a distance delta, since nobody can tell
    what a change of parameters means:

    .. math::
        \sigma \leftarrow 1.01\, \sigma \;\text{ if }\; d(\pi, \tilde\pi) \le \delta,
        \;\text{ else }\; \sigma / 1.01

    Args:
        policy: any TensorDictModule with parameters, which it shares.
        scale: sigma > 0 at first, one number for all parameters; that of a layer whose inputs are
            normalized means the same as that of another.

    Keyword Args:
        batch_size: of the environments that have a perturbation each, the first dimensions of the
            data. ``()`` is one for all, drawn anew with every episode that begins.
        fixed: names of parameters, or of submodules, that are not perturbed.
        distance: d, a function of what the policy writes without and with noise for a batch of
            states. None is the root mean squared difference of "action", for which delta is the
            standard deviation of normal noise on actions that would move them as far.
        factor: > 1, the 1.01 above.
        is_init_key: of the flag ``[*B, 1]`` that an episode begins, which TorchRL's ``InitTracker``
            writes; None where only :meth:`redraw` shall draw.

    Attributes:
        scale: sigma ``[]``, a buffer; fill it to change what is drawn next.
        perturbed: parameters that act, ``[*batch_size, d]``, a buffer.

    Raises:
        TypeError, ValueError: for arguments of another kind or out of range, names that match no
            parameter, and policies without (initialised) parameters to perturb; at the call, for
            data that do not begin with ``batch_size``.
        KeyError: at the call, if the data lack the flag or what the policy reads.

    Source: Plappert et al. 2018 (arXiv:1706.01905), sections 3 and 3.1, appendix C.

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> from torchrl.envs import InitTracker, TransformedEnv
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> env = TransformedEnv(MultiGoalEnv(batch_size=(5,), seed=0), InitTracker())
        >>> policy = TensorDictModule(torch.nn.Linear(2, 2), ["observation"], ["action"])
        >>> noisy = ParameterNoise(policy, 0.1, batch_size=env.batch_size)
        >>> data = env.rollout(30, noisy, break_when_any_done=False)
        >>> distance = noisy.adapt(data, threshold=0.2)
    """

    scale: Tensor
    perturbed: Tensor

    def __init__(
        self,
        policy: TensorDictModuleBase,
        scale: float,
        *,
        batch_size: Sequence[int] = (),
        fixed: Sequence[str] = (),
        distance: Distance | None = None,
        factor: float = 1.01,
        is_init_key: NestedKey | None = "is_init",
    ) -> None:
        owner = "ParameterNoise"
        super().__init__()
        check_type(owner, "a TensorDictModule", TensorDictModuleBase, policy=policy)
        check_number(owner, above=0, scale=scale)
        check_number(owner, above=1, factor=factor)
        for size in batch_size:
            check_count(owner, batch_size=size)
        if distance is not None:
            check_type(owner, "a function of two tensordicts", Callable, distance=distance)
        self.policy, self.is_init_key, self.factor = policy, is_init_key, factor
        self.distance = _action_distance if distance is None else distance
        self.batch_size = torch.Size(batch_size)
        self.in_keys = [*policy.in_keys, *([] if is_init_key is None else [is_init_key])]
        self.out_keys = policy.out_keys
        self._shapes = _perturbed_shapes(policy, fixed)
        flat = self._flat()
        self.register_buffer("scale", flat.new_tensor(float(scale)))
        self.register_buffer("perturbed", flat.expand(*self.batch_size, -1).clone())
        self.redraw()

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write what the policy writes, of perturbed parameters."""
        if exploration_type() not in (ExplorationType.RANDOM, None):
            return self.policy(tensordict)
        check_keys("ParameterNoise", tensordict, self.in_keys)
        leading = self.batch_size
        if tensordict.batch_size[: len(leading)] != leading:
            raise ValueError(
                f"ParameterNoise: the data must begin with batch_size {list(leading)}, got batch "
                f"size {list(tensordict.batch_size)}"
            )
        if self.is_init_key is not None:
            begins = tensordict.get(self.is_init_key)
            self.redraw(begins.flatten(len(leading)).any(-1))
        states, parameters = tensordict.select(*self.policy.in_keys), self.perturbed
        if leading.numel() == 1:  # one call without the price of vmap
            outputs = self._call(states, parameters.flatten())
        else:
            rest, count = tensordict.batch_size[len(leading) :], leading.numel()
            call = torch.vmap(self._call, randomness="different")
            outputs = call(states.reshape(count, *rest), parameters.view(count, -1))
            outputs = outputs.reshape(tensordict.batch_size)
        return tensordict.update(outputs)

    @torch.no_grad()
    def redraw(self, rows: Tensor | None = None) -> None:
        """Perturb the parameters as they are now, by new noise.

        Args:
            rows: flags, which of ``[*batch_size]``; None: all.
        """
        if rows is not None and may_look(rows) and not rows.any():
            return  # elsewhere noise that nobody needs costs less than to wait for the answer
        new = self._fresh(self.perturbed.shape)
        if rows is not None:
            new = torch.where(rows.unsqueeze(-1), new, self.perturbed)
        self.perturbed = new  # not in place: an action may be a view of it

    @torch.no_grad()
    def adapt(self, tensordict: TensorDictBase, threshold: float) -> Tensor:
        """Change sigma so that a new perturbation moves the actions by about the threshold.

        Call it once per update, as our recipes do, or at every 50th, as the authors' code does.
        Perturbations that act stay until their episode ends.

        Args:
            tensordict: states ``[*B]``, such as a batch of a replay buffer.
            threshold: delta > 0, in units of the distance.

        Returns:
            Tensor: the distance ``[]``, at sigma before the change.
        """
        check_number("ParameterNoise.adapt", above=0, threshold=threshold)
        check_keys("ParameterNoise.adapt", tensordict, self.policy.in_keys)
        states = tensordict.select(*self.policy.in_keys)
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            plain = self.policy(states.copy())
            moved = self._call(states, self._fresh(self.perturbed.shape[-1:]))
        distance = self.distance(plain, moved)
        self.scale.mul_(torch.where(distance <= threshold, self.factor, 1 / self.factor))
        return distance

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Saved with other environments: their episodes start anew, so that all rows are redrawn.
        name = f"{prefix}perturbed"
        saved = state_dict.get(name)
        if saved is not None and saved.shape[-1:] == self.perturbed.shape[-1:]:
            state_dict[name] = saved if saved.shape == self.perturbed.shape else self.perturbed
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _call(self, states: TensorDictBase, flat: Tensor) -> TensorDictBase:
        """What the policy writes with the parameters ``[d]``."""
        parts = flat.split([shape.numel() for shape in self._shapes.values()])
        shapes = zip(self._shapes.items(), parts, strict=True)
        given = {name: part.view(shape) for (name, shape), part in shapes}
        outputs = torch.func.functional_call(self.policy, given, (states.copy(),))
        return outputs.select(*self.policy.out_keys)

    def _flat(self) -> Tensor:
        """Parameters of the policy, ``[d]``."""
        own = dict(self.policy.named_parameters())
        return torch.cat([own[name].detach().flatten() for name in self._shapes])

    def _fresh(self, shape: Sequence[int]) -> Tensor:
        flat = self._flat()
        return flat + self.scale * torch.randn(*shape, dtype=flat.dtype, device=flat.device)


def _action_distance(plain: TensorDictBase, moved: TensorDictBase) -> Tensor:
    """Of deterministic policies, appendix C of the paper."""
    return (moved.get("action") - plain.get("action")).square().mean().sqrt()


def _perturbed_shapes(policy: TensorDictModuleBase, fixed: Sequence[str]) -> dict[str, torch.Size]:
    """Names and shapes of parameters outside of ``fixed``."""
    own = dict(policy.named_parameters())
    lazy = [name for name, value in own.items() if isinstance(value, UninitializedParameter)]
    if lazy:
        raise ValueError(
            f"ParameterNoise: policy must have initialised parameters, got lazy ones: {lazy}"
        )

    def below(name: str, part: str) -> bool:
        return name == part or name.startswith(f"{part}.")

    unknown = [part for part in fixed if not any(below(name, part) for name in own)]
    if unknown:
        raise ValueError(
            f"ParameterNoise: fixed must name parameters of the policy, {list(own)}, got {unknown}"
        )
    free = [name for name in own if not any(below(name, part) for part in fixed)]
    if not free:
        raise ValueError("ParameterNoise: policy must have parameters to perturb, got none")
    return {name: own[name].shape for name in free}
