"""Birth and death of particles: mass moves between modes, which no force between them can do."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchrl_stein._checks import check_number, check_type, may_look
from torchrl_stein.functional import birth_death_rates
from torchrl_stein.kernels import Kernel

from .particle_module import ParticleModule

__all__ = ["BirthDeath"]


class BirthDeath(nn.Module):
    r"""Replaces particles in crowded or poor places by copies of particles in good, empty ones.

    SVGD moves particles but keeps their number in every basin, so a policy that got stuck stays
    stuck. The birth-death process of the same target, density proportional to exp(J / alpha),
    removes particle i at the rate lambda_i of
    :func:`~torchrl_stein.functional.birth_death_rates` where it is positive, and puts a copy of
    another one in its place, drawn with weight exp(-lambda_j). Where copies of one particle have
    gathered, they die. Copies get a small jitter, so that they feel each other's repulsion; being
    close relatives, they share gradients that belong together, which independently drawn networks
    cannot. With a bandwidth that is a statistic of the population, crowded is relative: once most
    pairs are relatives, their distance is the measure.

    In a population of several seeds, means, standard deviations and parents are those of the
    particle's own seed.

    Args:
        population: whose particles are replaced, in place.
        kernel: between the columns that a kernel sees.
        scale: alpha in standard deviations of the returns over the population; small values make
            it a survival of the best.
        jitter: standard deviation of what is added to a copy, as a fraction of that of the
            weights of each layer.
        smoothing: weight of the past in the running mean of returns, in [0, 1).

    Raises:
        TypeError, ValueError: if an argument is of another kind or out of range; in
            :meth:`observe`, if returns are infinite or not one per particle; in :meth:`step`, if
            the optimizer does not move the particles, or a companion has not a row for each.

    Source: Lu, Lu & Nolen 2019 (arXiv:1905.09863), algorithm 1. Differs: dead particles are
    replaced by weight and not uniformly, births are not drawn separately, and J is standardised.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> _ = torch.manual_seed(0)
        >>> net = ParticleModule(lambda: nn.Linear(3, 2), num_particles=4)
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> process = BirthDeath(net, RBFKernel(), scale=0.01)
        >>> process.observe(torch.tensor([0.0, 0.0, 5.0, 0.0]))
        >>> process.step(optimizer).tolist()
        [2, 2, 2, 2]
    """

    population: ParticleModule
    kernel: Kernel
    returns: Tensor

    def __init__(
        self,
        population: ParticleModule,
        kernel: Kernel,
        *,
        scale: float = 1.0,
        jitter: float = 0.05,
        smoothing: float = 0.5,
    ) -> None:
        super().__init__()
        check_type("BirthDeath", "a ParticleModule", ParticleModule, population=population)
        check_type("BirthDeath", "a Kernel, an instance", Kernel, kernel=kernel)
        check_number("BirthDeath", above=0, scale=scale, jitter=jitter)
        check_number("BirthDeath", at_least=0, below=1, smoothing=smoothing)
        # Not submodules: the loss owns both.
        self.__dict__.update(population=population, kernel=kernel)
        self.scale = scale
        self.jitter = jitter
        self.smoothing = smoothing
        self.register_buffer(
            "returns", torch.full_like(population.particles[..., 0].detach(), torch.nan)
        )

    @torch.no_grad()
    def observe(self, returns: Tensor) -> None:
        """Take note of what particles earned lately.

        Args:
            returns: J_i, ``[n]`` or ``[S, n]``; NaN where nothing is known.
        """
        check_type("BirthDeath", "a tensor", Tensor, returns=returns)
        if returns.shape != self.returns.shape:
            raise ValueError(
                f"BirthDeath: returns must have shape {list(self.returns.shape)}, one per "
                f"particle, got {list(returns.shape)}"
            )
        if may_look(returns) and returns.isinf().any():
            raise ValueError("BirthDeath: returns must be finite, or NaN where unknown, got inf")
        mixed = self.smoothing * self.returns + (1 - self.smoothing) * returns
        mixed = torch.where(self.returns.isnan(), returns, mixed)
        self.returns.copy_(torch.where(returns.isnan(), self.returns, mixed))

    @torch.no_grad()
    def step(self, optimizer: Optimizer, companions: Iterable[nn.Module] = ()) -> Tensor:
        """Replace particles once.

        Args:
            optimizer: its state of replaced particles is copied too.
            companions: modules with one row per particle in each parameter and buffer, such as
                critics; copied exactly.

        Returns:
            Tensor: the parent of every particle within its seed, ``[n]`` or ``[S, n]``, int64:
            its own index if it stays.
        """
        check_type("BirthDeath", "a torch Optimizer", Optimizer, optimizer=optimizer)
        particles = self.population.particles
        if not any(p is particles for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("BirthDeath: optimizer must hold the particles of the population")
        parents = self.draw()
        n = parents.shape[-1]
        moved = (parents != torch.arange(n, device=parents.device)).unsqueeze(-1)
        noise = self._spread() * torch.randn_like(particles)
        rows = [self.returns, particles, *self.population.buffers()]
        followers = self._rows_of(companions)
        rows += followers
        for tensor in [particles, *followers]:
            rows += _moments(optimizer, tensor)
        # Of several seeds, rows and parents are counted through.
        starts = torch.arange(0, parents.numel(), n, device=parents.device)
        chosen = (parents.view(-1, n) + starts.unsqueeze(-1)).flatten()
        for tensor in {id(tensor): tensor for tensor in rows}.values():  # each once
            every = tensor if parents.ndim == 1 else tensor.flatten(0, 1)
            tensor.copy_(every[chosen].view_as(tensor))
        particles.add_(noise * moved)
        return parents

    def draw(self) -> Tensor:
        """The parent of every particle, as :meth:`step` returns it; nothing is replaced."""
        x = self.population.particles.detach()[..., : self.population.kernel_dim]
        rate = birth_death_rates(self.kernel(x), self.returns, self.scale)
        dies = torch.rand_like(rate) < 1 - torch.exp(-rate.clamp(min=0))
        n = rate.shape[-1]
        itself = torch.arange(n, device=rate.device).expand_as(rate)
        if n == 1:
            return itself.clone()
        own = torch.eye(n, dtype=torch.bool, device=rate.device)
        weight = torch.softmax(-rate, -1).clamp(min=1e-12).unsqueeze(-2)
        weight = weight.expand(*rate.shape, n).masked_fill(own, 0.0)
        # What torch.multinomial does, to the bit, but for its checks, which wait for the device.
        parents = (weight / torch.empty_like(weight).exponential_()).argmax(-1)
        return torch.where(dies, parents, itself)

    def _rows_of(self, companions: Iterable[nn.Module]) -> list[Tensor]:
        """Parameters and buffers with a row per particle; what populations share has none."""
        rows, leading = [], self.population.leading
        for companion in companions:
            check_type("BirthDeath", "modules", nn.Module, companions=companion)
            shared = {id(getattr(part, "shared", None)) for part in companion.modules()}
            for name, tensor in [*companion.named_parameters(), *companion.named_buffers()]:
                if id(tensor) in shared:
                    continue
                if tensor.shape[: len(leading)] != leading:
                    words = ", ".join(map(str, leading))
                    raise ValueError(
                        f"BirthDeath: companions must have a leading dimension {words} in every "
                        f"parameter and buffer, got {name} of {type(companion).__name__} of shape "
                        f"{list(tensor.shape)}"
                    )
                rows.append(tensor)
        return rows

    def _spread(self) -> Tensor:
        """Standard deviation of the jitter, like the particles; none outside the kernel."""
        particles = self.population.particles
        spread = torch.zeros_like(particles)
        for columns in self.population.layer_slices.values():
            layer = particles[..., columns]
            spread[..., columns] = self.jitter * layer.std((-2, -1), correction=0, keepdim=True)
        return spread


def _moments(optimizer: Optimizer, parameter: Tensor) -> list[Tensor]:
    state = optimizer.state.get(parameter, {}).values()
    return [v for v in state if isinstance(v, Tensor) and v.shape == parameter.shape]
