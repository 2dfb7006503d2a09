"""What stands at the door of every function: numbers in range, floating-point tensors, shapes."""

import inspect
import math

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein import functional
from torchrl_stein.functional import (
    adapt_kl_penalty,
    amortized_surrogate,
    birth_death_rates,
    boltzmann_value,
    categorical_jensen_shannon,
    categorical_symmetric_kl,
    centred_ranks,
    conjugate_gradient,
    couple_particles,
    entropic_plan,
    entropic_transport,
    entropy_regularized_value,
    evolution_gradient,
    expected_value,
    gaussian_jensen_shannon_bound,
    gaussian_symmetric_kl,
    inverse_multiquadric,
    ksd_u_statistic,
    ksd_v_statistic,
    log_distance,
    log_distance_gradient,
    mellowmax_value,
    mmd_squared,
    mode_frequencies,
    normalized_entropy,
    project_to_support,
    removal_success_in_tries,
    repulsion_surrogate,
    retrace,
    sinkhorn_divergence,
    soft_value,
    soft_value_iteration,
    squared_distances,
    squash_log_det,
    squash_to_box,
    stein_kernel,
    success_in_tries,
    svgd_direction,
    svgd_log_det,
    svgd_step_bound,
    truncated_importance,
    trust_region_projection,
    wgf_potential,
    z_scores,
)

X, Y = torch.linspace(-1.0, 2.0, 6).view(3, 2), torch.linspace(0.0, 3.0, 6).view(3, 2)
SQUARE, ONE, HALF = squared_distances(X), torch.ones(2), torch.full((2,), 0.5)
ENDS = {"low": -ONE, "high": ONE}
GAUSSIANS = {"loc_p": X, "scale_p": ONE, "loc_q": Y, "scale_q": HALF}


def gram(x, y):
    return x @ y.mT


# A call of every function that works.
CALLS = {
    adapt_kl_penalty: {"beta": ONE, "kl": HALF, "kl_target": 0.01},
    amortized_surrogate: {"points": X, "direction": Y},
    birth_death_rates: {"gram": torch.eye(2) + 0.5, "returns": ONE, "scale": 0.5},
    boltzmann_value: {"q": X, "log_proposal": Y, "temperature": 0.5},
    categorical_jensen_shannon: {"logits_p": X, "logits_q": Y},
    categorical_symmetric_kl: {"logits_p": X, "logits_q": Y},
    centred_ranks: {"values": X},
    couple_particles: {"particles": X, "gram": SQUARE, "num_columns": 1},
    conjugate_gradient: {"matvec": lambda v: 2.0 * v, "b": X},
    entropic_plan: {"cost": SQUARE, "regularization": 0.5},
    entropic_transport: {"cost": SQUARE, "regularization": 0.5},
    mellowmax_value: {"q": X, "log_proposal": Y, "temperature": 0.5},
    entropy_regularized_value: {"q": X, "log_policy": Y, "temperature": 0.5},
    evolution_gradient: {"returns": X.mT, "directions": X, "scale": 0.5},
    log_distance: {"x": X, "y": Y},
    log_distance_gradient: {"x": X, "y": Y},
    gaussian_jensen_shannon_bound: GAUSSIANS,
    gaussian_symmetric_kl: GAUSSIANS,
    inverse_multiquadric: {"squared_distance": SQUARE},
    ksd_u_statistic: {"x": X, "scores": Y},
    ksd_v_statistic: {"x": X, "scores": Y},
    mmd_squared: {"x": X, "y": Y, "kernel": gram},
    mode_frequencies: {"x": X, "modes": Y, "radius": 1.0},
    normalized_entropy: {"frequencies": HALF},
    project_to_support: {
        "probabilities": X,
        "atoms": Y,
        "support": torch.tensor([0.0, 1.0, 2.0]),
    },
    repulsion_surrogate: {"particles": X, "gram": SQUARE, "repulsion": Y},
    sinkhorn_divergence: {"x": X, "y": Y, "regularization": 0.5},
    soft_value: {"q": X, "log_proposal": Y, "temperature": 0.5},
    squared_distances: {"x": X, "y": Y},
    squash_log_det: {"u": X, **ENDS},
    squash_to_box: {"u": X, **ENDS},
    stein_kernel: {"x": X, "scores": Y},
    svgd_log_det: {"x": X, "scores": Y, "hessian_trace": X[:, 0], "bandwidth": 1.0},
    svgd_step_bound: {
        "x": X,
        "scores": Y,
        "probes": X.expand(4, 3, 2),
        "products": X.expand(4, 3, 2),
        "bandwidth": 1.0,
    },
    svgd_direction: {"gram": SQUARE, "repulsion": X, "scores": Y},
    truncated_importance: {"log_ratio": X, "bound": 2.0},
    trust_region_projection: {"gradient": X, "kl_gradient": Y, "bound": 1.0},
    wgf_potential: {"cost": SQUARE, "regularization": 0.5},
    z_scores: {"values": X},
}
# Arguments that are counts or numbers, with a number that is just out of range.
COUNTS = {"num_columns": 0, "iterations": 0, "max_iterations": 0, "newton_steps": -1}
NUMBERS = {"temperature": 0.0, "regularization": 0.0, "radius": 0.0, "damping": -1e-9}
NUMBERS |= {"tolerance": -1e-9, "scale": 0.0, "bandwidth": 0.0, "bound": 0.0, "kl_target": 0.0}
NO_NUMBERS = {"profile", "kernel", "matvec", "source", "target", "solver"}

