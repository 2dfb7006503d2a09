"""The contract turns red for kernels that are wrong: one broken kernel for each check."""

import sys
import types

import pytest
import torch

from tests.test_docs import ROOT, code_blocks
from torchrl_stein.functional import distance
from torchrl_stein.kernels import Evaluation, LinearKernel, RadialKernel, RBFKernel
from torchrl_stein.testing import KernelContract, LargestTensor
from torchrl_stein.testing.kernel_contract import ReplayedRule


class Broken(RBFKernel):
    """An RBF kernel whose evaluation passes through :meth:`spoil`."""

    def evaluate(self, x, y=None):
        good = super().evaluate(x, y)
        gram, repulsion = self.spoil(x, y, good)
        return Evaluation(gram, repulsion, good.bandwidth)


class Asymmetric(Broken):
    def spoil(self, x, y, good):
        return good.gram + x[..., :, :1], good.weighted_repulsion


class Indefinite(Broken):
    def spoil(self, x, y, good):
        return good.gram - 0.9, good.weighted_repulsion


class LeakyBatch(Broken):
    def spoil(self, x, y, good):
        return good.gram, lambda w: good.weighted_repulsion(w) * x.shape[:-2].numel()


class WrongSign(Broken):
    def spoil(self, x, y, good):
        return good.gram, lambda w: -good.weighted_repulsion(w)


class SecondArgument(LinearKernel):
    """Differentiated in y instead of x: sum_j x_j."""

    def evaluate(self, x, y=None):
        good = super().evaluate(x, y)

        def repulsion(w):
            w = torch.ones_like(good.gram) if w is None else w
            return w.mT @ x

        return Evaluation(good.gram, repulsion)


class IgnoresWeights(Broken):
    def spoil(self, x, y, good):
        return good.gram, lambda w: good.repulsion


class NotFinite(RadialKernel):
    """The square root has no derivative at zero."""

    def profile(self, t):
        return torch.exp(-torch.sqrt(t))


class NeedsTwo(Broken):
    def spoil(self, x, y, good):
        return good.gram / (x.shape[-2] - 1), good.weighted_repulsion


class AlwaysDouble(Broken):
    def spoil(self, x, y, good):
        return good.gram.double(), good.weighted_repulsion


class Forgetful(RBFKernel):
    """Its parameter is random and not stored."""

    def __init__(self):
        super().__init__(bandwidth=1.0 + torch.rand(()).item())


class OrderMatters(Broken):
    def spoil(self, x, y, good):
        weight = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] + 1.0
        return good.gram, lambda w: good.weighted_repulsion(weight * good.gram)


class OtherSelfSet(Broken):
    def spoil(self, x, y, good):
        if y is None:
            return 2.0 * good.gram, lambda w: 2.0 * good.weighted_repulsion(w)
        return good.gram, good.weighted_repulsion


class InPlace(Broken):
    def spoil(self, x, y, good):
        x.add_(1.0)
        return good.gram, good.weighted_repulsion


class NotMany(Broken):
    def spoil(self, x, y, good):
        return good.gram * (1.0 if x.shape[-2] <= 64 else 0.9), good.weighted_repulsion


class NotManyForces(Broken):
    def spoil(self, x, y, good):
        if y is None and x.shape[-2] > 64:
            return good.gram, lambda w: 0.9 * good.weighted_repulsion(w)
        return good.gram, good.weighted_repulsion


class Boasts(LinearKernel):
    has_bandwidth = True


class Hides(RBFKernel):
    has_bandwidth = False


class AllPairs(Broken):
    def spoil(self, x, y, good):
        target = x if y is None else y
        difference = x.unsqueeze(-2) - target.unsqueeze(-3)
        return good.gram + 0.0 * difference.sum(-1), good.weighted_repulsion


@pytest.mark.parametrize(
    ("kernel", "check"),
    [
        (Asymmetric, "test_symmetric"),
        (Indefinite, "test_positive_semi_definite"),
        (LeakyBatch, "test_batch_is_a_loop"),
        (WrongSign, "test_repulsion_is_the_gradient_in_the_first_argument"),
        (SecondArgument, "test_repulsion_is_the_gradient_in_the_first_argument"),
        (IgnoresWeights, "test_weighted_repulsion"),
        (IgnoresWeights, "test_composes"),
        (NotFinite, "test_coincident_points"),
        (NotFinite, "test_slope_at_zero"),
        (NeedsTwo, "test_few_particles"),
        (AlwaysDouble, "test_dtype_and_device"),
        (Forgetful, "test_state_dict_and_pickle"),
        (OrderMatters, "test_permutation_equivariant"),
        (OtherSelfSet, "test_self_set"),
        (LinearKernel, "test_stationary"),
        (InPlace, "test_input_unchanged"),
        (NotMany, "test_many_particles"),
        (NotManyForces, "test_many_particles"),
        (Boasts, "test_bandwidth"),
        (Hides, "test_bandwidth"),
        (AllPairs, "test_memory"),
    ],
)
def test_broken_kernels_are_caught(kernel, check):
    class Contract(KernelContract):
        def make_kernel(self):
            return kernel()

    with pytest.raises((AssertionError, ZeroDivisionError)):
        getattr(Contract(), check)()


