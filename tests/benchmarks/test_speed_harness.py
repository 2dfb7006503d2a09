"""The benchmark suite's harness and table. Nothing here depends on how fast anything is."""

import json
import math

import pytest
import torch

from benchmarks.speed import float32_products, harness, peers, svgd_peers, svgd_step, table
from benchmarks.speed.harness import Case, Peer, Roofline, interleave, peak_memory

CPU = torch.device("cpu")
WHERE = {
    "date": "2026-01-02",
    "device": "cpu Test",
    "gemm_gflops": 100.0,
    "copy_gbytes": 30.0,
    "versions": {"torch": "2.13"},
}


class FakeClock:
    """In place of ``cost``: the seconds of each call are known; how often it ran is counted."""

    def __init__(self, seconds):
        self.seconds, self.calls = {call: iter(s) for call, s in seconds.items()}, {}

    def __call__(self, call, device, repeats=1):
        self.calls[call] = self.calls.get(call, 0) + 1
        return next(self.seconds[call])


def ours():
    pass


def theirs():
    pass


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    return tmp_path


# --- harness ----------------------------------------------------------------------------------


def test_ratios_are_of_one_round_each(monkeypatch):
    # The first of each is the look that picks the repeats. The machine slows down tenfold in the
    # last round, which leaves the ratio alone.
    clock = FakeClock({ours: [1, 1, 2, 4, 10], theirs: [3, 2, 8, 12, 10]})
    monkeypatch.setattr(harness, "cost", clock)
    ours_ms, (peer,), memory = interleave(ours, {"theirs": theirs}, CPU, rounds=4)
    assert ours_ms == 3000.0
    assert (peer.name, peer.ratio, memory) == ("theirs", 2.5, None)
    assert (peer.low, peer.high) == (1.25, 3.75)  # of 1, 2, 3, 4, exclusive of the ends


def test_a_slow_peer_has_three_rounds(monkeypatch):
    clock = FakeClock({ours: [1.0] * 10, theirs: [60.0] * 10})
    monkeypatch.setattr(harness, "cost", clock)
    _, (peer,), _ = interleave(ours, {"theirs": theirs}, CPU, rounds=9, budget=5.0)
    assert clock.calls == {ours: 10, theirs: 4}
    assert peer.ratio == 60.0


def test_what_is_warm_is_not_called_before():
    calls = []
    interleave(lambda: calls.append(0), {}, CPU, rounds=2, repeats=1)
    cold = len(calls)
    calls.clear()
    interleave(lambda: calls.append(0), {}, CPU, rounds=2, repeats=1, warm=True)
    assert (cold, len(calls)) == (4, 3)


def test_cost_is_of_one_call():
    calls = []
    assert harness.cost(lambda: calls.append(0), CPU, repeats=5) >= 0.0
    assert len(calls) == 5


@pytest.mark.skipif(peak_memory(ours, CPU) is None, reason="this system does not tell")
def test_peak_memory_sees_what_is_allocated():
    assert 60.0 < peak_memory(lambda: torch.ones(2**24), CPU) < 72.0
    assert peak_memory(ours, CPU) < 4.0


def test_peaks_are_part_of_the_rows():
    _, (peer,), peak = interleave(ours, {"theirs": theirs}, CPU, rounds=2, memory=True)
    assert (peer.memory_mb is None) == (peak is None)


def test_least_time_is_the_slower_of_arithmetic_and_memory():
    roofline = Roofline(gflops=100.0, gbytes=10.0)
    assert roofline.least_ms(1e9, 0.0) == pytest.approx(10.0)
    assert roofline.least_ms(1e9, 1e9) == pytest.approx(100.0)


# --- table ------------------------------------------------------------------------------------


def _case(name, ms, group="group", **more):
    return Case(group, name, ms, **more)


def test_a_row_takes_the_place_of_its_former_self(results):
    for name, ms in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        table.keep(_case(name, ms), WHERE)
    table.keep(_case("a", 4.0, "other"), WHERE)
    rows = json.loads((results / "bench_cpu.json").read_text())
    assert [(r["group"], r["name"], r["ours_ms"]) for r in rows] == [
        ("group", "a", 3.0),
        ("group", "b", 2.0),
        ("other", "a", 4.0),
    ]


