"""Going on from networks that were trained on another task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torchrl.objectives import LossModule

from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import LinearSchedule, LogLinearSchedule, SoftQLoss

from .checkpoint import compare_states, find_checkpoint, read_component

__all__ = ["load_pretrained", "make_annealing"]


def make_annealing(loss: SoftQLoss, *, updates: int, temperature: float) -> Callable[[int], None]:
    """From a stochastic policy to a nearly deterministic one: call it before each update.

    The temperature falls by equal factors. If the sampler has a noise set, the number of its
    values that are drawn falls linearly to 1. Both depend on the number of updates alone, so a
    resumed run goes on exactly.

    Args:
        loss: its temperature now is the first one.
        updates: over which it is done; 0: never.
        temperature: the last one, in the units of the rewards that the loss sees.

    Returns:
        Callable: ``anneal(updates done)``.

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
    if updates == 0:
        return lambda done: None
    actor = loss.actor_network
    falling = LogLinearSchedule(float(loss.temperature), temperature, updates)
    noise_set = getattr(actor, "noise_set", None)

    def anneal(done: int) -> None:
        # Filled: assigning would copy a number from the host, for which an accelerator waits.
        loss.temperature.fill_(falling(done))
        if isinstance(actor, AmortizedSVGDActor) and noise_set is not None:
            actor.limit_noise(round(LinearSchedule(float(len(noise_set)), 1.0, updates)(done)))

    return anneal


def load_pretrained(path: str | Path, loss: LossModule) -> None:
    """Start from the networks of another run; all the rest stays as it is.

    Weights of policy, critics and targets are copied. Temperature, discount, a noise set and the
    bounds of actions remain those of ``loss``. A trust region that is made afterwards has the
    loaded policy as its previous one.

    Args:
        path: a checkpoint or a run directory.
        loss: with networks of the same shapes.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        CheckpointError: if it is damaged, or the networks differ, naming the first difference.
    """
    found = find_checkpoint(path)
    own = loss.state_dict()
    saved = _weights(read_component(found, "loss"), loss)
    compare_states(saved, _weights(own, loss), f"init_from: {found}")
    own.update(saved)
    loss.load_state_dict(own)
    print(f"Starting with the networks of {found}")  # noqa: T201


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
