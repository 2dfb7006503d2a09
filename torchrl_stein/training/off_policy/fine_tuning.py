"""Going on from networks that were trained on another task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torchrl.checkpoint import Checkpoint
from torchrl.objectives import LossModule

from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import LinearSchedule, LogLinearSchedule, SoftQLoss

from ..bookkeeping.checkpoint import find_checkpoint
from ..trust_region import TrustRegion

__all__ = ["Annealing", "load_pretrained", "make_annealing", "read_component"]


@dataclass(frozen=True)
class Annealing:
    """From a stochastic policy to a nearly deterministic one: call it before each update.

    The temperature falls by equal factors. If the sampler has a noise set, the number of its
    values that are drawn falls linearly to 1. Both depend on the number of updates alone, so a
    resumed run goes on exactly.

    Attributes:
        loss: whose ``temperature`` is set, and whose actor's noise is limited.
        temperature: by the number of updates.
        num_noise: likewise, rounded, or None.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), appendix D.1.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> spec = Bounded(-1.0, 1.0, shape=(2,))
        >>> actor = AmortizedSVGDActor(MLP(5, 2), action_spec=spec, noise_set_size=32)
        >>> qvalue = ValueOperator(MLP(5, 1), in_keys=["observation", "action"])
        >>> loss = SoftQLoss(actor, qvalue, temperature=0.1)
        >>> anneal = make_annealing(loss, updates=10, temperature=0.001)
        >>> anneal(5)
        >>> round(loss.temperature.item(), 6), actor.num_noise.item()
        (0.01, 16)
    """

    loss: SoftQLoss
    temperature: LogLinearSchedule
    num_noise: LinearSchedule | None

    def __call__(self, updates: int) -> None:
        """Set what follows from the number of updates done."""
        # Filled: assigning would copy a number from the host, for which an accelerator waits.
        self.loss.temperature.fill_(self.temperature(updates))
        if self.num_noise is not None:
            assert isinstance(self.loss.actor_network, AmortizedSVGDActor)
            self.loss.actor_network.limit_noise(round(self.num_noise(updates)))


def make_annealing(loss: SoftQLoss, *, updates: int, temperature: float) -> Annealing | None:
    """The annealing of a recipe, or None for 0 ``updates``.

    Args:
        loss: its temperature now is the first one.
        updates: over which it is done.
        temperature: the last one, in the units of the rewards that the loss sees.

    Raises:
        ValueError: if ``updates`` < 0 or ``temperature`` is not positive and finite.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> actor = AmortizedSVGDActor(MLP(5, 2), action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> loss = SoftQLoss(actor, ValueOperator(MLP(5, 1), in_keys=["observation", "action"]))
        >>> make_annealing(loss, updates=0, temperature=0.001) is None
        True
    """
    if updates < 0:
        raise ValueError(f"annealing: updates must be >= 0, got {updates}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"annealing: temperature must be > 0 and finite, got {temperature}")
    if updates == 0:
        return None
    noise_set = getattr(loss.actor_network, "noise_set", None)
    return Annealing(
        loss,
        LogLinearSchedule(float(loss.temperature), temperature, updates),
        None if noise_set is None else LinearSchedule(float(len(noise_set)), 1.0, updates),
    )


def load_pretrained(
    path: str | Path, loss: LossModule, trust_region: TrustRegion | None = None
) -> None:
    """Start from the networks of another run; all the rest stays as it is.

    Weights of policy, critics and targets are copied. Temperature, discount, a noise set and the
    bounds of actions remain those of ``loss``.

    Args:
        path: a checkpoint or a run directory.
        loss: with networks of the same shapes.
        trust_region: of the policy of ``loss``; what was loaded becomes its previous policy.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the networks differ, naming the first difference.

    Example:
        >>> import tempfile
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> from torchrl_stein.training import Checkpoints
        >>> def build():
        ...     actor = AmortizedSVGDActor(MLP(5, 2), action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        ...     qvalue = ValueOperator(MLP(5, 1), in_keys=["observation", "action"])
        ...     return SoftQLoss(actor, qvalue)
        >>> pretrained, loss = build(), build()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = Checkpoints(Path(folder), loss=pretrained, config={}, others={})
        ...     load_pretrained(checkpoints.save(step=1), loss)
        >>> (loss.actor_network_params == pretrained.actor_network_params).all()
        True
    """
    path = find_checkpoint(path)
    state = read_component(path, "loss")
    own = loss.state_dict()
    saved, here = _weights(state, loss), _weights(own, loss)
    for name in sorted({*saved, *here}):
        shapes = [list(part[name].shape) if name in part else "none" for part in (saved, here)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"init_from: {name} has shape {shapes[0]} in {path} and {shapes[1]} here"
            )
    own.update(saved)
    loss.load_state_dict(own)
    if trust_region is not None:
        region = trust_region.loss
        region.target_actor_network_params.data.copy_(region.actor_network_params.data)


class _StateReader:
    """Takes the place of a component whose saved state is wanted as it is."""

    state: Mapping[str, Any]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = state


def read_component(path: str | Path, name: str) -> Mapping[str, Any]:
    """The state of one component of a checkpoint, as it was saved.

    Args:
        path: a checkpoint or a run directory.
        name: such as "loss" or "buffer".

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the checkpoint has no such component.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from torchrl_stein.training import Checkpoints
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = Checkpoints(Path(folder), loss=nn.Linear(2, 1), config={}, others={})
        ...     sorted(read_component(checkpoints.save(step=1), "loss"))
        ['bias', 'weight']
    """
    path = find_checkpoint(path)
    held = Checkpoint.manifest(path)["components"]
    if name not in held:
        raise ValueError(f"the checkpoint {path} holds no {name}, only {sorted(held)}")
    reader = _StateReader()
    Checkpoint(**{name: reader}).load(path, components=[name], map_location="cpu")
    return reader.state


def _weights(state: Mapping[str, Any], loss: LossModule) -> dict[str, Tensor]:
    """What networks learn: entries of a parameter container that are no buffers."""
    buffers = {name for name, _ in loss.actor_network.named_buffers()} | {"noise_set", "num_noise"}
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, Tensor)
        and "_network_params." in name
        and name.split("_network_params.")[1] not in buffers
    }
