"""A flat vector of simulators as a population environment."""

from __future__ import annotations

from typing import Any, Self

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Composite
from torchrl.envs import EnvBase

from torchrl_stein._checks import check_count, check_type

_SPECS = ("observation_spec", "action_spec", "state_spec", "reward_spec", "done_spec")


class ParticleEnv(EnvBase):
    """View a TorchRL environment of batch size [n * E] as one of batch size [n, E].

    Row i belongs to particle i of a ``ParticleModule``. Simulators that TorchRL vectorises have
    one batch dimension: ``SerialEnv``, ``ParallelEnv``, ``GymEnv(id, num_envs=n * E)``. TorchRL's
    own ``BatchSizeTransform`` cannot reshape these together with other transforms (symptom:
    "batch dimension mismatch", or an index error at the first partial reset).

    Args:
        env: flat environment; rows i * E to (i + 1) * E - 1 become row i.
        num_particles: n.

    Adds the entry "particle", integers ``[n, E, 1]``, i in row i, to what the simulators observe.
    It travels with the data, so that SteinPolicyLoss notices when rows were shuffled. A policy may
    overwrite it, as EnsemblePolicy does.

    Example:
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> env = ParticleEnv(MultiGoalEnv((12,), seed=0), num_particles=4)
        >>> env.rollout(5)["next", "reward"].shape
        torch.Size([4, 3, 5, 1])
    """

    def __init__(self, env: EnvBase, num_particles: int) -> None:
        check_type("ParticleEnv", "a TorchRL environment", EnvBase, env=env)
        check_count("ParticleEnv", num_particles=num_particles)
        if len(env.batch_size) != 1:
            hint = "" if env.batch_size else "; wrap simulators in SerialEnv or ParallelEnv"
            raise ValueError(
                "ParticleEnv: env must have one batch dimension, got batch size "
                f"{list(env.batch_size)}{hint}"
            )
        rows = env.batch_size[0]
        if rows % num_particles:
            raise ValueError(
                f"ParticleEnv: num_particles must divide the {rows} rows of env, got "
                f"{num_particles}"
            )
        batch = torch.Size((num_particles, rows // num_particles))
        super().__init__(device=env.device, batch_size=batch)
        self.env = env
        specs = {name: _unflatten(getattr(env, f"full_{name}"), name, batch) for name in _SPECS}
        # Simulators may have an entry of this name, which is then left to them.
        self._writes_particle = "particle" not in specs["observation_spec"].keys()  # noqa: SIM118
        if self._writes_particle:
            index = Categorical(num_particles, shape=(*batch, 1), device=env.device)
            specs["observation_spec"]["particle"] = index
        for name, spec in specs.items():
            setattr(self, name, spec)

    def to(self, device: torch.device | str | int) -> Self:
        """Move the environment and the one it views."""
        super().to(device)
        self.env = self.env.to(device)
        return self

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        flat = None if tensordict is None else tensordict.reshape(-1)
        return self._view(self.env.reset(flat, **kwargs), None)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        following = self.env.step(tensordict.reshape(-1)).get("next")
        return self._view(following, tensordict.get("particle", None))

    def _view(self, flat: TensorDictBase, particle: Tensor | None) -> TensorDictBase:
        data = dict(flat.exclude("_reset").reshape(*self.batch_size).items())
        if self._writes_particle:
            if particle is None:
                rows = torch.arange(self.batch_size[0], device=self.device)
                particle = rows.view(-1, 1, 1).repeat(1, self.batch_size[1], 1)
            data["particle"] = particle
        return TensorDict(data, self.batch_size, device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        self.env.set_seed(seed)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the simulators."""
        super().close(raise_if_closed=raise_if_closed)
        if not self.env.is_closed:  # simulators that have not started count as closed
            self.env.close()


def _unflatten(spec: Composite, name: str, batch: torch.Size) -> Composite:
    try:
        return spec.unflatten(0, batch)
    except NotImplementedError as error:  # of a stack of unequal specs
        first, *others = (dict(row.items(True, True)) for row in spec.unbind(0))
        unequal = {
            key
            for other in others
            for key in first.keys() | other.keys()
            if key not in first or key not in other or first[key] != other[key]
        }
        where = ", ".join(sorted(map(repr, unequal))) or "a stack inside"
        raise ValueError(
            "ParticleEnv: env must have simulators of equal specs, got "
            f"{name} that differs in {where}"
        ) from error
