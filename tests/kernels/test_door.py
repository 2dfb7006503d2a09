"""What stands at the door of every kernel, and which of them report a bandwidth."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close

from tests.kernels.policies import gaussian_actor
from torchrl_stein import kernels
from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    Evaluation,
    IdentityKernel,
    IMQKernel,
    Kernel,
    LayerwiseKernel,
    LinearKernel,
    MeanBandwidth,
    MedianBandwidth,
    ProductKernel,
    RadialControl,
    RadialKernel,
    RBFKernel,
    ScaledKernel,
    SharedDriftControl,
    SumKernel,
    TangentialControl,
)

D = 8  # a linear policy of 3 inputs and 1 action
X, Y = torch.linspace(-1.0, 1.0, 4 * D).view(4, D), torch.linspace(0.0, 1.0, 6 * D).view(6, D)


def behaviour(**options):
    kernel = BehaviourKernel(gaussian_actor(4, inputs=3), num_states=5, **options)
    kernel.observe(TensorDict({"observation": torch.ones(4, 2, 3)}, [4, 2]))
    return kernel


class OnlyForward(Kernel):
    def forward(self, x, y=None):
        return x @ (x if y is None else y).mT


class OwnEvaluation(RBFKernel):
    def evaluate(self, x, y=None):
        target = x if y is None else y
        k = torch.exp(-torch.cdist(x, target).square())
        return Evaluation(k, lambda weights: torch.zeros_like(target), self.bandwidth(x, y))


class PassesItOn(RBFKernel):
    def evaluate(self, x, y=None):
        return replace(super().evaluate(x, y), weighted_repulsion=lambda weights: x)


class SaysNo(OwnEvaluation):
    def evaluate(self, x, y=None):
        return replace(super().evaluate(x, y), bandwidth=None)

    @property
    def has_bandwidth(self):
        return False


# Name -> kernel and whether it has exactly one bandwidth. Those without values between two sets of
# points are asked for one.
KERNELS = {
    "rbf": (lambda: RBFKernel(), True),
    "fixed": (lambda: RBFKernel(2), True),
    "imq": (lambda: IMQKernel(MeanBandwidth()), True),
    "linear": (lambda: LinearKernel(), False),
    "scaled": (lambda: 0.5 * RBFKernel(), True),
    "scaled twice": (lambda: 2 * (0.5 * IMQKernel(3.0)), True),
    "scaled linear": (lambda: 0.5 * LinearKernel(), False),
    "sum": (lambda: RBFKernel() + LinearKernel(), False),
    "scaled sum": (lambda: 0.5 * (RBFKernel() + RBFKernel()), False),
    "product": (lambda: RBFKernel() * LinearKernel(), False),
    "layers": (lambda: LayerwiseKernel([slice(0, 3), slice(3, D)]), False),
    "one layer": (lambda: LayerwiseKernel([slice(0, D)]), False),
    "behaviour": (behaviour, False),
    "own forward": (OnlyForward, False),
    "own evaluation": (OwnEvaluation, True),
    "own evaluation that passes it on": (PassesItOn, True),
    "own evaluation, scaled": (lambda: 3 * OwnEvaluation(), True),
    "own evaluation without": (SaysNo, False),
    "tangential": (lambda: TangentialControl(0.5 * RBFKernel()), True),
    "tangential of a sum": (lambda: TangentialControl(RBFKernel() + RBFKernel()), False),
}
ALONE = {
    "identity": (lambda: IdentityKernel(), False),
    "radial control": (lambda: RadialControl(RBFKernel()), True),
    "drift": (lambda: DriftControl(RBFKernel(), 4, D), True),
    "shared drift": (lambda: SharedDriftControl(RBFKernel() + RBFKernel(), 4, D), False),
}


def test_no_kernel_is_forgotten():
    made = {type(make()) for make, _ in (KERNELS | ALONE).values()}
    public = {getattr(kernels, name) for name in kernels.__all__}
    classes = {c for c in public if inspect.isclass(c) and issubclass(c, Kernel)}
    assert classes - {Kernel, RadialKernel} <= made


# Which report a bandwidth


@pytest.mark.parametrize("name", KERNELS | ALONE)
def test_a_bandwidth_is_there_if_and_only_if_the_kernel_has_one(name):
    make, has_bandwidth = (KERNELS | ALONE)[name]
    kernel = make()
    assert kernel.has_bandwidth is has_bandwidth
    batch = torch.stack([X, 2.0 * X])
    points = [(X, None)]
    if name not in ("drift", "shared drift", "behaviour"):
        points += [(batch, None)]
    if name in KERNELS:
        points += [(X, Y), (batch, torch.stack([Y, Y + 1.0]))]
    for x, y in points:
        with torch.no_grad():  # as losses call it
            bandwidth = kernel.evaluate(x, y).bandwidth
        if has_bandwidth:
            assert bandwidth.shape in (x.shape[:-2], ())
            assert (bandwidth > 0).all()
        else:
            assert bandwidth is None


def test_the_bandwidth_of_an_evaluation_of_ones_own_is_that_of_the_points():
    for rule in (None, MeanBandwidth(), 3.0):
        for points in ((X, None), (X, Y)):
            found = OwnEvaluation(rule).evaluate(*points).bandwidth
            assert_close(found, RBFKernel(rule).bandwidth(*points))
            assert_close(found, PassesItOn(rule).evaluate(*points).bandwidth)


# Points


# What an evaluation of one's own does with points is its own affair.
OURS = [name for name in KERNELS | ALONE if not name.startswith("own evaluation")]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("method", ["evaluate", "gram_and_repulsion", "svgd_direction"])
def test_integers_are_no_points(name, method):
    kernel = (KERNELS | ALONE)[name][0]()
    for points in (X.long(), X > 0, X.tolist(), X.numpy()):
        arguments = (points, points) if method == "svgd_direction" else (points,)
        with pytest.raises(TypeError, match=r": x must be a floating-point tensor, got"):
            getattr(kernel, method)(*arguments)
        if method == "svgd_direction":
            with pytest.raises(TypeError, match=r": scores must be a floating-point tensor, got"):
                kernel.svgd_direction(X, points)
        elif name in KERNELS:
            with pytest.raises(TypeError, match=r": y must be a floating-point tensor, got"):
                getattr(kernel, method)(X, points)


@pytest.mark.parametrize("name", ["rbf", "imq", "linear", "sum", "scaled"])
def test_points_of_another_shape(name):
    kernel = KERNELS[name][0]()
    for x, y, message in (
        (X[0], None, r"x must have at least 2 dimension\(s\), got shape \[8\]"),
        (X, Y[0], r"y must have at least 2 dimension\(s\), got shape \[8\]"),
        (X, Y[:, :3], r"y has size 3 in dimension -1 but x has 8"),
    ):
        with pytest.raises(ValueError, match=rf"Kernel: {message}"):
            kernel.evaluate(x, y)


# Rules


@pytest.mark.parametrize("kernel", [RBFKernel, IMQKernel])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, -math.inf])
def test_a_rule_that_returns_no_bandwidth(kernel, bad):
    rules = [lambda pairs, n: bad, lambda pairs, n: torch.tensor(bad)]
    rules += [lambda pairs, n: pairs.mean(-1).where(pairs.mean(-1) < 1.0, bad)]
    batch = torch.stack([0.01 * X, 10.0 * X])  # only the second of which is spoilt by the last rule
    for rule in rules:
        for points in ((batch,), (batch, batch)):
            for call in (kernel(rule).evaluate, kernel(rule).bandwidth, (0.5 * kernel(rule))):
                with pytest.raises(ValueError, match=rf"Kernel: .* must return h > 0, got {bad}"):
                    call(*points)
        with pytest.raises(ValueError, match=r"Kernel: the bandwidth rule .* must return h > 0"):
            kernel(rule).svgd_direction(batch[1], batch[1])


def test_a_rule_may_be_infinitely_wide():
    assert (RBFKernel(lambda pairs, n: math.inf)(X) == 1.0).all()


@pytest.mark.parametrize("returned", [None, "wide", True, [1.0]])
def test_a_rule_that_returns_no_number(returned):
    with pytest.raises(
        TypeError, match=r"RBFKernel: the bandwidth rule .* must return a tensor, g"
    ):
        RBFKernel(lambda pairs, n: returned)(X)


def test_points_that_are_not_finite_are_not_the_fault_of_the_rule():
    points = X.clone()
    points[2] = math.nan
    for kernel in (RBFKernel(), RBFKernel(MeanBandwidth())):
        with pytest.raises(ValueError, match=r"RBFKernel: squared distances between .* be finite"):
            kernel(points)


@pytest.mark.parametrize("rule", [MedianBandwidth(), MeanBandwidth()])
def test_arguments_of_rules(rule):
    name = type(rule).__name__
    pairs = torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(
        TypeError, match=f"{name}: pairs must be a floating-point tensor, got one o"
    ):
        rule(pairs.long(), 3)
    for none in (pairs[:0], torch.tensor(1.0)):
        with pytest.raises(ValueError, match=rf"{name}: pairs must be .* P >= 1, got shape \["):
            rule(none, 3)
    for n, error in ((0, ValueError), (2.5, TypeError), (True, TypeError), ("3", TypeError)):
        with pytest.raises(error, match=rf"{name}: n must be .*>= 1, got {n!r}"):
            rule(pairs, n)


# Numbers of the constructors

NUMBERS = {
    "RBFKernel.bandwidth": (lambda v: RBFKernel(v), 0.0),
    "IMQKernel.bandwidth": (lambda v: IMQKernel(v), -1.0),
    "IMQKernel.exponent": (lambda v: IMQKernel(exponent=v), 1.0),
    "LinearKernel.offset": (lambda v: LinearKernel(v), -1e-9),
    "ScaledKernel.scale": (lambda v: ScaledKernel(RBFKernel(), v), -1e-9),
    "BehaviourKernel.scale": (lambda v: behaviour(scale=v), 0.0),
    "MedianBandwidth.floor": (lambda v: MedianBandwidth(floor=v), 0.0),
    "MeanBandwidth.floor": (lambda v: MeanBandwidth(floor=v), -1.0),
    "MedianBandwidth.scale": (lambda v: MedianBandwidth(scale=v), 0.0),
    "MeanBandwidth.scale": (lambda v: MeanBandwidth(scale=v), -1.0),
}
COUNTS = {
    "BehaviourKernel.num_states": lambda v: BehaviourKernel(gaussian_actor(4), num_states=v),
    "DriftControl.num_particles": lambda v: DriftControl(RBFKernel(), v, D),
    "DriftControl.dim": lambda v: DriftControl(RBFKernel(), 4, v),
    "SharedDriftControl.num_particles": lambda v: SharedDriftControl(RBFKernel(), v, D),
    "SharedDriftControl.dim": lambda v: SharedDriftControl(RBFKernel(), 4, v),
}
CHOICES = {"denominator", "divergence"}
OBJECTS = {"kernel", "first", "second", "actor", "layer_slices", "kernel_factory", "matrix"}


def test_no_number_is_forgotten():
    for name in kernels.__all__:
        one = getattr(kernels, name)
        if name in ("BandwidthRule", "Kernel", "RadialKernel", "Evaluation", "IdentityKernel"):
            continue  # a type, and classes without arguments of their own
        for argument in inspect.signature(one).parameters:
            spelt = {f"{c.__name__}.{argument}" for c in getattr(one, "__mro__", (one,))}
            known = (
                spelt & {*NUMBERS, *COUNTS, "DriftControl.seed", "SharedDriftControl.seed"}
                or argument in CHOICES | OBJECTS
            )
            assert known, f"{name}: is {argument} a number?"


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    make, bad = NUMBERS[name]
    owner, argument = name.split(".")
    for value in (bad, math.nan, math.inf, -math.inf, torch.tensor(bad), np.float32(bad)):
        with pytest.raises(ValueError, match=rf"{owner}: {argument} must be .*[<>]=? .*, got "):
            make(value)
    for value in ("1", [1.0], True, 1j, torch.ones(2)):
        with pytest.raises(TypeError, match=rf"{owner}: {argument} must be a number"):
            make(value)
    for value in (0.5, np.float32(0.5), torch.tensor(0.5)):
        make(value)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    owner, argument = name.split(".")
    with pytest.raises(ValueError, match=rf"{owner}: {argument} must be >= 1, got 0"):
        COUNTS[name](0)
    for value in (2.0, 2.5, True, "2", None, math.nan, [2]):
        with pytest.raises(TypeError, match=rf"{owner}: {argument} must be an integer >= 1, got"):
            COUNTS[name](value)
    COUNTS[name](np.int64(2))


def test_seeds():
    for seed, error in ((-1, ValueError), (0.5, TypeError), (None, TypeError)):
        for control in (DriftControl, SharedDriftControl):
            with pytest.raises(error, match=rf"^{control.__name__}: seed must be .*>= 0, got"):
                control(RBFKernel(), 4, D, seed=seed)


@pytest.mark.parametrize(
    "make",
    [
        SumKernel,
        ProductKernel,
        lambda a, b: ScaledKernel(b, 1.0),
        lambda a, b: RadialControl(b),
        lambda a, b: TangentialControl(b),
    ],
)
@pytest.mark.parametrize("bad", [RBFKernel, "rbf", None, 1.0, torch.nn.Linear(1, 1)])
def test_what_is_no_kernel(make, bad):
    with pytest.raises(TypeError, match=r": (second|kernel) must be a Kernel, got "):
        make(RBFKernel(), bad)


def test_a_rule_is_an_instance():
    with pytest.raises(TypeError, match="bandwidth rule, got the class MedianBandwidth"):
        RBFKernel(MedianBandwidth)
    assert repr(RBFKernel(torch.tensor(2.0))) == repr(RBFKernel(2)) == "RBFKernel(bandwidth=2.0)"


def test_algebra_with_numbers_of_any_kind():
    want = (0.5 * RBFKernel(2.0))(X)
    for number in (np.float32(0.5), np.float64(0.5), 0.5):
        assert_close((RBFKernel(2.0) * number)(X), want)
    for number in (True, math.nan, -1):
        with pytest.raises((TypeError, ValueError), match="ScaledKernel: scale must be"):
            number * RBFKernel()
    for other in ("2", None, [1.0]):
        with pytest.raises(TypeError):
            other * RBFKernel()


def test_other_arguments():
    with pytest.raises(TypeError, match=r"LayerwiseKernel: start of a layer must be an integer"):
        LayerwiseKernel([slice(0.0, 2)])
    with pytest.raises(TypeError, match=r"LayerwiseKernel: stop of a layer must be an integer"):
        LayerwiseKernel([slice(0, 2.0)])
    with pytest.raises(KeyError, match="BehaviourKernel: the batch lacks key 'observation'"):
        behaviour().observe(TensorDict({"state": torch.ones(4, 2, 3)}, [4, 2]))
