"""The checks at the door: what they accept, what they refuse, and what their messages say."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from torchrl_stein import _checks
from torchrl_stein._checks import (
    check_choice,
    check_columns,
    check_count,
    check_discounts,
    check_expands,
    check_finite,
    check_floating,
    check_keys,
    check_number,
    check_numbers,
    check_pair,
    check_particles,
    check_same_size,
    check_type,
    may_look,
)

NO_NUMBERS = [None, "1", b"1", [1.0], (1.0,), {}, 1j, True, np.bool_(True), object()]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.inf)]
ON_META = torch.zeros(3, device="meta")  # stands for a device on which nobody may look


# Numbers


@pytest.mark.parametrize(
    "value", [1, 0.5, np.float32(0.5), np.int64(2), Fraction(1, 2), torch.tensor(0.5)]
)
def test_numbers_of_any_kind(value):
    check_number("f", above=0, below=3, x=value)
    check_numbers("f", above=0, below=3, x=value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, torch.zeros(2), torch.tensor(True)])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"f: x must be a number >= 0 and < 1, got "):
        check_number("f", at_least=0, below=1, x=value)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("check", [check_number, check_numbers])
def test_numbers_are_finite(check, value):
    with pytest.raises(ValueError, match=r"f: x must be finite, got (nan|-?inf)"):
        check("f", x=value)
    with pytest.raises(ValueError, match=r"f: x must be finite and > 0, got (nan|-?inf)"):
        check("f", above=0, x=value)


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "words"),
    [
        ({"above": 0}, 1e-30, 0, "> 0"),
        ({"at_least": 0}, 0, -1e-30, ">= 0"),
        ({"below": 1}, 0.9, 1, "< 1"),
        ({"at_most": 1}, 1, 1.1, "<= 1"),
        ({"above": 0, "at_most": 1}, 1, 0, "> 0 and <= 1"),
    ],
)
def test_bounds(bounds, good, bad, words):
    for check in (check_number, check_numbers):
        check("f", **bounds, x=good)
        with pytest.raises(ValueError, match=rf"f: x must be {words}, got {bad}"):
            check("f", **bounds, x=bad)
    check_numbers("f", **bounds, x=torch.full((2, 3), float(good)))
    mixed = torch.tensor([float(good), float(bad), float(good)], dtype=torch.float64)
    with pytest.raises(ValueError, match=rf"f: x must be {words}, got {float(bad)}"):
        check_numbers("f", **bounds, x=mixed)


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(finite, finite, st.lists(st.floats(width=32), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_one_number_a_list_and_a_tensor_agree(low, high, numbers):
    def refused(check, value):
        try:
            check("f", at_least=low, below=high, x=value)
        except ValueError:
            return True
        return False

    want = not all(math.isfinite(x) and low <= x < high for x in numbers)
    assert any(refused(check_number, x) for x in numbers) == want
    assert refused(check_numbers, numbers) == want
    assert refused(check_numbers, torch.tensor(numbers, dtype=torch.float64)) == want


def test_every_number_is_checked_and_named():
    with pytest.raises(ValueError, match="f: second must be > 0, got -1"):
        check_number("f", above=0, first=1, second=-1)
    with pytest.raises(ValueError, match="f: second must be > 0, got 0"):
        check_numbers("f", above=0, first=torch.ones(3), second=[1, 0])
    with pytest.raises(TypeError, match="f: second must be an integer >= 1, got None"):
        check_count("f", first=1, second=None)


def test_tensors_of_numbers():
    check_numbers("f", above=0, x=torch.tensor([1, 2]))
    check_numbers("f", above=0, x=torch.ones(0, 3))
    check_numbers("f", above=0, x=torch.ones(2, requires_grad=True))
    for value in (torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(TypeError, match=r"f: x must hold numbers > 0, got a tensor of torch\."):
            check_numbers("f", above=0, x=value)


def test_nobody_looks_at_another_device_or_while_tracing_or_inside_of_transforms():
    assert may_look(torch.zeros(3), torch.zeros(()))
    assert not may_look(torch.zeros(3), ON_META)
    check_numbers("f", above=0, x=ON_META)
    check_number("f", above=0, x=ON_META[0])
    check_finite("f", {"x": ON_META})

    def checked(x):
        check_number("f", above=0, x=x.sum())
        check_numbers("f", above=0, x=x)
        check_finite("f", {"x": x})
        return 2.0 * x

    bad = torch.tensor([[-1.0, math.nan], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"f: x must be finite"):
        checked(bad)
    for transform in (torch.vmap(checked), torch.func.vmap(torch.func.vmap(checked))):
        torch.testing.assert_close(transform(bad), 2.0 * bad, equal_nan=True)
    torch.func.grad(lambda x: checked(x).sum())(bad)
    compiled = torch.compile(checked, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(bad), 2.0 * bad, equal_nan=True)


@pytest.mark.parametrize("dynamic", [False, None, True])
def test_numbers_and_counts_may_vary_while_tracing(dynamic):
    def checked(x, number, count):
        check_number("f", above=0, below=10, number=number)
        check_numbers("f", above=0, number=number)
        check_count("f", count=count, rows=x.shape[0])
        check_expands("f", x.shape, "x", x=x, row=x[:1])
        return number * x[:count]

    torch.compiler.reset()
    compiled = torch.compile(checked, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows, number, count in ((3, 0.5, 1), (4, 0.7, 2), (5, 0.9, 3), (6, 2, 4)):
        x = torch.ones(rows, 2)
        torch.testing.assert_close(compiled(x, number, count), number * x[:count])


# Counts, pairs, words, types


def test_counts():
    check_count("f", n=1, m=np.int32(7), k=10**30)
    check_count("f", at_least=0, at_most=2, n=0, m=2)
    for value in (0, -1):
        with pytest.raises(ValueError, match=rf"f: n must be >= 1, got {value}"):
            check_count("f", n=value)
    with pytest.raises(ValueError, match=r"f: n must be >= 1 and <= 2, got 3"):
        check_count("f", at_most=2, n=3)
    for value in (*NO_NUMBERS, 2.0, 2.5, math.nan, torch.tensor(2)):
        with pytest.raises(TypeError, match="f: n must be an integer >= 1, got "):
            check_count("f", n=value)


def test_pairs():
    check_pair("f", n=3, m=(1, 2), k=[4, 4])
    with pytest.raises(ValueError, match=r"an integer or a pair of integers, got \(1, 2, 3\)"):
        check_pair("f", n=(1, 2, 3))
    with pytest.raises(ValueError, match="f: n must be >= 1, got 0"):
        check_pair("f", n=(1, 0))
    with pytest.raises(TypeError, match=r"f: n must be an integer >= 1, got 2\.0"):
        check_pair("f", n=(1, 2.0))


def test_leading_dimensions_of_a_population():
    assert check_particles("f", 3) == check_particles("f", (3,)) == torch.Size([3])
    assert check_particles("f", (2, 3)) == torch.Size([2, 3])
    for wrong in ((), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"num_particles must be an integer n or a pair"):
            check_particles("f", wrong)
    with pytest.raises(ValueError, match="f: num_particles must be >= 1, got 0"):
        check_particles("f", (2, 0))
    with pytest.raises(TypeError, match=r"f: num_particles must be an integer >= 1, got \[2\]"):
        check_particles("f", [2])


@pytest.mark.parametrize("value", ["c", 1, None, ["a"], True])
def test_words(value):
    check_choice("f", ("a", "b"), x="b")
    with pytest.raises(ValueError, match=r"f: x must be one of \['a', 'b'\], got "):
        check_choice("f", ("b", "a"), x=value)


def test_types():
    check_type("f", "a module", torch.nn.Module, x=torch.nn.Tanh())
    for value, got in (
        (torch.nn.Tanh, "the class Tanh"),
        ("tanh", "'tanh'"),
        (None, "None"),
        (torch.zeros(2, 3), r"a tensor of shape \[2, 3\]"),
        (torch.nn.Parameter, "the class Parameter"),
        (np.zeros(2), "ndarray"),
    ):
        with pytest.raises(TypeError, match=f"f: x must be a module, got {got}$"):
            check_type("f", "a module", torch.nn.Module, x=value)


# Tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_tensors(dtype):
    check_floating("f", x=torch.zeros(2, dtype=dtype), y=torch.zeros(2, dtype=dtype, device="meta"))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.complex64])
def test_tensors_of_another_kind(dtype):
    with pytest.raises(
        TypeError, match=f"f: y must be a floating-point tensor, got one of {dtype}"
    ):
        check_floating("f", x=torch.zeros(2), y=torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize("value", [None, 1.0, [1.0], np.zeros(2)])
def test_what_is_no_tensor(value):
    with pytest.raises(
        TypeError, match=r"f: x must be a floating-point tensor, got (None|1|\[|nd)"
    ):
        check_floating("f", x=value)


def test_equal_sizes():
    check_same_size("f", x=(torch.zeros(4, 2), -1), y=(torch.zeros(7, 9, 2), 2))
    message = r"f: y has size 3 in dimension -1 but x has 2 \(y \[7, 3\], x \[4, 2\]\)"
    with pytest.raises(ValueError, match=message):
        check_same_size("f", x=(torch.zeros(4, 2), -1), y=(torch.zeros(7, 3), -1))


@pytest.mark.parametrize(("dim", "needed"), [(-2, 2), (1, 2), (-3, 3)])
def test_too_few_dimensions(dim, needed):
    message = rf"f: x must have at least {needed} dimension\(s\), got shape \[4\]"
    with pytest.raises(ValueError, match=message):
        check_same_size("f", x=(torch.zeros(4), dim))


shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@given(shapes, shapes)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_expanding_is_what_torch_calls_so(shape, own):
    tensor = torch.zeros(own)
    try:
        tensor.expand(shape)
    except RuntimeError:
        with pytest.raises(ValueError, match=r"f: x must expand to \[.*\], the shape of y, got sh"):
            check_expands("f", torch.Size(shape), "y", x=tensor)
    else:
        check_expands("f", torch.Size(shape), "y", x=tensor)


def test_discounts():
    check_discounts("f", {"gamma": 0.0, "lmbda": 1.0, "value_net": object()})
    with pytest.raises(ValueError, match="f: gamma must be >= 0 and <= 1, got 2"):
        check_discounts("f", {"gamma": 2})
    with pytest.raises(TypeError, match="f: lmbda must be a number"):
        check_discounts("f", {"lmbda": "high"})


# Batches


def test_keys_and_columns():
    batch = TensorDict({"a": torch.zeros(3, 1), "next": {"b": torch.zeros(3, 2)}}, [3])
    check_keys("f", batch, ["a", ("next", "b")])
    check_columns("f", batch, ["a"])
    with pytest.raises(KeyError, match=r"f: the batch lacks key 'c', it holds .*'next', 'b'"):
        check_keys("f", batch, ["c"])
    with pytest.raises(ValueError, match=r"must have shape \[\*B, 1\] = \[3, 1\], got \[3, 2\]"):
        check_columns("f", batch, [("next", "b")])


def test_finite_entries():
    check_finite("f", {"x": torch.full((2,), 3e38), "n": torch.tensor([1, 2])})  # the sum is not
    value = torch.tensor([1.0, math.nan, 2.0, math.inf])
    with pytest.raises(
        ValueError, match="f: 'x' must be finite, got 2 non-finite of 4 values, the first nan"
    ):
        check_finite("f", {"x": value})


def test_all_checks_are_tested_here():
    assert set(_checks.__all__) <= set(globals())
