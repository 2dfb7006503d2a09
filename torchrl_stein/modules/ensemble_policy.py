"""A trained population as one policy for ordinary environments."""

from __future__ import annotations

from copy import deepcopy

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from .find_population import find_population

__all__ = ["EnsemblePolicy"]

_MODES = ("best", "mean", "random")


class EnsemblePolicy(TensorDictModuleBase):
    """Acts with a trained population where data has no particle dimension.

    It takes environments of any batch size ``[*B]``, in rollouts, collectors and evaluations, and
    holds a copy of the actor: training on does not change it.

    Args:
        actor: a TensorDictModule or ProbabilisticActor that contains one ParticleModule of n
            particles.
        mode: who acts.

            - ``"best"``: particle ``best``, as one plain network.
            - ``"random"``: one particle per episode and row, drawn uniformly from torch's global
              generator where ``"is_init"`` is true: append TorchRL's ``InitTracker`` to the
              environment. The draw is written as "particle" ``[*B, 1]`` (int64), which TorchRL
              carries from step to step. All n networks are evaluated.
            - ``"mean"``: the mean of the n deterministic actions, whatever the exploration type.
              For continuous actions; it may lie in a region that no particle would choose.

        best: index of the particle that acts in mode ``"best"``: ``int(returns.argmax())`` of an
            evaluation.
        action_key: what ``actor`` writes and this policy writes on; its other entries are not.

    "best" and "random" honour TorchRL's exploration type as ``actor`` does.

    Raises:
        TypeError: if ``actor`` is no TensorDictModule; in ``forward``, for ``mode="mean"``, if
            actions are not floating-point numbers.
        ValueError: if ``mode`` is unknown, ``best`` is missing, out of range or given for another
            mode, or ``actor`` does not contain one ParticleModule or does not write
            ``action_key``.
        KeyError: in ``forward``, if an entry that ``actor`` reads is missing, or ``"is_init"``
            for ``mode="random"``.

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> from torch import nn
        >>> from torchrl.envs import InitTracker, TransformedEnv
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> from torchrl_stein.modules import ParticleModule
        >>> net = ParticleModule(lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh()), 4)
        >>> actor = TensorDictModule(net, ["observation"], ["action"])
        >>> env = TransformedEnv(MultiGoalEnv(batch_size=(5,), seed=0), InitTracker())
        >>> data = env.rollout(30, EnsemblePolicy(actor, "random"), break_when_any_done=False)
        >>> data["action"].shape, data["particle"].shape
        (torch.Size([5, 30, 2]), torch.Size([5, 30, 1]))
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        mode: str,
        *,
        best: int | None = None,
        action_key: NestedKey = "action",
    ) -> None:
        super().__init__()
        if not isinstance(actor, TensorDictModuleBase):
            raise TypeError(
                f"EnsemblePolicy: actor must be a TensorDictModule, got {type(actor).__name__}"
            )
        if mode not in _MODES:
            raise ValueError(f"EnsemblePolicy: mode must be one of {list(_MODES)}, got {mode!r}")
        if action_key not in actor.out_keys:
            raise ValueError(
                f"EnsemblePolicy: actor must write action_key={action_key!r}, "
                f"it writes {list(actor.out_keys)}"
            )
        name, population = find_population("EnsemblePolicy", "actor", actor)
        self.num_particles = population.num_particles
        _check_best(mode, best, self.num_particles)
        self.mode = mode
        self.action_key = action_key
        self.in_keys = [*actor.in_keys, *(["is_init"] if mode == "random" else [])]
        self.out_keys = [action_key, *(["particle"] if mode == "random" else [])]
        self.actor = deepcopy(actor)
        if best is not None:
            self.actor.set_submodule(name, population.particle(best))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write one action per row, ``[*B, A]``; see the class."""
        if self.mode == "best":
            action = self.actor(tensordict.select(*self.actor.in_keys)).get(self.action_key)
        elif self.mode == "mean":
            action = self._mean_action(tensordict)
        else:
            particle = self._draw(tensordict)
            tensordict.set("particle", particle)
            action = self._act_all(tensordict).gather(0, particle.squeeze(-1).unsqueeze(0))
            action = action.get(self.action_key).squeeze(0)
        return tensordict.set(self.action_key, action)

    def _act_all(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Actions of every particle on every row, ``[n, *B]``."""
        states = tensordict.select(*self.actor.in_keys)
        actions = self.actor(states.expand(self.num_particles, *states.batch_size))
        return actions.select(self.action_key)

    def _mean_action(self, tensordict: TensorDictBase) -> Tensor:
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            actions = self._act_all(tensordict).get(self.action_key)
        if not actions.is_floating_point():
            raise TypeError(
                "EnsemblePolicy: mode='mean' needs continuous actions, "
                f"got {self.action_key!r} of dtype {actions.dtype}"
            )
        return actions.mean(0)

    def _draw(self, tensordict: TensorDictBase) -> Tensor:
        """The particle of each row's episode, ``[*B, 1]``: a new one where an episode begins."""
        is_init = tensordict.get("is_init", None)
        if is_init is None:
            raise KeyError(
                "EnsemblePolicy: mode='random' needs entry 'is_init'; append "
                "torchrl.envs.InitTracker() to the environment"
            )
        drawn = torch.randint(self.num_particles, is_init.shape, device=is_init.device)
        return torch.where(is_init, drawn, tensordict.get("particle", drawn))


def _check_best(mode: str, best: int | None, num_particles: int) -> None:
    if mode != "best":
        if best is not None:
            raise ValueError(f"EnsemblePolicy: best={best} has no meaning for mode={mode!r}")
    elif isinstance(best, bool) or not isinstance(best, int) or not 0 <= best < num_particles:
        raise ValueError(
            "EnsemblePolicy: mode='best' needs best, the index of one of the "
            f"{num_particles} particles, got {best!r}"
        )
