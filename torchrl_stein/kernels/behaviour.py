"""A kernel between policies: how differently do they act in the same states?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor, nn
from torch.func import functional_call

from torchrl_stein._checks import check_choice, check_count, check_keys, check_number
from torchrl_stein.functional import (
    categorical_jensen_shannon,
    categorical_symmetric_kl,
    gaussian_jensen_shannon_bound,
    gaussian_symmetric_kl,
)
from torchrl_stein.functional.distance import check_points

from .base import Evaluation, Kernel

# Name -> entries that describe a distribution -> divergence between two such distributions.
_DIVERGENCES: dict[str, dict[tuple[str, ...], Callable[..., Tensor]]] = {
    "jensen_shannon": {
        ("loc", "scale"): gaussian_jensen_shannon_bound,
        ("logits",): categorical_jensen_shannon,
    },
    "symmetric_kl": {
        ("loc", "scale"): gaussian_symmetric_kl,
        ("logits",): categorical_symmetric_kl,
    },
}


class BehaviourKernel(Kernel):
    """k(x, y) = exp(-mean_s D(pi_x(.|s), pi_y(.|s)) / scale) between policies.

    x and y are parameters, but whatever no action depends on counts for nothing. The states s are a
    sample of the batch that :meth:`observe` was shown last (losses call it); of several seeds, of
    their own seed's data. The gradient is exact and costs one backward pass of the population per
    particle. The repulsion is made of gradients at the other particles, so it drives behaviour
    apart as far as the networks agree in what a parameter does: fully if they descend from one
    ancestor, partly if they were drawn independently.

    The network must write "loc" and "scale" (diagonal Gaussian) or "logits" (categorical, finite).
    A bijection of the action changes no divergence, so that for TanhNormal (with
    ``tanh_loc=False``) they are those of the Gaussian under the tanh. Dropout is off.

    Args:
        actor: ProbabilisticActor or TensorDictModule around one population, that is a module
            with a parameter ``particles`` ``[n, d]`` such as ParticleModule. Columns outside
            ``kernel_dim`` and all other parameters are taken from it as they are at each
            evaluation: give it the actor that is trained.
        divergence: ``"jensen_shannon"`` (exact for categoricals; for Gaussians the bound
            :func:`~torchrl_stein.functional.gaussian_jensen_shannon_bound`) or
            ``"symmetric_kl"`` (KL + KL, grows without limit). The first makes k positive
            semi-definite at every scale; the second only between Gaussians of one variance.
        scale: in nats, > 0; large: all policies alike, small: none.
        num_states: >= 1, taken at even distances from the flattened batch, so that the data of all
            particles contribute.

    Raises:
        KeyError: in ``observe``, if the batch lacks what the network reads.
        RuntimeError: in ``evaluate``, before any ``observe``.

    Source: the kernel exp(-JS / T), T = 0.5, of Gangwani et al. 2018 (arXiv:1805.10309). Differs:
    between action distributions on shared states, in closed form, not between state-action
    visitations by learned density ratios; and the gradient in the first argument is exact.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> class Bandits(nn.Module):  # a population whose parameters are the logits
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.particles = nn.Parameter(torch.tensor([[0.0, 0.0], [3.0, 3.0]]))
        ...     def forward(self, observation):
        ...         return self.particles.unsqueeze(1).expand(*observation.shape[:2], 2)
        >>> actor = TensorDictModule(Bandits(), ["observation"], ["logits"])
        >>> kernel = BehaviourKernel(actor)
        >>> kernel.observe(TensorDict({"observation": torch.zeros(2, 5, 1)}, [2, 5]))
        >>> kernel(actor.module.particles.detach())  # far apart, but the same behaviour
        tensor([[1., 1.],
                [1., 1.]])
    """

    def __init__(
        self,
        actor: nn.Module,
        *,
        divergence: str = "jensen_shannon",
        scale: float = 0.5,
        num_states: int = 64,
    ) -> None:
        super().__init__()
        if not hasattr(actor, "in_keys"):
            raise TypeError(
                "BehaviourKernel: actor must be a ProbabilisticActor or TensorDictModule, got "
                f"{type(actor).__name__}"
            )
        check_choice("BehaviourKernel", _DIVERGENCES, divergence=divergence)
        check_number("BehaviourKernel", above=0, scale=scale)
        check_count("BehaviourKernel", num_states=num_states)
        self.divergence, self.scale, self.num_states = divergence, scale, num_states
        # Not a submodule: whoever trains the actor owns its parameters.
        self._policies = _Policies(actor)
        self._states: TensorDictBase | None = None

    def extra_repr(self) -> str:
        """What ``print(kernel)`` shows."""
        return f"divergence={self.divergence!r}, scale={self.scale}, num_states={self.num_states}"

    def observe(self, tensordict: TensorDictBase) -> None:
        """Take the states on which policies are compared from a batch ``[n, ...]``."""
        seeds = self._policies.seeds
        total = tensordict.batch_size[len(seeds) :].numel()
        if tensordict.batch_size[: len(seeds)] != seeds:
            raise ValueError(
                f"BehaviourKernel: observe needs a batch of the {seeds[0]} seeds, got batch size "
                f"{list(tensordict.batch_size)}"
            )
        if total == 0:
            raise ValueError(
                "BehaviourKernel: observe needs at least one state, got batch size "
                f"{list(tensordict.batch_size)}"
            )
        check_keys("BehaviourKernel", tensordict, self._policies.network.in_keys)
        rows = tensordict.select(*self._policies.network.in_keys).detach().reshape(*seeds, -1)
        count = min(total, self.num_states)
        # The middle of each of `count` equal stretches: the first row of a particle is often the
        # state after a reset, which is the same for all.
        middle = (2 * torch.arange(count, device=rows.device) + 1) * total // (2 * count)
        self._states = rows[..., middle]

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        check_points("BehaviourKernel", x, y)
        if self._states is None:
            raise RuntimeError(
                "BehaviourKernel: no states to compare policies on; call observe(batch) before "
                "(losses do)"
            )
        states = self._states
        if y is not None:
            batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
            x = x.expand(batch + x.shape[-2:])
        # torch.func works under torch.no_grad, too, and writes to no .grad.
        behaviour, pull_back = torch.func.vjp(lambda p: self._policies(p, states), x)[:2]
        other = behaviour if y is None else self._policies(y, states)
        rows = {key: value.unsqueeze(-3) for key, value in behaviour.items()}
        columns = {key: value.unsqueeze(-4) for key, value in other.items()}
        gram = self._compare(rows, columns)

        def repulsion(weights: Tensor | None) -> Tensor:
            w = torch.ones_like(gram) if weights is None else weights
            # With a copy of what x_j does for each y_i, one backward gives W_ji dk(x_j, y_i) / d
            # (what x_j does) for all pairs: [..., n, m, s, A], small.
            copies = {
                key: value.expand(*gram.shape, *value.shape[-2:]) for key, value in rows.items()
            }
            slopes = torch.func.grad(lambda own: (w * self._compare(own, columns)).sum())(copies)
            # Row j of what the network pulls back belongs to x_j alone, so that one pass per y_i
            # serves all j, and memory stays [..., n, d].
            passes = (
                pull_back({key: slope[..., i, :, :] for key, slope in slopes.items()})[0]
                for i in range(gram.shape[-1])
            )
            return torch.stack([gradients.sum(-2) for gradients in passes], -2)

        return Evaluation(gram, repulsion)

    def _compare(self, first: dict[str, Tensor], second: dict[str, Tensor]) -> Tensor:
        # Entries [..., n, m, s, A], broadcast, to k [..., n, m].
        formula = _DIVERGENCES[self.divergence][tuple(first)]
        divergence = formula(*first.values(), *second.values()).mean(-1)
        return torch.exp(-divergence / self.scale)


class _Policies:
    """The action distributions of a population as a pure function of its flat particles."""

    def __init__(self, actor: Any) -> None:
        # Without the part that samples.
        is_actor = isinstance(actor, ProbabilisticTensorDictSequential)
        self.network: Any = actor.det_part if is_actor else actor
        found = [
            name
            for name, parameter in self.network.named_parameters()
            if name.rpartition(".")[-1] == "particles" and parameter.ndim in (2, 3)
        ]
        if len(found) != 1:
            raise ValueError(
                "BehaviourKernel: actor must contain exactly one population (a module with a "
                f"parameter `particles` [n, d]), found {found}"
            )
        self.name = found[0]
        self.population: Any = self.network.get_submodule(self.name.rpartition(".")[0])
        self.seeds: torch.Size = self.population.particles.shape[:-2]  # (S,) or ()

    def __call__(self, particles: Tensor, states: TensorDictBase) -> dict[str, Tensor]:
        """``[..., n, kernel_dim]`` and states ``[s]`` -> entries ``[..., n, s, A]``.

        Of several seeds ``[S, n, kernel_dim]`` and ``[S, s]`` -> ``[S, n, s, A]``.
        """
        flat = self._with_outside_columns(particles)
        inputs = states.apply(lambda value: value.to(flat) if value.is_floating_point() else value)
        inputs = inputs.unsqueeze(-2).expand(*flat.shape[:-1], states.shape[-1])
        # Swapped in for the call and back after it, come what may. Detached: k is a function of
        # the particles alone.
        weights = {name: value.detach() for name, value in self.network.named_parameters()}
        with _evaluation_mode(self.network):
            output = functional_call(self.network, weights | {self.name: flat}, (inputs,))
        written = set(output.keys())
        for entries in (("loc", "scale"), ("logits",)):
            if written.issuperset(entries):
                shape = (*particles.shape[:-1], states.shape[-1], -1)
                return {key: output[key].reshape(shape) for key in entries}
        raise ValueError(
            "BehaviourKernel: the network of the actor must write 'loc' and 'scale', or 'logits', "
            f"got {sorted(written - set(self.network.in_keys))}"
        )

    def _with_outside_columns(self, particles: Tensor) -> Tensor:
        own = self.population.particles.detach()
        width = getattr(self.population, "kernel_dim", own.shape[-1])
        outside = own[..., width:].to(particles)
        if self.seeds and particles.shape[:-2] != self.seeds:
            raise ValueError(
                f"BehaviourKernel: x and y must be [{self.seeds[0]}, n, {width}] (seeds of the "
                f"population, kernel_dim), got shape {list(particles.shape)}"
            )
        if particles.shape[-1] != width:
            raise ValueError(
                f"BehaviourKernel: x and y must have {width} columns (kernel_dim of the "
                f"population), got shape {list(particles.shape)}"
            )
        if outside.shape[-1] > 0:
            if particles.shape[-2] != outside.shape[-2]:
                raise ValueError(
                    f"BehaviourKernel: x and y must have {outside.shape[-2]} rows, since each "
                    "particle has columns outside the kernel, got shape "
                    f"{list(particles.shape)}"
                )
            outside = outside.expand(*particles.shape[:-1], outside.shape[-1])
            particles = torch.cat([particles, outside], -1)
        return particles if self.seeds else particles.reshape(-1, own.shape[-1])


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:  # parents first: what they set, their children undo
            module.train(mode)
