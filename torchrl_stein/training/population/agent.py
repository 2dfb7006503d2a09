"""A population that learns on-policy: its networks and one update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torchrl.envs import EnvBase
from torchrl.modules import MLP, IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives.value.functional import generalized_advantage_estimate

from torchrl_stein.modules import (
    BirthDeath,
    LinearBaseline,
    ParticleModule,
    SigmoidTanh,
    StandardizePerParticle,
)
from torchrl_stein.objectives import NaturalGradientStep, SteinPolicyLoss

from ..compilation import CompileSettings, make_capturable
from ..trust_region import TrustRegion

__all__ = ["PopulationAgent", "make_gaussian_actor", "make_linear_critic", "training_returns"]


def make_gaussian_actor(
    env: EnvBase, num_particles: int, num_cells: Sequence[int], *, gain: float = 1.0
) -> ProbabilisticActor:
    """n Gaussian policies: a tanh network for the mean, a free standard deviation (1 at first).

    Weights are Xavier-uniform, biases zero, as in the experiments of Liu et al. 2017. Actions are
    not clipped here, so their density is that of the Gaussian; environments clip. The
    log-standard-deviation stays outside of kernels.

    Args:
        env: has "observation" ``[..., O]`` and a continuous action ``[..., A]``.
        num_particles: n.
        num_cells: width of each hidden layer.
        gain: factor on the initial weights.
    """
    observation_dim = env.observation_spec["observation"].shape[-1]
    action_dim = env.action_spec.shape[-1]

    def make_network() -> nn.Module:
        mean = MLP(
            in_features=observation_dim,
            out_features=action_dim,
            num_cells=list(num_cells),
            activation_class=SigmoidTanh,
            device=env.device,
        )
        for layer in mean:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, gain=gain)
                nn.init.zeros_(layer.bias)
        scale = AddStateIndependentNormalScale(action_dim, scale_lb=1e-6, device=env.device)
        return nn.Sequential(mean, scale)

    network = ParticleModule(make_network, num_particles, outside_kernel=["1"])
    return ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
    )


def make_linear_critic(env: EnvBase, num_particles: int) -> ValueOperator:
    """One :class:`~torchrl_stein.modules.LinearBaseline` per particle, zero until it is fitted."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    baseline = LinearBaseline(num_particles, observation_dim).to(env.device or "cpu")
    return ValueOperator(baseline, in_keys=["observation", "elapsed_steps"])


def training_returns(data: TensorDictBase) -> Tensor:
    """Mean return of the episodes that ended in a batch of data.

    Args:
        data: ``[n, ...]`` with "done" and "episode_reward" under "next".

    Returns:
        Tensor: ``[n]``; NaN for particles that finished no episode.

    Example:
        >>> from tensordict import TensorDict
        >>> done = torch.tensor([[True], [False]])
        >>> following = {"done": done, "episode_reward": torch.ones(2, 1)}
        >>> training_returns(TensorDict({"next": following}, [2]))
        tensor([1., nan])
    """
    done = data["next", "done"].flatten(1)
    total = data["next", "episode_reward"].flatten(1) * done
    return total.sum(1) / done.sum(1)


