"""Annealing towards a deterministic policy, for fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import LinearSchedule, LogLinearSchedule, SoftQLoss

__all__ = ["make_annealing"]


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
