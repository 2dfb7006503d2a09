"""Stein variational policy gradient over a population whose rows live on several processes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDictBase
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Distribution
from torchrl.objectives import LossModule

from torchrl_stein.kernels import Kernel
from torchrl_stein.kernels.base import observers
from torchrl_stein.modules import ParticleModule

from .stein_policy import LocalExchange, SteinPolicyLoss

__all__ = ["ShardedSteinPolicyLoss"]

_OWNER = "ShardedSteinPolicyLoss"


class ShardedSteinPolicyLoss(SteinPolicyLoss):
    r"""SteinPolicyLoss for n particles on R processes, n / R on each: the gradient of one process.

    Rank r has a :class:`~torchrl_stein.modules.ParticleModule` with the rows r n / R to
    (r + 1) n / R - 1 of the population, data of batch size ``[n / R, ...]`` of these, and an
    optimizer of its own. With L_j the part of the wrapped loss, and of the prior, that belongs to
    particle j, the gradient of the summed losses on the rank that has particle i is

    .. math::
        \frac{\partial}{\partial\theta_i} = \frac{1}{n} \sum_{j=1}^{n} \left[
            k(\theta_j, \theta_i) \nabla L_j
            - \alpha \nabla_{\theta_j} k(\theta_j, \theta_i) \right],

    where j runs over the particles of all ranks: row i of what :class:`SteinPolicyLoss` gives the
    whole population, to rounding. An update communicates twice: ``forward`` gathers the columns
    that the kernel sees, ``backward`` their gradients, ``[n, kernel_dim]`` each. The kernel is
    evaluated on every rank; networks, data and optimizer are divided.

    Every loss is this rank's share of the loss of one process: **the sum over the ranks is its
    value**, and gradients of critics on a rank are right as they are. Of parameters that all ranks
    hold, such as a single critic, sum the gradients before the step
    (``torch.distributed.all_reduce(parameter.grad)``). All this needs a mask of the data, if there
    is one, to keep as many entries on every rank. "kernel_offdiag", "kernel_bandwidth" and
    the numbers of ``diagnose()`` are those of the whole population, on every rank; diagnostics of
    the wrapped loss, such as "entropy", are of this rank's particles.

    All ranks must do the same in the same order: build the loss, ``forward``, one ``backward``,
    ``diagnose()``. A rank that raises leaves the others waiting until they are ended, as
    ``torchrun`` does, or time out. CPU tensors need the backend "gloo", CUDA tensors "nccl", which
    wants ``torch.cuda.set_device(local_rank)`` first. Gradients of gradients are not available.

    Args:
        loss_module: over this rank's particles. It and the others are as for
            :class:`SteinPolicyLoss`; kernel and temperature are the same on all ranks.
        process_group: the R processes; None for all of them.
        kernel: one of the flat parameters alone.
        temperature: alpha.
        prior: of this rank's particles.
        coupled: name of the parameters.

    Attributes:
        rank: of this process.
        world_size: R.

    Raises:
        RuntimeError: if torch.distributed is not initialised.
        ValueError: if this process is not in ``process_group``; if ``kernel`` observes the data
            (:class:`~torchrl_stein.kernels.BehaviourKernel`); if the particles are those of several
            seeds or share parameters; if ranks differ in more than their particles, or two hold the
            same particle. Then those of :class:`SteinPolicyLoss`.

    Source: Liu et al. 2017 (arXiv:1704.02399), eq. (9), as :class:`SteinPolicyLoss`.

    Example:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from torch import nn
        >>> from torchrl.modules import OneHotCategorical, ProbabilisticActor, ValueOperator
        >>> from torchrl.objectives import ReinforceLoss
        >>> from torchrl_stein.modules import ParticleModule, shard_particles
        >>> # Under torchrun: dist.init_process_group("gloo"). Here one process without it.
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> policies = ParticleModule(lambda: nn.Linear(3, 2), 4)  # the same seed on all ranks
        >>> policies = shard_particles(policies, dist.get_rank(), dist.get_world_size())
        >>> actor = ProbabilisticActor(
        ...     TensorDictModule(policies, ["observation"], ["logits"]),
        ...     in_keys=["logits"], distribution_class=OneHotCategorical, return_log_prob=True,
        ... )
        >>> critic = ValueOperator(ParticleModule(lambda: nn.Linear(3, 1), policies.num_particles))
        >>> loss = ShardedSteinPolicyLoss(ReinforceLoss(actor, critic), temperature=10.0)
        >>> data = actor(TensorDict({"observation": torch.randn(4, 10, 3)}, [4, 10]))
        >>> data["advantage"] = data["value_target"] = torch.randn(4, 10, 1)
        >>> sum(v for k, v in loss(data).items() if k.startswith("loss_")).backward()
        >>> policies.particles.grad.shape
        torch.Size([4, 8])
        >>> dist.destroy_process_group()
    """

    def __init__(
        self,
        loss_module: LossModule,
        *,
        process_group: dist.ProcessGroup | None = None,
        kernel: Kernel | None = None,
        temperature: float | Tensor | Callable[[int], float | Tensor] = 10.0,
        prior: Distribution | Callable[[Tensor], Tensor] | None = None,
        coupled: str = "actor_network_params",
    ) -> None:
        exchange = _RankExchange(process_group)
        super().__init__(
            loss_module,
            kernel=kernel,
            temperature=temperature,
            prior=prior,
            coupled=coupled,
            exchange=exchange,
        )
        _check_ranks(self.population, self.kernel, float(self.temperature), process_group)
        exchange.begin(self.population.num_particles)
        self.rank, self.world_size = exchange.rank, exchange.world_size
        self.process_group = process_group


class _RankExchange(LocalExchange):
    """Particles meet over torch.distributed: two all-gathers per update."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.rank, self.world_size = _check_process_group(group)
        self.group = group
        self._gathered: Tensor | None = None

    def begin(self, num_particles: int) -> None:
        """Take note of how many particles a rank has."""
        self.rows = slice(self.rank * num_particles, (self.rank + 1) * num_particles)

    def gather(self, points: Tensor) -> Tensor:
        self._gathered = None  # freed before the next one is made
        self._gathered = _gather_rows(points, self.world_size, self.group)
        return self._gathered

    def latest(self, points: Tensor) -> Tensor:
        # Those of the last forward, without further communication.
        return points if self._gathered is None else self._gathered

    def couple(self, particles: Tensor, gram: Tensor, num_columns: int) -> Tensor:
        own = gram[:, self.rows]
        result: Tensor = _CoupledRows.apply(particles, own, num_columns, self.group)
        return result

    def share(self, losses: TensorDictBase) -> None:
        for name in list(losses.keys()):
            if name.startswith("loss"):  # a mean over n / R particles, to become a part of one of n
                losses.set(name, losses.get(name) / self.world_size)

    def norms(self, *vectors: Tensor) -> tuple[Tensor, ...]:
        squares = torch.stack([vector.square().sum() for vector in vectors])
        dist.all_reduce(squares, group=self.group)
        return squares.sqrt().unbind()