# Of integers and bools, or of arguments that are ignored: test_retrace.py, test_tries.py,
# test_value_targets.py, test_soft_value_iteration.py.
OTHERS = {expected_value, removal_success_in_tries, retrace, soft_value_iteration}
OTHERS |= {success_in_tries}

functions = pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)


def test_no_function_is_forgotten():
    functions = {getattr(functional, name) for name in functional.__all__}
    assert set(CALLS) == functions - OTHERS
    tensors = {name for call in CALLS.values() for name, v in call.items() if torch.is_tensor(v)}
    for function in CALLS:
        arguments = set(inspect.signature(function).parameters)
        unknown = arguments - tensors - set(COUNTS) - set(NUMBERS) - NO_NUMBERS
        assert not unknown, f"{function.__name__}: is {unknown} a number?"


def arguments_that_are(table):
    return [
        pytest.param(function, name, id=f"{function.__name__}-{name}")
        for function in CALLS
        for name in inspect.signature(function).parameters
        if name in table
    ]


@pytest.mark.parametrize(("function", "name"), arguments_that_are(NUMBERS))
def test_numbers(function, name):
    for value in (NUMBERS[name], -1, math.nan, math.inf, -math.inf):
        for number in (value, torch.tensor(value)):
            with pytest.raises(ValueError, match=rf"\w+: {name} must be "):
                function(**CALLS[function] | {name: number})
    for value in ("1", [1.0], True, 1j, {}):
        with pytest.raises(TypeError, match=rf"\w+: {name} must be a number >"):
            function(**CALLS[function] | {name: value})


@pytest.mark.parametrize(("function", "name"), arguments_that_are(COUNTS))
def test_counts(function, name):
    with pytest.raises(ValueError, match=rf"\w+: {name} must be >= {COUNTS[name] + 1}, got"):
        function(**CALLS[function] | {name: COUNTS[name]})
    for value in (2.0, 2.5, True, "2", None, math.nan, torch.tensor(2)):
        with pytest.raises(TypeError, match=rf"\w+: {name} must be an integer"):
            function(**CALLS[function] | {name: value})


TENSORS = [
    pytest.param(function, name, id=f"{function.__name__}-{name}")
    for function, call in CALLS.items()
    for name, value in call.items()
    if torch.is_tensor(value)
]


@pytest.mark.parametrize(("function", "name"), TENSORS)
def test_integers_and_what_is_no_tensor(function, name):
    call = CALLS[function]
    function(**call)
    for value in (call[name].long(), call[name] > 0.7, call[name].tolist(), call[name].numpy()):
        with pytest.raises(TypeError, match=rf"\w+: {name} must be a floating-point tensor, got"):
            function(**call | {name: value})