def test_devices_have_files_of_their_own(results):
    table.keep(_case("a", 1.0), WHERE)
    table.keep(_case("a", 2.0), WHERE | {"device": "Some GPU"})
    assert json.loads((results / "bench_cuda.json").read_text())[0]["ours_ms"] == 2.0
    assert "on CUDA" in (results / "bench_cuda.md").read_text()
    assert "on a CPU" in (results / "bench_cpu.md").read_text()


def test_the_page_shows_what_was_measured(results):
    peer = Peer("theirs", 7.1234, 6.5, 8.0, memory_mb=12.5)
    case = _case("n = 2", 0.5, peers=(peer,), roofline=1.5, target="7", figures={"steps": 20.0})
    table.keep(case, WHERE)
    page = (results / "bench_cpu.md").read_text()
    assert "## group" in page
    assert "| n = 2 | 0.5 |  | 1.5 | theirs 7.12 [6.5, 8], 12.5 MiB | steps 20 | 7 |" in page


def test_the_page_shows_how_products_are_done(results):
    table.keep(_case("a", 1.0, "before"), WHERE)  # of a run that did not say
    products = "Float32 products: 212 GFLOP/s, error 3e-07, by oneDNN in place of 98, error 2e-07"
    table.keep(_case("a", 1.0, "after"), WHERE | {"products": products})
    before, after = (results / "bench_cpu.md").read_text().split("## after")
    assert "Float32 products: 212 GFLOP/s" in after
    assert "in place of 98" not in before


def test_the_setting_names_the_versions():
    where = table.setting(CPU, Roofline(12.345, 6.789))
    assert where["device"].startswith("cpu ")
    assert (where["gemm_gflops"], where["copy_gbytes"]) == (12.3, 6.8)
    assert "torch" in where["versions"]


# --- products ---------------------------------------------------------------------------------


def test_products_as_torch_alone_does_them():
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    seen = []
    products.fp32_precision = "bf16"
    try:
        harness.without_fast_products(lambda: seen.append(products.fp32_precision))()
        assert (seen, products.fp32_precision) == (["ieee"], "bf16")
        with pytest.raises(ZeroDivisionError):
            harness.without_fast_products(lambda: 1 // 0)()
        assert products.fp32_precision == "bf16"
    finally:
        products.fp32_precision = before


def test_rows_of_products(monkeypatch):
    small = {
        "layer": (torch.nn.functional.linear, (6, 4), (3, 4)),
        "mm": (torch.mm, (2, 3), (3, 4)),
    }
    monkeypatch.setattr(float32_products, "PRODUCTS", small)
    cases = list(float32_products.cases(CPU, Roofline(100.0, 30.0)))
    assert [case.name for case in cases] == list(small)
    for case in cases:
        assert [peer.name for peer in case.peers] == ["torch alone"]
        assert all(error < 1e-6 for error in case.figures.values())
    assert list(float32_products.cases(torch.device("cuda"), Roofline(100.0, 30.0))) == []


# --- peers ------------------------------------------------------------------------------------


def test_a_missing_peer_is_named_once(capsys):
    name = "no_module_of_this_name"
    assert not peers.available(name)
    assert not peers.available(name)
    assert capsys.readouterr().out == f"{name} is not installed: left out\n"
    assert peers.available("torch")


def test_what_does_not_fit_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(peers, "free_mib", lambda device: 1000.0)
    assert peers.fits("small", 800.0, CPU)
    assert not peers.fits("large", 801.0, CPU)
    assert "large would need 801 of 1000 MiB" in capsys.readouterr().out
    assert peers.free_mib(CPU) > 0


def test_a_row_of_svgd_without_other_libraries(monkeypatch):
    monkeypatch.setattr(svgd_peers, "available", lambda module: False)
    monkeypatch.setattr(svgd_peers, "jax_runs_on", lambda kind: False)
    monkeypatch.setattr(svgd_step, "SIZES", ((6, 40),))
    (case,) = svgd_step.cases(CPU, Roofline(100.0, 30.0))
    assert [peer.name for peer in case.peers] == [
        "torch [n, n, d]",
        "torch, product form",
        "ours without fast products",
    ]
    assert math.isfinite(case.ours_ms)
    assert case.roofline > 0


def test_a_wrong_direction_is_not_timed():
    x = torch.randn(4, 3)
    wrong = svgd_peers.Step("wrong", lambda: x, lambda phi: phi, 1.0)
    with pytest.raises(AssertionError, match="wrong"):
        svgd_step._check_formula(wrong, x)
