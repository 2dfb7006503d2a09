"""Stein variational policy gradient (Liu et al. 2017, arXiv:1704.02399) over any TorchRL loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor
from torch.distributions import Distribution
from torchrl.objectives import LossModule

from torchrl_stein._checks import check_finite, check_number, check_type, may_look
from torchrl_stein._torchrl import call_with_parameters
from torchrl_stein.functional import couple_particles, repulsion_surrogate, squared_distances
from torchrl_stein.functional.distance import distinct_pairs
from torchrl_stein.kernels import (
    DriftControl,
    IdentityKernel,
    Kernel,
    RadialControl,
    RBFKernel,
)
from torchrl_stein.modules.population import check_rows, find_population, particles_key

from ._action_spec import check_action_spec
from ._loss_wrapper import LossWrapper
from ._watches import (
    HostCount,
    KernelWatch,
    RatioWatch,
    ScheduleWatch,
    warn_of_pooled_advantages,
)
from .priors import check_prior, log_prior

__all__ = ["LocalExchange", "SteinPolicyLoss"]


_WITHOUT_INTERACTION = (IdentityKernel, DriftControl, RadialControl)  # on purpose


class LocalExchange:
    """Where the loss finds the other particles: in this process, so nothing is sent.

    ``_RankExchange`` of ``sharded_stein.py`` overrides every method to fetch those of other ranks.

    Attributes:
        rows: which of the gathered particles are ours.
    """

    rows = slice(None)

    def gather(self, points: Tensor) -> Tensor:
        """What the kernel sees of all particles, from what it sees of ours."""
        return points

    def latest(self, points: Tensor) -> Tensor:
        """All particles as they were at the last ``gather``, where they are still the same."""
        return points

    def couple(self, particles: Tensor, gram: Tensor, num_columns: int) -> Tensor:
        """Our particles, coupled to all; see :func:`couple_particles`."""
        return couple_particles(particles, gram, num_columns)

    def share(self, losses: TensorDictBase) -> None:
        """Turn losses, which are means over our particles, into our part of those over all."""

    def norms(self, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Norms over all particles of vectors of which we have ours."""
        return tuple(vector.norm() for vector in vectors)