@pytest.mark.parametrize("name", ["source", "target"])
def test_weights(name):
    cost = torch.zeros(3, 3)
    for bad, message in (
        ([1.5, -0.5, 0.0], "must be >= 0, got -0.5"),
        ([0.5, math.nan, 0.5], "must be finite and >= 0, got nan"),
        ([1.0, 1.0, 1.0], "must sum to 1, got sums between 3.0 and 3.0"),
        ([0.0, 0.0, 0.0], "must sum to 1, got sums between 0.0 and 0.0"),
    ):
        for function in (entropic_plan, entropic_transport):
            with pytest.raises(ValueError, match=f"entropic_plan: {name} {message}"):
                function(cost, 1.0, **{name: torch.tensor(bad)})
    with pytest.raises(TypeError, match=f"{name} must be a floating-point tensor, got one of"):
        entropic_plan(cost, 1.0, **{name: torch.tensor([1, 0, 0])})
    # Rounding is none of it, and each problem of a batch has weights of its own.
    entropic_plan(cost, 1.0, **{name: torch.tensor([0.3, 0.3, 0.4]).half().float()})
    both = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.6, 0.0]])
    with pytest.raises(ValueError, match=f"{name} must sum to 1, got sums between 1.0 and 1.1"):
        entropic_plan(torch.zeros(2, 3, 3), 1.0, **{name: both})


@pytest.mark.parametrize("function", [squash_to_box, squash_log_det])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1.0, -1.0),
        (0.5, 0.5),
        (-math.inf, 1.0),
        (-1.0, math.inf),
        (math.nan, 1.0),
        (-1.0, math.nan),
    ],
)
def test_boxes(function, low, high):
    low, high = torch.tensor([-1.0, low]), torch.tensor([1.0, high])
    with pytest.raises(ValueError, match=rf"{function.__name__}: high - low must be .*> 0, got"):
        function(X, low, high)


@pytest.mark.parametrize("function", [gaussian_symmetric_kl, gaussian_jensen_shannon_bound])
@pytest.mark.parametrize("name", ["scale_p", "scale_q"])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_scales(function, name, bad):
    with pytest.raises(ValueError, match=rf"{function.__name__}: {name} must be .*> 0, got {bad}"):
        function(**GAUSSIANS | {name: torch.tensor([1.0, bad])})


def test_frequencies():
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"frequencies must be .*>= 0, got {bad}"):
            normalized_entropy(torch.tensor([0.5, bad], dtype=torch.float64))


VALUES = (soft_value, boltzmann_value, mellowmax_value, entropy_regularized_value)


@pytest.mark.parametrize("function", VALUES)
def test_nothing_grows_by_broadcasting_into_a_value(function):
    q, name = torch.zeros(5, 4), list(inspect.signature(function).parameters)[1]
    for shape in ((4,), (5, 1), (1, 4), (5, 4), ()):
        assert function(q, torch.zeros(shape), 1.0).shape == (5,)
    for shape in ((3,), (5,), (4, 1), (2, 5, 4), (1, 5, 4)):
        message = rf"{name} must expand to \[5, 4\], the shape of q, got shape \[.*\]"
        with pytest.raises(ValueError, match=message):
            function(q, torch.zeros(shape), 1.0)
    for shape in ((), (1,), (5,)):
        assert function(q, torch.zeros(4), torch.ones(shape)).shape == (5,)
    for shape in ((4,), (5, 1), (5, 4), (2, 5)):
        message = r"temperature must expand to \[5\], the shape of the states of q, got shape \["
        with pytest.raises(ValueError, match=message):
            function(q, torch.zeros(4), torch.ones(shape))
    with pytest.raises(ValueError, match=r"temperature must be > 0, got 0\.0"):
        function(q, torch.zeros(4), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match=r"q must have a last dimension of samples.* got \[5, 0\]"):
        function(torch.zeros(5, 0), torch.zeros(()), 1.0)


