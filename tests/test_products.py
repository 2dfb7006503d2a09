"""The choice of float32 products: both outcomes, what it leaves as it was, what it says."""

import subprocess
import sys

import pytest
import torch

from torchrl_stein import products
from torchrl_stein.products import ProductReport, choose_float32_products

STRICT = (100.0, 2e-7)


@pytest.fixture(autouse=True)
def _once_each(monkeypatch):
    """Each test is a process that has not chosen yet, and leaves the setting as it was."""
    before = setting()
    put("none")
    choose_float32_products.cache_clear()
    yield
    choose_float32_products.cache_clear()
    put(before)


def setting():
    return torch.backends.mkldnn.matmul.fp32_precision


def put(value):
    torch.backends.mkldnn.matmul.fp32_precision = value


@pytest.fixture
def measured(monkeypatch):
    """Puts a measurement in the place of a real one."""

    def fake(fast):
        calls = []
        monkeypatch.setattr(products, "_measure", lambda: calls.append(setting()) or [STRICT, fast])
        return calls

    return fake


@pytest.mark.parametrize("before", ["none", "ieee", "bf16"])
@pytest.mark.parametrize(
    ("fast", "chosen"),
    [
        ((212.0, 2e-7), True),  # AMD with AVX-512
        ((212.0, 5e-7), True),  # sums in another order
        ((285.0, 2.3e-3), False),  # AMX rounds to bfloat16
        ((285.0, 1e-5), False),  # whatever this is, it is not float32
        ((114.0, 2e-7), False),  # nothing to gain
        ((57.0, 2e-7), False),
        ((float("nan"), float("nan")), False),
    ],
)
def test_fast_products_are_taken_where_they_are_exact_and_clearly_faster(
    measured, before, fast, chosen
):
    put(before)
    measured(fast)
    report = choose_float32_products()
    assert (
        report == ProductReport("bf16" if chosen else before, *STRICT, *fast) or fast[0] != fast[0]
    )
    assert setting() == report.setting == ("bf16" if chosen else before)


def test_it_is_chosen_once_in_a_process(measured):
    calls = measured((212.0, 2e-7))
    report = choose_float32_products()
    put("ieee")  # by the user, who has the last word
    assert choose_float32_products() is report
    assert calls == ["none"]
    assert setting() == "ieee"


def test_a_measurement_that_fails_leaves_the_setting_as_it_was(monkeypatch):
    def fail():
        put("bf16")
        raise RuntimeError("no")

    monkeypatch.setattr(products, "_measure", fail)
    with pytest.raises(RuntimeError, match="no"):
        choose_float32_products()
    assert setting() == "none"


def test_the_measurement_is_right_and_disturbs_nothing():
    torch.manual_seed(3)
    want = torch.rand(3)
    torch.manual_seed(3)
    report = choose_float32_products()
    assert torch.equal(torch.rand(3), want)
    # 256 roundings of 6e-8 at random give about 2e-7; bfloat16 keeps 8 bits, 2e-3.
    assert 5e-8 < report.error < 1e-6
    assert 5e-8 < report.fast_error < 1e-2
    assert report.gflops > 0.1
    assert report.fast_gflops > 0.1
    # Whatever was chosen: products have the rounding of float32.
    a, b = torch.randn(2, 300, 300)
    exact = a.double() @ b.double()
    assert ((a @ b).double() - exact).norm() < 1e-6 * exact.norm()


def test_it_is_on_the_cpu_in_float32_whatever_the_defaults(monkeypatch):
    with torch.device("meta"):
        torch.set_default_dtype(torch.float64)
        try:
            assert choose_float32_products().error > 5e-8
        finally:
            torch.set_default_dtype(torch.float32)


def test_products_of_a_gpu_stay_what_they_are(measured):
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cuda.matmul.allow_tf32
    measured((212.0, 2e-7))
    assert choose_float32_products().setting == "bf16"
    matmul = torch.backends.cuda.matmul
    assert (matmul.fp32_precision, matmul.allow_tf32) == before
    assert not matmul.allow_tf32


def test_networks_train_compile_and_decompose_where_it_is_chosen(measured):
    # PyTorch refuses to say torch.get_float32_matmul_precision() then; nothing of it may ask.
    measured((212.0, 2e-7))
    choose_float32_products()
    network = torch.nn.Sequential(
        torch.nn.Conv1d(1, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(8), torch.nn.Tanh()
    )
    for module in (network, torch.compile(network, backend="aot_eager")):
        module(torch.randn(5, 1, 9)).square().sum().backward()
    torch.nn.LSTM(3, 4)(torch.randn(5, 2, 3))[0].sum().backward()
    torch.linalg.solve(torch.eye(3) + 0.1, torch.randn(3, 2))


def test_what_it_says():
    chosen = str(ProductReport("bf16", 98.4, 2.04e-7, 211.7, 3.1e-7))
    assert chosen == (
        "Float32 products: 212 GFLOP/s, error 3e-07, by oneDNN in place of 98, error 2e-07"
    )
    left = str(ProductReport("none", 114.0, 2.9e-7, 285.0, 2.3e-3))
    assert left == (
        "Float32 products: 114 GFLOP/s, error 3e-07; oneDNN's 285, error 2e-03, are not used"
    )


def test_nothing_is_chosen_by_an_import():
    code = (
        "import torch, torchrl_stein.products, torchrl_stein;"
        "assert torch.backends.mkldnn.matmul.fp32_precision == 'none';"
        "assert torch.get_float32_matmul_precision() == 'highest'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