@dataclass
class PopulationAgent:
    """What the on-policy loop trains.

    Advantages are those of the generalised estimator: a truncated episode, and one that the end
    of a batch cuts, goes on with the critic's value. The toolkit of the published experiments
    counts the time limit as terminal instead; with a critic of zero both are the same.

    Attributes:
        actor: acts; contains the ParticleModule.
        critic: its value enters the advantage.
        fit_critic: whether the critic is fitted to returns or stays zero (REINFORCE).
        loss: over actor and critic.
        optimizer: over the loss's parameters; a NaturalGradientStep of ``loss`` is TRPO.
        gamma: discount.
        lmbda: of the generalised advantage estimator; 1 gives returns minus the baseline.
        num_epochs: passes over each batch of data.
        num_minibatches: updates per pass.
        birth_death: replaces particles now and then, or None.
        birth_death_interval: iterations between its steps.
        trust_region: of the population, or None; its previous policy is that before the
            iteration's first step.
        parents: of the particles, ``[n]``, if the last update replaced some; else None.

    Raises:
        ValueError: if a count is not >= 1, ``gamma`` or ``lmbda`` is not in [0, 1], both
            ``birth_death`` and ``trust_region`` are given, or a NaturalGradientStep comes with
            ``trust_region``, several passes or minibatches.
    """

    actor: ProbabilisticActor
    critic: ValueOperator
    fit_critic: bool
    loss: SteinPolicyLoss
    optimizer: Optimizer
    gamma: float = 0.99
    lmbda: float = 1.0
    num_epochs: int = 1
    num_minibatches: int = 1
    birth_death: BirthDeath | None = None
    birth_death_interval: int = 10
    trust_region: TrustRegion | None = None
    parents: Tensor | None = field(default=None, init=False)
    _fused_loss: Callable[[TensorDictBase], TensorDictBase] | None = field(
        default=None, init=False, repr=False
    )

    def __post_init__(self) -> None:
        for name in ("num_epochs", "num_minibatches", "birth_death_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"PopulationAgent: {name} must be >= 1, got {getattr(self, name)}")
        for name in ("gamma", "lmbda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"PopulationAgent: {name} must be in [0, 1], got {getattr(self, name)}"
                )
        if self.birth_death is not None and self.trust_region is not None:
            raise ValueError(
                "PopulationAgent: birth_death and trust_region exclude each other, a replaced "
                "particle has no predecessor; got both"
            )
        if isinstance(self.optimizer, NaturalGradientStep):
            if self.trust_region is not None:
                raise ValueError(
                    "PopulationAgent: a NaturalGradientStep has a trust region of its own, "
                    "trust_region must be None"
                )
            if self.num_epochs * self.num_minibatches > 1:
                raise ValueError(
                    "PopulationAgent: a NaturalGradientStep takes each batch once and whole, "
                    "num_epochs and num_minibatches must be 1, got "
                    f"{self.num_epochs} and {self.num_minibatches}"
                )
        self._standardize = StandardizePerParticle()
        self._learners = {
            (follows, last): partial(self._learn, follows, last)
            for follows, last in product((False, True), repeat=2)
        }
        self._estimate = self._advantages
        self._captured = False

    def compile(self, settings: CompileSettings) -> None:
        """Compile or capture the updates to come; call it before the first.

        ``torch.compile`` fuses the losses, forward and backward. CUDA graphs hold the advantages,
        and each :meth:`_learn` whole. Baselines, birth and death, and schedules run as before.
        A NaturalGradientStep is captured but not compiled: its derivatives of derivatives trace
        only under ``torch._dynamo.config.trace_autograd_ops``, with every conjugate gradient and
        every candidate of the line search unrolled, which takes minutes.

        Args:
            settings: what to do.

        Raises:
            ValueError: as :meth:`OffPolicyAgent.compile`.
        """
        settings.check(self.loss.particles.device)
        natural = isinstance(self.optimizer, NaturalGradientStep)
        if settings.compile and not natural:
            self._fused_loss = settings.compiled(self.loss)
        if self.trust_region is not None:
            self.trust_region.compile(settings)
        if settings.cudagraphs:
            if not natural:  # which has neither a state nor a learning rate
                make_capturable(self.optimizer)
            self._captured = True
            self._learners = {k: settings.captured(f) for k, f in self._learners.items()}
            self._estimate = settings.captured(self._estimate)

    def update(self, data: TensorDictBase) -> tuple[TensorDictBase, dict[str, Tensor]]:
        """Learn from one batch ``[n, E, T]``.

        Returns:
            tuple: the last losses, and the figures of ``loss.diagnose()`` that go with them.
        """
        self.estimate_advantages(data)
        updates = self.num_epochs * self.num_minibatches
        for i, batch in enumerate(self._minibatches(data), 1):
            follows = i == 1 and self.trust_region is not None
            learnt = self._learners[follows, i == updates](batch)
        if self.fit_critic:
            baseline = self.critic.module
            baseline.fit(data["observation"], data["elapsed_steps"], data["value_target"])
        iterations = self.loss.step()
        self.parents = None
        if self.birth_death is not None:
            self.birth_death.observe(training_returns(data))
            if iterations % self.birth_death_interval == 0:
                self.parents = self.birth_death.step(self.optimizer, [self.critic])
        return learnt["losses"], dict(learnt["figures"].items())

    def _learn(self, follows: bool, last: bool, batch: TensorDictBase) -> TensorDictBase:
        """The tensor work of a minibatch: a graph of it has no other effects.

        Args:
            follows: whether the present policies become the previous ones of the trust region.
            last: whether figures are wanted.
            batch: with advantages.
        """
        self.optimizer.zero_grad()
        forward = self.loss if self._fused_loss is None else self._fused_loss
        losses = forward(batch)
        sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
        figures = self.loss.diagnose() if last else {}
        if self.trust_region is not None:  # after diagnose(), which wants our gradient alone
            losses.update(self.trust_region.backward(batch))
            if follows:
                self.trust_region.follow()
        losses.update(self._step(batch))
        return TensorDict({"losses": losses.detach(), "figures": TensorDict(figures)})

    def _step(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Move the policies; of natural gradients also the figures, means over the particles."""
        if isinstance(self.optimizer, NaturalGradientStep):
            return {name: value.mean() for name, value in self.optimizer.step(batch).items()}
        self.optimizer.step()
        return {}

    def estimate_advantages(self, data: TensorDictBase) -> None:
        """Write "advantage", standardised per particle, and "value_target"."""
        data.update(self._estimate(data))

    @torch.no_grad()
    def _advantages(self, data: TensorDictBase) -> TensorDictBase:
        following = data["next"]
        # TorchRL's function and not its GAE module, which looks for NaN on the host; the loop over
        # time and not the vectorised form, which takes 6 to 20 times as long where a batch holds
        # the ends of many episodes.
        advantage, target = generalized_advantage_estimate(
            self.gamma,
            self.lmbda,
            self.critic(data.select(*self.critic.in_keys))["state_value"],
            self.critic(following.select(*self.critic.in_keys))["state_value"],
            following["reward"],
            following["done"],
            following["terminated"],
        )
        written = TensorDict({"advantage": advantage, "value_target": target}, data.batch_size)
        return self._standardize(written)

    def _minibatches(self, data: TensorDictBase) -> Iterator[TensorDictBase]:
        if self.num_minibatches == 1:
            for _ in range(self.num_epochs):
                yield data
            return
        rows = data.flatten(1, data.batch_dims - 1)
        if self._captured and rows.shape[1] % self.num_minibatches:
            raise ValueError(
                "compile.cudagraphs needs minibatches of one size: num_minibatches must divide the "
                f"{rows.shape[1]} transitions of a particle, got {self.num_minibatches}"
            )
        for _ in range(self.num_epochs):
            # The same rows of every particle: one permutation costs one gather.
            order = torch.randperm(rows.shape[1], device=rows.device)
            for chosen in order.chunk(self.num_minibatches):
                yield rows[:, chosen]