@pytest.mark.parametrize(
    ("kernel", "check", "advice"),
    [
        (NotFinite, "test_slope_at_zero", "not finite at t = 0; sqrt"),
        (LinearKernel, "test_stationary", "set stationary = False"),
        (LinearKernel, "test_coincident_points", "set stationary = False"),
        (Boasts, "test_bandwidth", "Boasts.has_bandwidth is True, but its evaluation has .* None"),
        (AllPairs, "test_memory", r"AllPairs holds a tensor of \[n, m, d\]"),
        (AllPairs, "test_memory", "use a matrix product or cdist, or set large_dim = None"),
    ],
)
def test_a_failure_says_what_to_do(kernel, check, advice):
    class Contract(KernelContract):
        def make_kernel(self):
            return kernel()

    with pytest.raises(AssertionError, match=advice):
        getattr(Contract(), check)()


def test_the_kernels_of_the_documentation_pass(monkeypatch):
    page = types.ModuleType("add_a_kernel_page")
    monkeypatch.setitem(sys.modules, page.__name__, page)  # for pickle
    for _, code in code_blocks((ROOT / "docs" / "howto" / "add_a_kernel.md").read_text()):
        exec(code, page.__dict__)
    contracts = {name: c for name, c in vars(page).items() if name.startswith("Test")}
    assert sorted(contracts) == [
        "TestCosineKernel",
        "TestQuadraticKernel",
        "TestRationalQuadraticKernel",
    ]
    for contract in contracts.values():
        for check in dir(contract):
            if check.startswith("test_"):
                getattr(contract(), check)()


def test_what_does_not_apply_can_be_left_out():
    class Contract(KernelContract):
        stationary = False
        large_dim = None

        def make_kernel(self):
            return AllPairs()

    Contract().test_stationary()
    Contract().test_memory()


def test_make_kernel_must_be_defined():
    with pytest.raises(NotImplementedError, match="KernelContract must define make_kernel"):
        KernelContract().test_symmetric()


def test_freeze_holds_the_bandwidth():
    x, y = torch.randn(5, 2), torch.randn(4, 2)
    kernel = RBFKernel()
    frozen = KernelContract().freeze(kernel, x, y)
    assert torch.equal(frozen.bandwidth(10.0 * x, y), kernel.bandwidth(x, y))
    assert not torch.equal(kernel.bandwidth(10.0 * x, y), kernel.bandwidth(x, y))


def test_replayed_rule_repeats_answers_in_turn():
    rule = ReplayedRule(lambda pairs, n: pairs.sum() * n)
    recorded = [rule(torch.ones(1), 1), rule(torch.ones(2), 3)]
    rule.replay()
    assert [rule(torch.zeros(1), 9) for _ in range(3)] == [*recorded, recorded[0]]


def test_largest_tensor_sees_inside_autograd_and_function_transforms():
    x = torch.randn(4, 8, requires_grad=True)
    with LargestTensor() as largest:
        (x[:, None] - x[None, :]).square().sum().backward()
    assert largest.bytes == 4 * 4 * 8 * 4
    with LargestTensor() as largest:
        torch.vmap(lambda row: torch.outer(row, row))(x.detach())
    assert largest.bytes == 4 * 8 * 8 * 4


# The three ways of computing distances, all of which the contract goes


def scaled(function, monkeypatch, when=lambda *args, **options: True):
    right = getattr(distance, function)

    def wrong(*args, **options):
        return right(*args, **options) * (1.01 if when(*args, **options) else 1.0)

    monkeypatch.setattr(distance, function, wrong)


@pytest.mark.parametrize(
    ("function", "when", "check"),
    [
        ("_loop_over_dims", lambda *args: True, "test_repulsion_is_the_gradient_in"),
        ("_condensed_to_square", lambda *args: True, "test_repulsion_is_the_gradient_in"),
        ("_shifted_gram", lambda *args, same: not same, "test_repulsion_is_the_gradient_in"),
        ("_shifted_gram", lambda *args, same: same, "test_many_particles"),
        ("_shifted_gram", lambda x, y, same: x.ndim > 2, "test_batch_is_a_loop"),
    ],
)
def test_every_way_of_computing_distances_is_gone(function, when, check, monkeypatch):
    class Contract(KernelContract):
        def make_kernel(self):
            return RBFKernel(10.0)

    check = next(name for name in dir(Contract) if name.startswith(check))
    getattr(Contract(), check)()
    scaled(function, monkeypatch, when)
    with pytest.raises(AssertionError):
        getattr(Contract(), check)()
