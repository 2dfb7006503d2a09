"""Soft Q-learning with a value network: DP-WGF-V (Zhang et al. 2018) without its trust region."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from torch import Tensor

from torchrl_stein._checks import check_columns, check_count, check_type
from torchrl_stein.functional import entropy_regularized_value
from torchrl_stein.kernels import Kernel
from torchrl_stein.modules import SamplingActor

from ._encoder import check_apart
from ._squash import Squash
from .action_forces import ActionForce, svgd_force
from .amortized_svgd import AmortizedSVGD
from .soft_critic import EnsembleReduction
from .soft_q import ValueTarget
from .temperature import LearntTemperature

__all__ = ["SoftQVLoss"]


class SoftQVLoss(AmortizedSVGD):
    r"""Soft Q-learning whose V(s') is a network instead of an integral over sampled actions.

    ``loss_qvalue`` = 1/2 (r + gamma V_target(s') - Q(s, a))^2

    ``loss_value`` = 1/2 (V(s) - v)^2, v from actions of the policy, which must have a density

    ``loss_actor``: the amortized SVGD step of :class:`SoftQLoss`.

    With a :class:`WassersteinTrustRegionLoss` beside it, this is DP-WGF-V, algorithm 3.

    Args:
        actor_network: a sampler with a density: a
            :class:`~torchrl_stein.modules.TanhGaussianActor`, a
            :class:`~torchrl_stein.modules.TanhGaussianMixtureActor` (the paper's Bayesian network)
            or an :class:`~torchrl_stein.modules.AmortizedSVGDActor` with noise of dimension A.
        qvalue_network: as for :class:`SoftQLoss`.
        value_network: reads states, writes ``state_value`` of shape [*B, 1].

    Keyword Args:
        num_value_samples: actions per state for v.
        value_target: v: ``entropy_regularized_value``, E_pi[Q - alpha log pi], the form that the
            paper finds to work; ``mellowmax_value``, its objective as derived; ``boltzmann_value``,
            what that tends to, by self-normalised weights. The last two lack the entropy: their
            fixed point is another problem's.
        encoder: see :class:`SoftQLoss`; ``loss_value`` does not train it either.
        delay_value: V(s') from target parameters, for SoftUpdate (the paper) or HardUpdate.
        num_qvalue_nets: see :class:`SoftQLoss`, as are ``temperature``, ``kernel``,
            ``num_action_samples``, ``force``, ``ensemble_reduction``, ``squash``, ``reduction`` and
            ``deactivate_vmap``.

    Raises:
        TypeError, ValueError, KeyError: as :class:`SoftQLoss`, and for a value network that is no
            TensorDictModule or does not return [*B, 1].

    Writes what :class:`SoftQLoss` writes, ``loss_value`` and, detached, ``entropy``, the mean of
    -log pi over the actions drawn.

    Source: Zhang et al. 2018 (arXiv:1808.03030), section 4.2 and algorithm 3. Differs: the factor
    1/2 in J_V; a temperature (the paper's is 1).

    Example:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import NormalParamExtractor
        >>> from torch import nn
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> from torchrl_stein.modules import TanhGaussianActor
        >>> network = nn.Sequential(MLP(3, 4, num_cells=[64]), NormalParamExtractor())
        >>> actor = TanhGaussianActor(network, action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> qvalue = ValueOperator(MLP(5, 1, num_cells=[64]), in_keys=["observation", "action"])
        >>> value = ValueOperator(MLP(3, 1, num_cells=[64]))
        >>> loss = SoftQVLoss(actor, qvalue, value, temperature=0.5, delay_value=False)
        >>> zeros = torch.zeros(8, 1)
        >>> losses = loss(TensorDict({
        ...     "observation": torch.randn(8, 3), "action": torch.zeros(8, 2),
        ...     "next": {"observation": torch.randn(8, 3), "reward": zeros,
        ...              "done": zeros.bool(), "terminated": zeros.bool()}}, [8]))
        >>> sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
    """

    _state_readers = ("actor_network", "qvalue_network", "value_network")
    value_network: TensorDictModule
    value_network_params: TensorDictParams
    target_value_network_params: TensorDictParams

    def __init__(
        self,
        actor_network: SamplingActor,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule],
        value_network: TensorDictModule,
        *,
        num_qvalue_nets: int = 1,
        temperature: float | LearntTemperature = 1.0,
        kernel: Kernel | None = None,
        num_action_samples: int | tuple[int, int] = 32,
        num_value_samples: int = 32,
        value_target: ValueTarget = entropy_regularized_value,
        force: ActionForce = svgd_force,
        ensemble_reduction: EnsembleReduction = torch.amin,
        squash: Squash | None = None,
        encoder: TensorDictModuleBase | None = None,
        delay_value: bool = True,
        reduction: str = "mean",
        deactivate_vmap: bool = False,
    ) -> None:
        expected = "a TensorDictModule, such as ValueOperator(net)"
        check_type("SoftQVLoss", expected, TensorDictModuleBase, value_network=value_network)
        expected = "a function such as soft_value"
        check_type("SoftQVLoss", expected, Callable, value_target=value_target)
        check_count("SoftQVLoss", num_value_samples=num_value_samples)
        super().__init__(
            actor_network,
            qvalue_network,
            num_qvalue_nets=num_qvalue_nets,
            temperature=temperature,
            ensemble_reduction=ensemble_reduction,
            encoder=encoder,
            delay_qvalue=False,
            delay_encoder=delay_value,
            reduction=reduction,
            deactivate_vmap=deactivate_vmap,
        )
        self._set_step(kernel, num_action_samples, force, squash)
        self.value_target, self.num_value_samples = value_target, num_value_samples
        if encoder is not None:
            check_apart("SoftQVLoss", encoder, value_network=[value_network])
        self.convert_to_functional(value_network, "value_network", create_target_params=delay_value)
        self.out_keys = list(dict.fromkeys(["loss_value", "entropy", *self.out_keys]))
        self._set_in_keys()

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Losses and diagnostics of a batch of transitions [*B]; see the class."""
        self._check_batch(tensordict)
        states = self._states(tensordict)
        with torch.no_grad():
            _, following = self._next_states(tensordict, acted_on=False)
            value = self._values(self.target_value_network_params, following)
        q = self._taken_qvalues(tensordict, states)
        bellman_error, of_q = self._bellman_error(tensordict, value, q)
        states = self._fixed(states)
        terms, of_step = self._actor_terms(tensordict, states)
        value_error, entropy = self._value_error(states)
        terms |= {"loss_qvalue": bellman_error, "loss_value": value_error}
        of_v = {"soft_value": value, "entropy": entropy}
        metrics = {name: self._mean(each, tensordict) for name, each in of_v.items()}
        return self._reduced(tensordict, terms, {**metrics, **of_q, **of_step})

    def _value_error(self, states: TensorDictBase) -> tuple[Tensor, Tensor]:
        """1/2 (V(s) - v)^2 and the policy's entropy, by actions of the policy, [*B] each."""
        with torch.no_grad():
            with self._acting():
                actions, log_prob = self.actor_network.sample_with_log_prob(
                    states, self.num_value_samples
                )
            q = self._qvalues(self.qvalue_network_params, states, actions)
            q = self.ensemble_reduction(q, 0)
            target = self.value_target(q, log_prob, self.temperature)
        value = self._values(self.value_network_params, states)
        return 0.5 * (value - target).square(), -log_prob.mean(-1)

    def _values(self, params: TensorDictParams, states: TensorDictBase) -> Tensor:
        """V at states [*B], [*B]."""
        with params.to_module(self.value_network, preserve_module_state=False):
            written = self.value_network(states.copy())
        check_columns("SoftQVLoss", written, [self.tensor_keys.value])
        return written.get(self.tensor_keys.value).squeeze(-1)