class SteinPolicyLoss(LossWrapper):
    r"""Turns a TorchRL policy loss over a population into a Stein variational policy gradient.

    The wrapped loss sees a :class:`~torchrl_stein.modules.ParticleModule` as one network and data
    of batch size ``[n, ...]``, whose row i belongs to particle i. It is not changed: its values
    stay, only the gradient that reaches the particles is another one. With alpha the temperature
    and J_j the mean over the data of particle j of what the loss maximizes, the gradient of the
    summed losses is

    .. math::
        \frac{\partial}{\partial\theta_i} = -\frac{1}{n} \sum_j \left[
            k(\theta_j, \theta_i) \nabla (J_j + \alpha \log q_0(\theta_j))
            + \alpha \nabla_{\theta_j} k(\theta_j, \theta_i) \right],

    that is -alpha times eq. (9) of the paper, finite also for alpha -> 0. Any optimizer may
    descend it, and scaling or accumulating losses keeps its meaning.

    ``forward`` returns what the wrapped loss returns, and "loss_repulsion", with a prior
    "loss_prior", and the diagnostics "temperature", "kernel_offdiag" (mean of k between different
    particles) and, for kernels that have one, "kernel_bandwidth". With particles ``[S, n, d]`` and
    data ``[S, n, ...]`` of S independent seeds, the kernel couples those of one seed; losses and
    diagnostics are means over the seeds, so each has 1 / S of the gradient it would have alone.
    This needs a mask of the data, if there is one, to keep as many entries of every seed.

    Args:
        loss_module: a TorchRL loss with ``reduction="mean"`` whose actor contains one
            ParticleModule. Critics may be populations (trained side by side, unchanged) or not.
        kernel: between particles, on the flat parameters that are not ``outside_kernel``.
        temperature: alpha, in units of the scaled J: the published settings (alpha = 10) go with
            advantages standardised per particle and the mean over transitions. A real number
            (NumPy's and tensors of no dimension too), or a schedule ``step -> alpha``, any
            callable that returns one, which :meth:`step` advances.
        prior: q_0: a torch distribution or a callable ``[..., n, d] -> [..., n]``, such as
            :class:`~torchrl_stein.objectives.GaussianPrior`; None is flat.
        coupled: name of the parameters whose particles the kernel couples. Only these.
        exchange: where the other particles are; None: all are here. See
            :class:`~torchrl_stein.objectives.ShardedSteinPolicyLoss`.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: if ``temperature`` < 0, or ``loss_module`` does not average, has no ``coupled``
            network with exactly one ParticleModule, or took its target entropy or bounds from the
            batched ``env.action_spec``; in ``forward``, if the batch does not begin with the
            population's dimensions, an entry "particle" says that a row belongs to another
            particle, or particles or entries on a CPU are not finite.

    Warns once if ``loss_module`` standardises the advantages of all particles together, if the
    first batch of an on-policy loss (on a CPU) was not made by these policies, if a schedule is
    not advanced, and, in :meth:`step`, if the kernel says nothing.

    Source: Liu et al. 2017 (arXiv:1704.02399), eq. (9) and algorithm 1. Differs: divided by n as
    the base losses are, and multiplied by alpha.

    Example:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from torch import nn
        >>> from torchrl.modules import OneHotCategorical, ProbabilisticActor, ValueOperator
        >>> from torchrl.objectives import A2CLoss
        >>> from torchrl_stein.modules import ParticleModule
        >>> logits = ParticleModule(lambda: nn.Linear(3, 2), num_particles=4)
        >>> actor = ProbabilisticActor(
        ...     TensorDictModule(logits, ["observation"], ["logits"]),
        ...     in_keys=["logits"], distribution_class=OneHotCategorical, return_log_prob=True,
        ... )
        >>> critic = ValueOperator(ParticleModule(lambda: nn.Linear(3, 1), 4))
        >>> loss = SteinPolicyLoss(A2CLoss(actor, critic), temperature=10.0)
        >>> data = actor(TensorDict({"observation": torch.randn(4, 10, 3)}, [4, 10]))
        >>> data["advantage"] = data["value_target"] = torch.randn(4, 10, 1)
        >>> losses = loss(data)
        >>> sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
        >>> logits.particles.grad.shape
        torch.Size([4, 8])
    """

    _schedulable_buffers = frozenset({"temperature"})
    temperature: Tensor
    iteration: Tensor

    def __init__(
        self,
        loss_module: LossModule,
        *,
        kernel: Kernel | None = None,
        temperature: float | Tensor | Callable[[int], float | Tensor] = 10.0,
        prior: Distribution | Callable[[Tensor], Tensor] | None = None,
        coupled: str = "actor_network_params",
        exchange: LocalExchange | None = None,
    ) -> None:
        owner = "SteinPolicyLoss"
        kernel = RBFKernel() if kernel is None else kernel
        check_type(owner, "a TorchRL LossModule", LossModule, loss_module=loss_module)
        check_type(owner, "a Kernel", Kernel, kernel=kernel)
        check_type(owner, "the name of parameters", str, coupled=coupled)
        super().__init__()
        if getattr(loss_module, "reduction", "mean") != "mean":
            raise ValueError(
                "SteinPolicyLoss: loss_module must average (reduction='mean'), since temperature "
                f"weighs the repulsion against a mean; got reduction={loss_module.reduction!r}"
            )
        # The networks are no submodules: the wrapped loss owns the parameters.
        network_name = coupled.removesuffix("_params")
        network = getattr(loss_module, network_name, None)
        if network is None or not isinstance(getattr(loss_module, coupled, None), TensorDictBase):
            raise ValueError(
                f"SteinPolicyLoss: coupled={coupled!r} names no functional parameters of "
                f"{type(loss_module).__name__}"
            )
        name, population = find_population(owner, network_name, network)
        check_action_spec(owner, loss_module, population.leading[0])
        warn_of_pooled_advantages(loss_module, len(population.leading))
        if coupled != "actor_network_params" and loss_module.default_value_estimator is not None:
            loss_module.value_estimator  # noqa: B018 - DiscreteCQLLoss would build it from ours
        particles = population.particles
        check_prior(prior, particles)
        self._schedule = temperature if callable(temperature) else None
        start = temperature(0) if callable(temperature) else temperature
        check_number(owner, at_least=0, temperature=start)
        # Before loss_module, which may have a temperature of its own (IQLLoss).
        precision = torch.promote_types(particles.dtype, torch.float32)
        device = particles.device
        alpha = torch.tensor(_as_float(start), dtype=precision, device=device)
        self.register_buffer("temperature", alpha)
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64, device=device))
        self.kernel, self.prior, self.coupled = kernel, prior, coupled
        self.loss_module = loss_module
        self.__dict__["population"] = population
        self._particles_key = particles_key(name)
        self._exchange = LocalExchange() if exchange is None else exchange
        self._watch, self._host_count = KernelWatch(), HostCount()
        self._ratio_watch, self._schedule_watch = RatioWatch(), ScheduleWatch(self._schedule)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "temperature":
            check_number("SteinPolicyLoss", at_least=0, temperature=value)
            value = _as_float(value)  # of a tensor too: the buffer keeps its own dtype and device
        super().__setattr__(name, value)

    @property
    def particles(self) -> Tensor:
        """Parameters of the coupled population, ``[n, d]`` or ``[S, n, d]``."""
        # From the wrapped loss: in a deep copy of it the network is no longer tied to these.
        return getattr(self.loss_module, self.coupled).get(self._particles_key)

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Losses of the wrapped module with coupled gradients, and the repulsion.

        Args:
            tensordict: as the wrapped loss wants it, batch size ``[n, ...]`` or ``[S, n, ...]``.
        """
        self._look(tensordict)
        self.kernel.observe(tensordict)
        params, particles = getattr(self.loss_module, self.coupled), self.particles
        width, rows = self.population.kernel_dim, self._exchange.rows
        gram, repulsion, bandwidth = self._evaluate(self._exchange.gather(self._points()))
        coupled = self._exchange.couple(particles, gram, width)
        replaced = params.named_apply(
            lambda key, leaf: coupled if key == self._particles_key else leaf, nested_keys=True
        )
        losses = call_with_parameters(self.loss_module, self.coupled, replaced, tensordict)
        self._exchange.share(losses)
        # alpha / n, or alpha / (S n): a mean over particles and seeds, as the wrapped loss is.
        weight = self.temperature.to(particles.dtype) / gram.shape[:-1].numel()
        spread = repulsion_surrogate(particles[..., :width], gram[..., rows], repulsion[rows])
        losses.set("loss_repulsion", weight * spread)
        if self.prior is not None:
            losses.set("loss_prior", -weight * log_prior(self.prior, coupled).sum())
        losses.set("temperature", self.temperature.clone())
        losses.set("kernel_offdiag", _mean_between(gram))
        if bandwidth is not None:
            losses.set("kernel_bandwidth", bandwidth.mean())
        return losses

    def _look(self, tensordict: TensorDictBase) -> None:
        """What may be wrong with a batch, or with the order of calls."""
        owner, leading = "SteinPolicyLoss", self.population.leading
        check_rows(owner, tensordict, leading, self._exchange.rows.start)
        self._schedule_watch.count()
        if may_look(self.particles):
            check_finite(owner, {"particles": self.particles, **self._numbers(tensordict)})
            self._ratio_watch.look(self.loss_module, tensordict, len(leading))

    def _numbers(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Entries that the wrapped loss reads, as far as the batch has them."""
        tensor_keys = self.loss_module.tensor_keys
        advantage: Any = getattr(tensor_keys, "advantage", None)
        keys = [*(self.in_keys or ()), advantage, getattr(tensor_keys, "value_target", None)]
        entries = {key: tensordict.get(key, None) for key in keys if isinstance(key, (str, tuple))}
        if entries.get(advantage) is not None:  # then nobody reads what came after
            entries = {key: value for key, value in entries.items() if key[0] != "next"}
        return {key: value for key, value in entries.items() if isinstance(value, Tensor)}

    def _own_out_keys(self) -> list[str]:
        prior = ["loss_prior"] * (self.prior is not None)
        bandwidth = ["kernel_bandwidth"] * self.kernel.has_bandwidth
        return ["loss_repulsion", *prior, "temperature", "kernel_offdiag", *bandwidth]

    def step(self) -> int:
        """Count one iteration: advance the temperature, look whether the kernel still says much.

        Call it once per iteration, after the optimizer. Warns once if for many iterations the
        kernel was nearly the identity (particles do not interact) or nearly constant (they
        interact whatever the policies do). Returns the number of iterations.
        """
        self._ratio_watch.is_due = self._schedule_watch.is_due = False
        count = self._host_count.advance(self.iteration)
        if self._schedule is not None:
            alpha = self._schedule(count)
            check_number("SteinPolicyLoss", at_least=0, temperature=alpha)
            self.temperature.fill_(_as_float(alpha))
        if not isinstance(self.kernel, _WITHOUT_INTERACTION) and self._watch.is_due():
            self._watch.look(self._evaluate(self._exchange.latest(self._points()))[0])
        return count

    @torch.no_grad()
    def diagnose(self) -> dict[str, Tensor]:
        """Numbers of the population, between ``backward()`` and the optimizer's step.

        The gradient must be that of one ``forward``, neither accumulated nor scaled nor clipped.

        Returns:
            dict: "repulsion_ratio", norm of the repulsion over the norm of the kernel-averaged
            gradient of objective and prior, and "particle_distance", the median distance of two
            particles of a seed (0 for one).

        Raises:
            RuntimeError: if the particles have no gradient.
        """
        gradient = self.particles.grad
        if gradient is None:
            raise RuntimeError(
                "SteinPolicyLoss: call diagnose() after backward() and before zero_grad()"
            )
        points = self._exchange.latest(self._points())
        push = self._evaluate(points)[1][self._exchange.rows]
        push = push * (self.temperature / points.shape[:-1].numel())
        drive = -gradient[..., : self.population.kernel_dim] - push
        size, rest = self._exchange.norms(push, drive)
        ratio = torch.where(size == 0, size, size / rest)  # no push is no push
        return {"repulsion_ratio": ratio, "particle_distance": _median_distance(points)}

    def get_extra_state(self) -> dict[str, Any]:
        """What the columns of the particles mean; TorchRL's parameter containers do not say."""
        return self.population.get_extra_state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse particles of another architecture of the same size."""
        self.population.set_extra_state(state)

    def _points(self) -> Tensor:
        """What the kernel sees of our particles."""
        return self.particles.detach()[..., : self.population.kernel_dim]

    @torch.no_grad()
    def _evaluate(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        evaluation = self.kernel.evaluate(points)
        return evaluation.gram, evaluation.repulsion, evaluation.bandwidth


def _mean_between(gram: Tensor) -> Tensor:
    """Mean of k between different particles of a seed, ``[..., n, n]`` -> ``[]``; 0 for one."""
    pairs = gram.numel() - gram.shape[:-1].numel()
    own = gram.diagonal(dim1=-2, dim2=-1).sum()
    return (gram.sum() - own) / max(1, pairs)


def _median_distance(points: Tensor) -> Tensor:
    """Median distance of two particles of a seed, ``[..., n, d]`` -> ``[]``; 0 for one."""
    square = distinct_pairs(squared_distances(points), same=True)
    return square.median().sqrt() if square.numel() else points.new_zeros(())


def _as_float(number: float | Tensor) -> float:
    return number.item() if isinstance(number, Tensor) else float(number)