class _CoupledRows(torch.autograd.Function):
    """Particles as they are, with the gradient ``sum_j k(x_j, x_i) g_j`` over those of all ranks.

    Linear in the incoming gradient, so that losses may be scaled and gradients accumulated.
    """

    @staticmethod
    def forward(
        ctx: Any, particles: Tensor, columns: Tensor, width: int, group: dist.ProcessGroup | None
    ) -> Tensor:
        """K's columns of our particles ``[n, n / R]``; ``width`` columns of particles feel it."""
        ctx.save_for_backward(columns)
        ctx.width, ctx.group = width, group
        return particles.view_as(particles)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (columns,) = ctx.saved_tensors
        n, own = columns.shape
        rows = _gather_rows(gradient[:, : ctx.width], n // own, ctx.group)
        coupled = columns.mT @ rows
        if ctx.width < gradient.shape[1]:
            coupled = torch.cat([coupled, gradient[:, ctx.width :]], -1)
        return coupled, None, None, None


def _gather_rows(own: Tensor, world_size: int, group: dist.ProcessGroup | None) -> Tensor:
    """Rows ``[n / R, d]`` of all ranks, ``[n, d]``, in the order of the ranks."""
    rows = own.new_empty(world_size * own.shape[0], own.shape[1])
    # Renamed in torch 2.13, where the old name warns.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(rows, own.contiguous(), group=group)
    return rows


# What ranks compare with each other all of them refuse, or none does. What a rank finds wrong with
# its own arguments it refuses alone, and ``torchrun`` then ends the others.


def _check_process_group(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Rank and number of ranks, once there is a group that this process belongs to."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            f"{_OWNER}: process_group must be initialised, call torch.distributed."
            "init_process_group first (torchrun sets what it reads); there is none"
        )
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError(
            f"{_OWNER}: process_group must contain this process, global rank {dist.get_rank()}, "
            "got a group without it"
        )
    return rank, dist.get_world_size(group)


def _check_ranks(
    population: ParticleModule, kernel: Kernel, temperature: float, group: dist.ProcessGroup | None
) -> None:
    """Require that ranks hold equal parts of one population, and a kernel that can span them."""
    _check_kernel(kernel)
    if population.shared is not None:
        raise ValueError(
            f"{_OWNER}: loss_module must have a ParticleModule without shared parameters, whose "
            f"copies on the ranks would drift apart; got shared of size {population.shared.numel()}"
        )
    if len(population.leading) > 1:
        raise ValueError(
            f"{_OWNER}: loss_module must hold the population of one seed [n, d] (give each seed "
            f"processes of its own, process_group=...), got {population.leading[0]} seeds"
        )
    facts = {
        "number of particles": population.num_particles,
        "number of parameters": population.num_parameters,
        "number of parameters that the kernel sees": population.kernel_dim,
        "dtype": str(population.particles.dtype),
        "temperature": temperature,
        "kernel": _describe(kernel),
    }
    # Once, and not per update: Python objects of all ranks, so that all see the same.
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, (facts, _fingerprints(population.particles)), group=group)
    _check_facts([facts for facts, _ in found])
    _check_distinct([prints for _, prints in found])