@pytest.mark.parametrize("function", [squash_to_box, squash_log_det])
def test_nothing_grows_by_broadcasting_into_an_action(function):
    u = torch.zeros(5, 1)
    for name in ENDS:
        for shape in ((3,), (5, 3), (2, 5, 1)):
            bounds = {"low": -torch.ones(1), "high": torch.ones(1)} | {name: torch.full(shape, 0.5)}
            message = rf"{name} must expand to \[5, 1\], the shape of u, got shape \["
            with pytest.raises(ValueError, match=message):
                function(u, **bounds)


@pytest.mark.parametrize(
    "function",
    [f for f in CALLS if f.__name__.startswith(("gaussian", "categorical"))],
    ids=lambda function: function.__name__,
)
def test_divergences_need_one_number_of_actions(function):
    for name in CALLS[function]:
        for shape in ((3, 1), (3, 3), (1,), (3,)):
            with pytest.raises(ValueError, match=r"has size \d in dimension -1 but \w+ has \d"):
                function(**CALLS[function] | {name: torch.ones(shape)})
        with pytest.raises(ValueError, match="must have at least 1 dimension"):
            function(**CALLS[function] | {name: torch.tensor(1.0)})


def test_shapes_of_points():
    for function, name, value in (
        (amortized_surrogate, "points", torch.zeros(3)),
        (stein_kernel, "x", torch.zeros(3)),
        (ksd_u_statistic, "x", torch.zeros(3)),
        (mmd_squared, "y", torch.zeros(3)),
        (mode_frequencies, "modes", torch.zeros(3)),
        (entropic_plan, "cost", torch.zeros(3)),
    ):
        with pytest.raises(ValueError, match=rf"{name} must have at least 2 dimension\(s\)"):
            function(**CALLS[function] | {name: value})
    for other in (X[:2], X[:, :1]):
        with pytest.raises(
            ValueError, match=r"amortized_surrogate: direction has size .* but points"
        ):
            amortized_surrogate(X, other)
    with pytest.raises(ValueError, match=r"modes must be \[g, d\], got shape \[2, 4, 2\]"):
        mode_frequencies(X, torch.zeros(2, 4, 2), 1.0)
    with pytest.raises(ValueError, match=r"ksd_v_statistic: the number of rows of x must be >= 1"):
        ksd_v_statistic(X[:0], X[:0])


@pytest.mark.parametrize(
    ("function", "name"),
    [(conjugate_gradient, "matvec"), (stein_kernel, "profile"), (mmd_squared, "kernel")],
)
def test_functions_of_functions(function, name):
    for value in (None, 2.0, X):
        with pytest.raises(TypeError, match=f"{function.__name__}: {name} must be a function"):
            function(**CALLS[function] | {name: value})


@pytest.mark.parametrize("value", [None, 1.0, torch.ones(3, 2, dtype=torch.long)])
def test_what_matvec_returns(value):
    with pytest.raises(TypeError, match="what matvec returns must be a floating-point tensor"):
        conjugate_gradient(lambda v: value, X)


@functions
def test_a_tensor_of_nan_gives_nan_or_says_so(function):
    tensors = {name: v.clone() for name, v in CALLS[function].items() if torch.is_tensor(v)}
    errors = []
    for name in tensors.keys() - {"out"}:
        spoilt = CALLS[function] | tensors | {name: torch.full_like(tensors[name], math.nan)}
        try:
            function(**spoilt)
        except ValueError as error:
            errors.append(str(error))
    assert all("nan" in error for error in errors)
    tensors.pop("out", None)  # the others are as they were
    assert_close(tensors, {name: CALLS[function][name] for name in tensors})


@pytest.mark.parametrize("function", [squash_to_box, squash_log_det])
def test_bounds_are_not_looked_at_in_an_export(function):
    class Squash(torch.nn.Module):
        def forward(self, u, low, high):
            return function(u, low, high)

    rows = torch.export.Dim("rows")
    exported = torch.export.export(Squash(), (X, -ONE, ONE), dynamic_shapes=({0: rows}, None, None))
    u = torch.randn(7, 2)
    assert_close(exported.module()(u, -ONE, 2.0 * ONE), function(u, -ONE, 2.0 * ONE))
