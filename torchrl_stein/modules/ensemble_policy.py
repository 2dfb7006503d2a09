"""A trained population as one policy for ordinary environments."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_stein._checks import check_choice, check_count, check_type

from ._by_keyword import by_keyword, refuse_keywords
from .population import find_population
from .samplers import TanhGaussianMixtureActor

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
            evaluation; a pair (seed, particle) for a population of several seeds, which other
            modes refuse.
        action_key: what ``actor`` writes and this policy writes on; its other entries are not.

    "best" and "random" honour TorchRL's exploration type as ``actor`` does.

    Raises:
        TypeError, ValueError: if ``actor`` does not contain one ParticleModule, is one policy
            already or does not write ``action_key``, ``mode`` is unknown, or ``best`` is out of
            range or given for another mode; in ``forward``, if the mean is of discrete actions.
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
        best: int | tuple[int, ...] | None = None,
        action_key: NestedKey = "action",
    ) -> None:
        super().__init__()
        check_type("EnsemblePolicy", "a TensorDictModule", TensorDictModuleBase, actor=actor)
        if isinstance(actor, TanhGaussianMixtureActor):
            raise TypeError(
                "EnsemblePolicy: actor must hold one policy per particle, got "
                "TanhGaussianMixtureActor, which is one policy for ordinary environments already"
            )
        check_choice("EnsemblePolicy", _MODES, mode=mode)
        if action_key not in actor.out_keys:
            raise ValueError(
                f"EnsemblePolicy: actor must write action_key={action_key!r}, "
                f"it writes {list(actor.out_keys)}"
            )
        name, population = find_population(
            "EnsemblePolicy", "actor", actor, several_seeds=mode == "best"
        )
        self.num_particles = population.num_particles
        index: tuple[Any, ...] = best if isinstance(best, tuple) else (best,)
        if mode == "best":
            if len(index) != len(population.leading):
                words = "a pair (seed, particle)" if len(index) == 1 else "an integer"
                raise ValueError(f"EnsemblePolicy: best must be {words}, got {best}")
            for size, number in zip(population.leading, index, strict=True):
                check_count("EnsemblePolicy", at_least=0, at_most=size - 1, best=number)
        elif best is not None:
            raise ValueError(f"EnsemblePolicy: best={best} has no meaning for mode={mode!r}")
        self.mode = mode
        self.action_key = action_key
        self.in_keys = [*actor.in_keys, *(["is_init"] if mode == "random" else [])]
        self.out_keys = [action_key, *(["particle"] if mode == "random" else [])]
        self.optional_keywords = ["particle"] if mode == "random" else []
        self.actor = deepcopy(actor)
        if best is not None:
            self.actor.set_submodule(name, population.particle(*index))

    @by_keyword
    def forward(self, tensordict: TensorDictBase, **others: Any) -> TensorDictBase:
        """Write one action per row, ``[*B, A]``.

        By keyword, ``policy(observation=x)``, the return value is the action. In mode ``"random"``
        it is the pair (action, particle), and ``policy(observation=x, is_init=first,
        particle=particle)`` goes on with the particles of the step before.
        """
        refuse_keywords(self, others)
        tensordict.update(others)  # "particle" at most
        if self.mode == "best":
            action = self.actor(tensordict.select(*self.actor.in_keys)).get(self.action_key)
        elif self.mode == "mean":
            action = self._mean_action(tensordict)
        else:
            particle = self._draw(tensordict)
            tensordict.set("particle", particle)
            actions = self._act_all(tensordict)
            index = particle.squeeze(-1).unsqueeze(0)  # [1, *B], and the action's own dimensions
            index = index.reshape(*index.shape, *(1 for _ in range(actions.ndim - index.ndim)))
            action = actions.gather(0, index.expand(1, *actions.shape[1:])).squeeze(0)
        return tensordict.set(self.action_key, action)

    def _act_all(self, tensordict: TensorDictBase) -> Tensor:
        """Actions of every particle on every row, ``[n, *B, A]``."""
        states = tensordict.select(*self.actor.in_keys)
        of_all = states.expand(self.num_particles, *states.batch_size)
        if not states.batch_dims:  # nobody said what is batch, as in a call by keyword
            of_all.batch_size = []
        return self.actor(of_all).get(self.action_key)

    def _mean_action(self, tensordict: TensorDictBase) -> Tensor:
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            actions = self._act_all(tensordict)
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
