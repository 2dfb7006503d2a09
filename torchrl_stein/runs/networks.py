"""The networks of the recipes, how a policy explores, and what keeps it near its predecessor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from tensordict.nn import (
    AddStateIndependentNormalScale,
    TensorDictModule,
    TensorDictModuleBase,
    TensorDictSequential,
)
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import OneHot, TensorSpec
from torchrl.envs import EnvBase
from torchrl.envs.transforms import RunningMeanStd
from torchrl.modules import (
    MLP,
    AdditiveGaussianModule,
    EGreedyModule,
    IndependentNormal,
    OrnsteinUhlenbeckProcessModule,
    ProbabilisticActor,
    ValueOperator,
)
from torchrl.objectives import HardUpdate, SoftUpdate
from torchrl.objectives.utils import TargetNetUpdater

from torchrl_stein._checks import check_count, check_number
from torchrl_stein.modules import (
    BatchRenorm,
    HeldNoiseActor,
    LinearBaseline,
    OneHotCategorical,
    ParameterNoise,
    ParticleModule,
    SigmoidTanh,
)
from torchrl_stein.objectives import ActionSpace, ParameterSpace, WassersteinTrustRegionLoss

from .targets import build

if TYPE_CHECKING:
    from .settings import TrustRegion

__all__ = ["NORMS", "ObservationScale", "make_actor_critic", "make_explorer"]
__all__ += ["make_gaussian_actor", "make_linear_critic", "make_mlp", "make_parameter_noise"]
__all__ += ["make_trust_region"]

NORMS: dict[str | None, Callable[[int], nn.Module] | None] = {
    None: None,
    "layer": nn.LayerNorm,
    "batch_renorm": partial(BatchRenorm, momentum=0.01, eps=1e-3, warmup_steps=100_000),
}
"""What the words of ``network.norm`` stand for; the numbers are those of CrossQ (Bhatt et al. 2024,
arXiv:1902.05605)."""


def make_mlp(
    in_features: int,
    out_features: int,
    num_cells: Sequence[int],
    device: torch.device | str | None = None,
    *,
    activation: type[nn.Module] = nn.ReLU,
    gain: float = 1.0,
    norm: Callable[[int], nn.Module] | None = None,
    seeds: int = 1,
) -> nn.Module:
    """A network with Xavier-uniform weights, times ``gain``, and zero biases, as in the references.

    Inputs are concatenated, ``num_cells`` are the widths of hidden layers. ``norm`` makes a layer
    of a given width between the weights and the activation of each. For S > 1 seeds it is a
    ParticleModule of S such networks: each maps its own row of the data.
    """
    if seeds > 1:
        make = partial(
            make_mlp,
            in_features,
            out_features,
            num_cells,
            device,
            activation=activation,
            gain=gain,
            norm=norm,
        )
        return ParticleModule(make, seeds)
    net = MLP(
        in_features=in_features,
        out_features=out_features,
        num_cells=list(num_cells),
        activation_class=activation,
        norm_class=None if norm is None else lambda width: norm(width),
        norm_kwargs=None if norm is None else [{"width": width} for width in num_cells],
        device=device,
    )
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=gain)
            nn.init.zeros_(layer.bias)
    return net


class ObservationScale(RunningMeanStd):
    """A first layer: observations with mean 0 and variance 1, cut at +-10, as CleanRL has it.

    Its statistics are buffers, of which :meth:`update` makes those of more data: between two
    batches, as probabilities of actions that are compared must be of observations in one scale.
    With a network they are saved and evaluated. TorchRL's VecNormV2 is a transform of an
    environment, which changes with every step; and its variance is a difference of two large
    numbers, which is NaN for observations of 1.3 +- 1e-4 with ``decay=1``.
    """

    def forward(self, observation: Tensor) -> Tensor:
        """``[..., O]`` to the same."""
        return self.normalize(observation).clamp(-10, 10)


def make_actor_critic(
    env: EnvBase,
    num_cells: Sequence[int],
    *,
    normalize: bool = False,
    critic_gain: float = 1.0,
) -> tuple[ProbabilisticActor, ValueOperator]:
    """A policy and a value function without common weights, as CleanRL has them for PPO.

    Networks are tanh with orthogonal weights. Choices have logits; a box of actions has a Gaussian
    with a free standard deviation (1 at first). Tasks with a name clip its actions to the box, so
    that their density is that of the Gaussian; an environment of ``env._target_`` has to do so.

    Args:
        env: has "observation" ``[..., O]``, and one-hot actions or a box of them.
        num_cells: width of each hidden layer of both.
        normalize: whether both begin with the same :class:`ObservationScale`.
        critic_gain: of the critic's last layer; 0 makes a value that is 0.
    """
    size, spec = env.observation_spec["observation"].shape[-1], env.action_spec_unbatched
    scale = [ObservationScale((size,)).to(env.device)] if normalize else []

    def network(outputs: int, gain: float) -> list[nn.Module]:
        net = MLP(size, outputs, num_cells=list(num_cells), device=env.device)
        layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, gain if layer is layers[-1] else 2**0.5)
            nn.init.zeros_(layer.bias)
        return [*scale, net]

    policy, discrete = network(spec.shape[-1], 0.01), isinstance(spec, OneHot)
    if not discrete:
        policy.append(AddStateIndependentNormalScale(spec.shape[-1], device=env.device))
    names = ["logits"] if discrete else ["loc", "scale"]
    actor = ProbabilisticActor(
        TensorDictModule(nn.Sequential(*policy), ["observation"], names),
        in_keys=names,
        distribution_class=OneHotCategorical if discrete else IndependentNormal,
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Sequential(*network(1, critic_gain)), in_keys=["observation"])
    return actor, critic


def make_explorer(
    policy: TensorDictModuleBase,
    action_spec: TensorSpec,
    *,
    noise: float = 0.0,
    theta: float | None = None,
    uniform_fraction: float = 0.0,
    hold: int = 0,
    action_key: NestedKey = "action",
) -> TensorDictModuleBase:
    """A policy with noise on its actions, or with some replaced by uniform ones; for collectors.

    With TorchRL's exploration type DETERMINISTIC it acts as the policy alone.

    Args:
        policy: shares its parameters; see :func:`make_parameter_noise` for one with noise in them.
        action_spec: of the environment, with its batch dimensions, to which noisy actions are
            clipped.
        noise: standard deviation of normal noise, or of the change per step of an
            Ornstein-Uhlenbeck process.
        theta: rate at which that process returns to 0, in (0, 1]; it starts at 0 with each
            episode, where "elapsed_steps" is 0. None is white noise.
        uniform_fraction: of the actions, from 0 to 1.
        hold: most steps for which a sampler keeps the noise that is its input, see
            :class:`~torchrl_stein.modules.HeldNoiseActor`; 0 draws at each step. Episodes begin
            where "elapsed_steps" is 0.
        action_key: of the actions, such as ("agents", "action").

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), appendix D.1, for ``noise=0.3, theta=0.15``.
    """
    check_number("make_explorer", at_least=0, noise=noise)
    check_number("make_explorer", at_least=0, at_most=1, uniform_fraction=uniform_fraction)
    check_count("make_explorer", at_least=0, hold=hold)
    # TorchRL keeps what is remembered in the data, under names that no buffer stores.
    begins = TensorDictModule(lambda steps: steps == 0, ["elapsed_steps"], ["_begins"])
    wanted = theta is not None or hold > 0 or "_begins" in policy.in_keys
    modules = [begins] if wanted else []
    modules.append(HeldNoiseActor(policy, hold, is_init_key="_begins") if hold > 0 else policy)
    if theta is not None:
        check_number("make_explorer", above=0, at_most=1, theta=theta)
        check_number("make_explorer with theta", above=0, noise=noise)
        process = OrnsteinUhlenbeckProcessModule(
            action_spec,
            eps_init=1.0,
            eps_end=1.0,
            theta=theta,
            sigma=noise,
            dt=1.0,  # per step; the default of 0.01 makes it hundred times slower
            action_key=action_key,
            is_init_key="_begins",
        )
        modules.append(process)
    elif noise > 0:
        modules.append(
            AdditiveGaussianModule(action_spec, noise, noise, action_key=action_key, safe=True)
        )
    if uniform_fraction > 0:
        modules.append(
            EGreedyModule(action_spec, uniform_fraction, uniform_fraction, action_key=action_key)
        )
    return TensorDictSequential(*modules).to(action_spec.device)


def make_parameter_noise(
    policy: TensorDictModuleBase, threshold: float, batch_size: Sequence[int]
) -> ParameterNoise | None:
    """Noise in the parameters of a deterministic policy, for :func:`make_explorer`; 0: None.

    The scale of the noise begins at the threshold, as in the code of its authors. Episodes begin
    where "elapsed_steps" is 0.

    Args:
        policy: shares its parameters.
        threshold: root mean squared change of the actions, for
            :meth:`~torchrl_stein.modules.ParameterNoise.adapt`.
        batch_size: of the environment, each with noise of its own.
    """
    check_number("make_parameter_noise", at_least=0, threshold=threshold)
    if threshold == 0:
        return None
    return ParameterNoise(policy, threshold, batch_size=batch_size, is_init_key="_begins")


def make_gaussian_actor(
    env: EnvBase,
    num_particles: int | tuple[int, ...],
    num_cells: Sequence[int],
    *,
    gain: float = 1.0,
) -> ProbabilisticActor:
    """n Gaussian policies: a tanh network for the mean, a free standard deviation (1 at first).

    As in the experiments of Liu et al. 2017. Environments clip actions, so that their density is
    that of the Gaussian. The log-standard-deviation stays outside of kernels.

    Args:
        env: has "observation" ``[..., O]`` and a continuous action ``[..., A]``.
        num_particles: n, or a pair (S, n) for S seeds.
        num_cells: width of each hidden layer.
        gain: factor on the initial weights.
    """
    size, action_dim = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]

    def make_network() -> nn.Module:
        mean = make_mlp(size, action_dim, num_cells, env.device, activation=SigmoidTanh, gain=gain)
        scale = AddStateIndependentNormalScale(action_dim, scale_lb=1e-6, device=env.device)
        return nn.Sequential(mean, scale)

    network = ParticleModule(make_network, num_particles, outside_kernel=["1"])
    return ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
    )


def make_linear_critic(env: EnvBase, num_particles: int | tuple[int, ...]) -> ValueOperator:
    """One :class:`~torchrl_stein.modules.LinearBaseline` per particle, zero until it is fitted."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    baseline = LinearBaseline(num_particles, observation_dim).to(env.device or "cpu")
    return ValueOperator(baseline, in_keys=["observation", "elapsed_steps"])


def make_trust_region(
    settings: TrustRegion | None,
    actor: TensorDictModuleBase,
    space: ActionSpace | ParameterSpace,
    *,
    scale: float = 1.0,
) -> tuple[WassersteinTrustRegionLoss | None, TargetNetUpdater | None]:
    """A loss that keeps a policy near its predecessor, and what makes the policy the predecessor.

    The latter is stepped after the gradients and before the optimizer: afterwards both policies
    would be the same. Without a trust region both are None. The weight is multiplied by ``scale``.
    """
    if settings is None or settings.weight == 0:
        return None, None
    weight, cost = scale * settings.weight, build(settings.cost)
    region = WassersteinTrustRegionLoss(actor, weight=weight, cost=cost, space=space)
    if settings.tau is not None:
        return region, SoftUpdate(region, tau=settings.tau)
    return region, HardUpdate(region, value_network_update_interval=0)  # at every step