def _check_kernel(kernel: Kernel) -> None:
    for name in observers(kernel):
        raise ValueError(
            f"{_OWNER}: kernel must not observe the data, since a rank has those of its own "
            f"particles alone, got {name}"
        )


def _describe(kernel: Kernel) -> str:
    """Types, numbers and buffers of a kernel and its parts; functions by their name."""
    lines = []
    for name, part in kernel.named_modules():
        values = {k: v for k, v in vars(part).items() if not k.startswith("_") and k != "training"}
        words = [f"{k}={_words(v)}" for k, v in sorted(values.items())]
        lines.append(f"{name and name + ': '}{type(part).__name__}({', '.join(words)})")
    lines += [f"{k}={v.tolist()}" for k, v in kernel.state_dict().items()]
    return "; ".join(lines)


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(value.tolist())
    # The usual words of functions and objects hold an address, which differs between processes.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _check_facts(found: list[dict[str, Any]]) -> None:
    for rank, facts in enumerate(found):
        for name, value in facts.items():
            if value != found[0][name]:
                raise ValueError(
                    f"{_OWNER}: loss_module, kernel and temperature must be alike on all ranks; "
                    f"{name} is {found[0][name]} on rank 0 and {value} on rank {rank}"
                )


def _check_distinct(found: list[list[str]]) -> None:
    seen: dict[str, tuple[int, int]] = {}
    for rank, prints in enumerate(found):
        for row, fingerprint in enumerate(prints):
            first = seen.setdefault(fingerprint, (rank, row))
            if first[0] != rank:
                raise ValueError(
                    f"{_OWNER}: loss_module must hold other particles on every rank, got particle "
                    f"{row} of rank {rank} equal to particle {first[1]} of rank {first[0]}; build "
                    "the whole population under one seed and keep this rank's rows, see "
                    "torchrl_stein.modules.shard_particles"
                )


def _fingerprints(particles: Tensor) -> list[str]:
    rows = particles.detach().cpu().contiguous().view(torch.uint8).numpy()
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]
