"""Steps of SVGD by other programs: particles x ``[n, d]``, target N(0, I), score -x, step size 1.

Each is called by its public interface and always from the same particles. What a step comprises
differs: all find the bandwidth and the direction; blackjax and numpyro also add it to the
particles, and numpyro and pyro differentiate the density themselves, which is cheap here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.peers import available, fits, jax_runs_on

__all__ = ["Step", "steps"]


@dataclass(frozen=True)
class Step:
    """A peer that is ready to run.

    Attributes:
        name: in the table.
        run: one step.
        direction: phi ``[n, d]`` from what ``run`` returned.
        bandwidth: h of k = exp(-sum_c (x_c - y_c)^2 / h_c): a number, or ``[d]`` where each
            dimension has its own, which is another kernel.
    """

    name: str
    run: Callable[[], Any]
    direction: Callable[[Any], Tensor]
    bandwidth: float | Tensor


def steps(x: Tensor) -> list[Step]:
    """The peers that are installed, run on this device, and can hold these particles."""
    n, d = x.shape
    pairs = n * n * d * x.element_size() / 2**20  # MiB of a tensor [n, n, d]
    peers: list[Step] = []
    if jax_runs_on(x.device.type):
        if available("blackjax") and fits("blackjax", 2.0 * pairs, x.device):
            peers.append(_blackjax(x))
        if available("numpyro") and fits("numpyro", 2.0 * pairs, x.device):
            peers.append(_numpyro(x))
    # Both work through several tensors [n, n, d]: minutes where the others take seconds.
    if pairs < 200.0:
        if available("svgd"):
            peers.append(_svgd(x))
        if available("pyro"):
            peers.append(_pyro(x))
    if fits("torch [n, n, d]", 3.0 * pairs, x.device):
        peers.append(_differences(x))
    return [*peers, _product(x)]


def _blackjax(x: Tensor) -> Step:
    """Bandwidth of the first step from the same median as those of the later ones."""
    import blackjax
    import jax
    import optax

    algorithm = blackjax.svgd(lambda particle: -particle, optax.sgd(1.0))
    particles = jax.device_put(x.numpy(force=True), jax.devices(x.device.type)[0])
    heuristic = blackjax.vi.svgd.update_median_heuristic
    state = heuristic(algorithm.init(particles, {"length_scale": 1.0}))
    step = jax.jit(algorithm.step)
    return Step(
        "blackjax",
        lambda: jax.block_until_ready(step(state)),
        lambda new: _to_torch(new.particles - particles, x),
        float(state.kernel_parameters["length_scale"]),
    )


def _numpyro(x: Tensor) -> Step:
    """``SVGD.update``; the pairs of its median include those of a particle with itself."""
    import jax
    import numpyro
    from numpyro.contrib.einstein import SVGD, RBFKernel
    from numpyro.contrib.einstein.stein_util import median_bandwidth
    from numpyro.infer import init_to_uniform

    n, d = x.shape

    def model() -> None:
        numpyro.sample("x", numpyro.distributions.Normal(np.zeros(d, np.float32), 1.0).to_event(1))

    # Its start is thrown away; this rule finds one sooner than the default, which takes medians.
    guide = {"init_loc_fn": partial(init_to_uniform, radius=0.1)}
    kernel = RBFKernel()
    svgd = SVGD(model, numpyro.optim.SGD(1.0), kernel, n, guide_kwargs=guide)
    state = svgd.init(jax.random.key(0))
    particles = jax.device_put(x.numpy(force=True), jax.devices(x.device.type)[0])
    (name,) = svgd.get_params(state)
    state = state._replace(optim_state=svgd.optim.init({name: particles}))
    update = jax.jit(svgd.update)
    return Step(
        "numpyro",
        lambda: jax.block_until_ready(update(state)),
        lambda result: _to_torch(svgd.get_params(result[0])[name] - particles, x),
        float(median_bandwidth(particles, kernel.bandwidth_factor)),
    )


def _to_torch(array: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(array)).to(like.device)


def _svgd(x: Tensor) -> Step:
    """One iteration of its sampler with a given score, so that autograd takes no part."""
    from svgd import SVGD
    from svgd.kernels import RBF
    from svgd.kernels.parameters import HeuristicKP
    from svgd.lrs import ParameterLR

    class Particles:
        def rsample(self, count: int) -> Tensor:
            return x

    class Gaussian:
        def score(self, state: SVGD) -> Tensor:
            return -state.x

    sampler = SVGD(
        Gaussian(),
        Particles(),
        RBF(HeuristicKP("median")),
        ParameterLR(x.new_ones(())).requires_grad_(False),
        target_is_score=True,
    )
    # All entries of the matrix, the diagonal and both triangles, and the lower of two middles.
    square = _exact_squares(x)
    bandwidth = square.median() / math.log(len(x) + 1) + 1e-8
    return Step("svgd", lambda: sampler.sample(len(x), 1), lambda _: sampler.phi, bandwidth.item())


def _pyro(x: Tensor) -> Step:
    """``SVGD.step`` in its mode with one kernel value for each pair."""
    import pyro
    from pyro.infer import SVGD, RBFSteinKernel

    n, d = x.shape

    def model() -> None:
        pyro.sample("x", pyro.distributions.Normal(x.new_zeros(d), 1.0).to_event(1))

    pyro.clear_param_store()
    particles = pyro.param("svgd_particles", x.flatten().clone())
    optimizer = pyro.optim.SGD({"lr": 1.0})
    svgd = SVGD(model, RBFSteinKernel(), optimizer, n, 0, mode="multivariate")

    def run() -> None:
        particles.data.copy_(x.flatten())
        svgd.step()

    row, column = torch.triu_indices(n, n, 1)
    # Some dimensions at a time, as all of them would be a tensor [n (n - 1) / 2, d].
    medians = [(c[row] - c[column]).square().median(0).values for c in x.split(1000, 1)]
    return Step(
        "pyro (other kernel: a bandwidth for each dimension)",
        run,
        lambda _: particles.detach().view(n, d) - x,
        torch.cat(medians) / math.log(n + 1),
    )


def _product(x: Tensor) -> Step:
    """The best of the short forms: distances as a product, relative to one particle; new tensors.

    Not exact where particles nearly coincide, see :func:`flat_squared_distances`.
    """
    n = len(x)
    row, column = torch.triu_indices(n, n, 1, device=x.device)

    def squares() -> tuple[Tensor, Tensor]:
        shifted = x - x[:1]
        norms = shifted.square().sum(-1)
        square = (norms[:, None] + norms - 2.0 * shifted @ shifted.mT).clamp_min(0.0)
        return shifted, square

    def direction() -> Tensor:
        shifted, square = squares()
        h = square[row, column].median() / math.log(n + 1)
        gram = torch.exp(-square / h)
        pull = torch.diag(gram.sum(0)) - gram
        return (gram @ -x + 2.0 / h * (pull @ shifted)) / n

    h = squares()[1][row, column].median() / math.log(n + 1)
    return Step("torch, product form", direction, lambda phi: phi, h.item())


def _differences(x: Tensor) -> Step:
    """The sums as they are written, by a tensor of differences; our default bandwidth."""
    n = len(x)
    row, column = torch.triu_indices(n, n, 1, device=x.device)

    def bandwidth(square: Tensor) -> Tensor:
        return square[row, column].median() / math.log(n + 1)

    def run() -> Tensor:
        difference = x[:, None] - x[None]  # [i, j] = x_i - x_j
        square = difference.square().sum(-1)
        h = bandwidth(square)
        gram = torch.exp(-square / h)
        repulsion = (gram[..., None] * difference).sum(1) * (2.0 / h)
        return (gram @ -x + repulsion) / n

    square = _exact_squares(x)
    return Step("torch [n, n, d]", run, lambda phi: phi, bandwidth(square).item())


def _exact_squares(x: Tensor) -> Tensor:
    """In float64: float32 sums over a million dimensions differ in the fourth digit."""
    wide = x.double()
    return torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").square()
