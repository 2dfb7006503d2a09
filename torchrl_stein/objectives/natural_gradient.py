"""Natural gradient steps of limited divergence: TRPO, alone or for a Stein population."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from torchrl_stein._checks import check_count, check_finite, check_number, may_look
from torchrl_stein.functional import conjugate_gradient

from .stein_policy import SteinPolicyLoss
from .trpo import TRPOLoss

__all__ = ["NaturalGradientStep"]

# A quadratic divergence ends up at max_kl to rounding, which shall not cost a backtrack.
_SLACK = 1.001


class NaturalGradientStep(Optimizer):
    r"""Moves policies along their natural gradients, as far as their divergence may go.

    With g the gradient of a policy's surrogate and F its Fisher matrix, the mean over the batch
    of that of its action distributions,

    .. math::
        (F + \lambda I)\, x = g, \qquad
        \theta \leftarrow \theta + c \sqrt{\frac{2\, \delta}{x^\top (F + \lambda I)\, x}}\; x .

    x comes from conjugate gradients, products with F from differentiating the gradient of
    KL(present || .) once more: exact, since at the present policy the Hessian of this KL is F,
    and is its own Gauss-Newton matrix. The factor c is the first of 1, b, b^2, ... at which the
    surrogate has grown and KL(old || new) on the batch is at most delta (to a thousandth of it);
    without one the policy stays.

    An optimizer of the actor's parameters, without a state, whose ``step`` takes the batch in the
    place of gradients. Call it once per batch: the old policy is the one that collected it. The
    critic is not touched.

    Policies of a population step each for itself, all at once: n gradients, n systems, n line
    searches. The loss may be a :class:`SteinPolicyLoss` around a TRPOLoss. Then g_i is
    alpha n phi_i, phi_i the SVGD direction with repulsion and prior, and the line search asks for
    growth of the surrogate plus what the rest of g_i gains to first order. Such a population
    rests where SVGD rests, at exp(J / alpha) q_0, which it would not with natural gradients as
    scores inside phi; see the page on TRPO.

    Args:
        loss: a TRPOLoss, or a SteinPolicyLoss around one.

    Keyword Args:
        max_kl: delta > 0, in nats. An attribute; assign to it to anneal.
        damping: lambda >= 0, in nats per squared unit of the parameters. Shortens steps along
            parameters on which actions hardly depend. The gradients of other particles point
            there too: in a Stein population, little damping leaves nothing but these.
        iterations: of conjugate gradients, >= 1. Each costs about two backward passes.
        shrinkage: b in (0, 1).
        num_candidates: values of c that are tried, >= 1. Each costs a forward pass; on a CPU the
            search ends when all policies have one, elsewhere looking would make the host wait.
        fisher_stride: F is the mean over every how manyth entry along the last dimension of the
            batch, >= 1: products with F are most of the work. 10 in the paper.

    Raises:
        TypeError: if ``loss`` is neither, or a number none, such as a count of 2.5.
        ValueError: if a number is out of its range, or a SteinPolicyLoss couples another network
            than the actor; in ``step``, if gradients on a CPU are not finite.

    Source: Schulman et al. 2015 (arXiv:1502.05477), section 6 and appendix C; the population is
    what the last sentence of Liu et al. 2017 (arXiv:1704.02399) asks for. Differs: damping, which
    counts in the length of the step, too.

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> from torchrl.envs import ExplorationType, set_exploration_type
        >>> from torchrl.modules import OneHotCategorical, ProbabilisticActor
        >>> actor = ProbabilisticActor(
        ...     TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"]),
        ...     in_keys=["logits"], distribution_class=OneHotCategorical, return_log_prob=True,
        ... )
        >>> natural = NaturalGradientStep(TRPOLoss(actor), max_kl=0.01)
        >>> with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        ...     data = actor(TensorDict({"observation": torch.randn(100, 3)}, [100]))
        >>> data["advantage"] = data["action"][..., :1].float()  # the first action is better
        >>> figures = natural.step(data)
        >>> bool(0.004 < figures["kl"] < 0.0101), bool(figures["improvement"] > 0)
        (True, True)
    """

    def __init__(
        self,
        loss: TRPOLoss | SteinPolicyLoss,
        *,
        max_kl: float = 0.01,
        damping: float = 0.1,
        iterations: int = 10,
        shrinkage: float = 0.8,
        num_candidates: int = 15,
        fisher_stride: int = 1,
    ) -> None:
        policy_loss = loss.loss_module if isinstance(loss, SteinPolicyLoss) else loss
        if not isinstance(policy_loss, TRPOLoss):
            raise TypeError(
                "NaturalGradientStep: loss must be a TRPOLoss or a SteinPolicyLoss around one, got "
                f"{type(policy_loss).__name__}"
            )
        if isinstance(loss, SteinPolicyLoss) and loss.coupled != "actor_network_params":
            raise ValueError(
                "NaturalGradientStep: loss must couple 'actor_network_params', got "
                f"{loss.coupled!r}"
            )
        owner = "NaturalGradientStep"
        check_number(owner, above=0, max_kl=max_kl)
        check_number(owner, at_least=0, damping=damping)
        check_number(owner, above=0, below=1, shrinkage=shrinkage)
        check_count(owner, iterations=iterations, num_candidates=num_candidates)
        check_count(owner, fisher_stride=fisher_stride)
        self.loss, self._trpo = loss, policy_loss
        self.max_kl, self.damping, self.iterations = max_kl, damping, iterations
        self.shrinkage, self.num_candidates = shrinkage, num_candidates
        self.fisher_stride = fisher_stride
        super().__init__(self._leaves, {})

    @torch.enable_grad()
    def step(self, tensordict: TensorDictBase) -> TensorDict:  # type: ignore[override]
        """Take one step; the actor's parameters change in place.

        Args:
            tensordict: transitions ``[*B]``, of a population ``[n, *B]``; not written to.

        Returns:
            TensorDict: of each policy, ``[n]``, or ``[]`` if there is one: "kl", KL(old || new);
            "improvement", by which the surrogate (and for a Stein population the rest of its
            direction) has grown; "step_fraction", c, 0 if the policy stayed; "cg_residual", of
            the linear system.
        """
        check_number("NaturalGradientStep", above=0, max_kl=self.max_kl)  # it may be annealed
        batch = self._trpo.with_advantage(tensordict)
        surrogate, kl = self._trpo.surrogate_and_kl(batch)
        gradient = self._gradient(surrogate.sum())
        ascent = gradient if self.loss is self._trpo else self._coupled_gradient(batch)
        check_finite("NaturalGradientStep", {"gradient": ascent})
        fisher = self._fisher(batch)
        x, residual = conjugate_gradient(
            fisher, ascent, iterations=self.iterations, damping=self.damping
        )
        square = (x * (fisher(x) + self.damping * x)).sum(-1, keepdim=True)
        step = torch.where(square > 0, (2.0 * self.max_kl / square).sqrt() * x, 0.0)
        rest = ((ascent - gradient) * step).sum(-1)
        figures = self._search(batch, step, surrogate.detach(), kl.detach(), rest)
        figures["cg_residual"] = residual
        # One number where there is one policy; else those of the population's shape.
        leading = self._trpo.leading or ()
        figures = {name: value.reshape(leading) for name, value in figures.items()}
        return TensorDict(figures, [])

    @property
    def _leaves(self) -> list[nn.Parameter]:
        return [p for p in self._trpo.actor_network_params.parameters() if p.requires_grad]

    def _rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """Parameters, or what has their shapes, as one row per policy, [n, d]."""
        n = self._trpo.num_policies
        return torch.cat([tensor.reshape(n, -1) for tensor in tensors], -1)

    def _write(self, rows: Tensor) -> None:
        leaves = self._leaves
        columns = rows.split([leaf.numel() // rows.shape[0] for leaf in leaves], -1)
        for leaf, part in zip(leaves, columns, strict=True):
            leaf.copy_(part.view_as(leaf))

    def _gradient(
        self, value: Tensor, *, retain_graph: bool | None = None, create_graph: bool = False
    ) -> Tensor:
        """Of a sum over policies: row i belongs to what depends on policy i alone, [n, d]."""
        gradients = torch.autograd.grad(
            value,
            self._leaves,
            retain_graph=retain_graph,
            create_graph=create_graph,
            materialize_grads=True,  # of parameters that nothing depends on
        )
        return self._rows(gradients)

    def _coupled_gradient(self, batch: TensorDictBase) -> Tensor:
        """alpha n phi_i, [n, d]: what SteinPolicyLoss would have an optimizer ascend, times n."""
        losses = self.loss(batch)
        total = sum(value for key, value in losses.items() if key.startswith("loss_"))
        return -self._trpo.num_policies * self._gradient(total)

    def _fisher(self, batch: TensorDictBase) -> Callable[[Tensor], Tensor]:
        """v -> F v for each policy, [n, d] -> [n, d]."""
        batch = batch[..., :: self.fisher_stride]
        with torch.no_grad():
            present = self._trpo.policy(batch)
        kl = self._trpo.divergence(present, self._trpo.policy(batch))
        slope = self._gradient(self._trpo.mean_per_policy(kl, batch).sum(), create_graph=True)

        def product(v: Tensor) -> Tensor:
            return self._gradient((slope * v).sum(), retain_graph=True)

        return product

    @torch.no_grad()
    def _search(
        self, batch: TensorDictBase, step: Tensor, surrogate: Tensor, kl: Tensor, rest: Tensor
    ) -> dict[str, Tensor]:
        """Write the longest of the shortened steps that each policy accepts."""
        start = self._rows(self._leaves).clone()
        fraction, improvement = torch.zeros_like(kl), torch.zeros_like(kl)
        try:
            for trial in range(self.num_candidates):
                c = self.shrinkage**trial
                self._write(start + c * step)
                reached, divergence = self._trpo.surrogate_and_kl(batch)
                gain = reached - surrogate + c * rest
                accepted = (fraction == 0) & (gain > 0) & (divergence <= _SLACK * self.max_kl)
                fraction = torch.where(accepted, c, fraction)
                improvement = torch.where(accepted, gain, improvement)
                kl = torch.where(accepted, divergence, kl)
                if may_look(fraction) and (fraction > 0).all():
                    break
        except BaseException:
            self._write(start)
            raise
        moved = (fraction > 0).unsqueeze(-1)
        self._write(torch.where(moved, start + fraction.unsqueeze(-1) * step, start))
        return {"kl": kl, "improvement": improvement, "step_fraction": fraction}
