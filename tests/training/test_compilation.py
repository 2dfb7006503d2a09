"""Settings of torch.compile and CUDA graphs, optimizers inside of graphs, and populations."""

import sys
from functools import partial

import pytest
import torch
from torch import nn

from tests.training import graph_checks
from tests.training.graph_checks import NoWaiting, ReplayedUpdate, WouldWaitError
from tests.training.population_cases import POPULATIONS, build_case
from torchrl_stein.training import (
    CompileSettings,
    linear_schedule,
    make_capturable,
    make_trust_region,
    read_compile_settings,
)

UPDATES = 9  # of which five warm up


@pytest.fixture
def replayed(monkeypatch):
    """CUDA graphs are replaced by what stands in for them on the CPU."""
    monkeypatch.setattr("torchrl_stein.training.compilation.CudaGraphModule", ReplayedUpdate)
    monkeypatch.setattr(CompileSettings, "check", lambda self, device: None)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Without what the code looks at on a CPU only, where looking is free."""
    for module in [m for name, m in sys.modules.items() if name.startswith("torchrl_stein.")]:
        for name in ("may_look", "_looking_is_free"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_: False)


def test_the_section_of_a_configuration():
    given = {"compile": True, "compile_mode": "max-autotune", "cudagraphs": False}
    assert read_compile_settings({"compile": given}) == CompileSettings(True, "max-autotune")
    assert read_compile_settings({}) == CompileSettings()
    for old in (False, True):  # of runs before there was a section
        assert read_compile_settings({"compile": old}) == CompileSettings(compile=old)


def test_settings_that_are_refused():
    with pytest.raises(ValueError, match=r"compile.compile_mode must be null or one of .*got fast"):
        CompileSettings(compile_mode="fast")
    with pytest.raises(TypeError, match=r"compile.cudagraphs must be true or false, got 'yes'"):
        CompileSettings(cudagraphs="yes")
    with pytest.raises(ValueError, match="got reduce-overhead, which makes CUDA graphs itself"):
        CompileSettings(True, "reduce-overhead", True)


@pytest.mark.parametrize("device", ["cpu", None, torch.device("cpu")])
def test_no_graphs_without_cuda(device):
    CompileSettings(compile=True).check(device)
    with pytest.raises(ValueError, match=r"compile.cudagraphs needs a CUDA device, got device="):
        CompileSettings(cudagraphs=True).check(device)


def test_no_graphs_where_torch_finds_no_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="got device=cuda, but torch finds none"):
        CompileSettings(cudagraphs=True).check("cuda")


def test_a_schedule_fills_the_rate_that_a_graph_reads():
    optimizer = torch.optim.Adam(nn.Linear(2, 1).parameters(), lr=1.0)
    schedule = linear_schedule(optimizer, updates=4, final_fraction=0.0)
    make_capturable(optimizer)
    rate = optimizer.param_groups[0]["lr"]
    for expected in (0.75, 0.5, 0.25, 0.0):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate.item() == pytest.approx(expected)


def test_what_is_saved_does_not_show_graphs_and_what_is_loaded_does_not_end_them():
    def make():
        parameter = nn.Parameter(torch.ones(2))
        parameter.grad = torch.ones(2)
        return torch.optim.Adam([parameter], lr=0.1)

    plain, captured = make(), make()
    make_capturable(captured)
    for optimizer in (plain, captured):
        optimizer.step()
    saved = captured.state_dict()
    assert saved["param_groups"][0]["lr"] == pytest.approx(0.1)
    assert saved["param_groups"][0]["capturable"] is False
    captured.load_state_dict(plain.state_dict())
    assert isinstance(captured.param_groups[0]["lr"], torch.Tensor)
    plain.load_state_dict(saved)
    assert isinstance(plain.param_groups[0]["lr"], float)


def test_optimizers_that_no_graph_can_hold():
    with pytest.raises(ValueError, match="needs an optimizer with the option capturable, got SGD"):
        make_capturable(torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1))


def test_a_previous_policy_that_waits_fits_in_no_graph(replayed):
    agent, _ = build_case("ip_wgf")
    agent.trust_region.updater.value_network_update_interval = 3
    with pytest.raises(ValueError, match="a previous policy that follows at every update"):
        agent.compile(CompileSettings(cudagraphs=True))


def test_minibatches_of_several_sizes_fit_in_no_graph(replayed):
    agent, collector = build_case("ppo")
    agent.num_minibatches = 3
    agent.compile(CompileSettings(cudagraphs=True))
    with pytest.raises(ValueError, match="num_minibatches must divide the 20 transitions"):
        agent.update(collector.collect())


@pytest.mark.parametrize("case", POPULATIONS)
def test_a_replayed_population_equals_one_that_python_runs(case, replayed, as_on_a_gpu):
    """Losses, figures and particles to the bit: nothing of an update happens on the host alone."""
    (plain, collector), (captured, _) = build_case(case), build_case(case)
    if case != "trpo":
        make_capturable(plain.optimizer)  # the same rounding of its rate
    captured.compile(CompileSettings(cudagraphs=True))
    for update in range(UPDATES):
        data = collector.collect()
        results = []
        for agent in (plain, captured):
            torch.manual_seed(update)
            losses, figures = agent.update(data.clone())
            results.append(losses.to_dict() | figures)
        assert graph_checks.same(*results), update
    assert torch.equal(plain.loss.particles, captured.loss.particles)
    assert any(learner.calls > learner.warmup for learner in captured._learners.values())


def test_the_stand_in_sees_a_number_of_the_host(replayed):
    """A rate that is no tensor stays what it was when it was recorded."""
    (plain, collector), (captured, _) = build_case("a2c"), build_case("a2c")
    captured.compile(CompileSettings(cudagraphs=True))
    for update in range(UPDATES):
        data = collector.collect()
        for agent in (plain, captured):
            rate = agent.optimizer.param_groups[0]
            rate["lr"] = 0.1 / (update + 1)  # assigned, not filled
            agent.update(data.clone())
    assert not torch.equal(plain.loss.particles, captured.loss.particles)


@pytest.mark.parametrize("case", POPULATIONS)
def test_an_update_of_a_population_would_not_wait(case, as_on_a_gpu):
    agent, collector = build_case(case)
    agent.update(collector.collect())  # the first one reads the count of iterations
    for _ in range(2):
        with NoWaiting():
            agent.update(collector.collect())


def test_what_would_wait_is_seen():
    x = torch.ones(3)
    for wait in (
        lambda: x.sum().item(),
        lambda: x[x > 0],
        lambda: x.nonzero(),
        lambda: bool(x.any()),
        lambda: x.unique(),
        lambda: x.index_put_((x > 0,), torch.zeros(())),
        lambda: x.repeat_interleave(torch.tensor([1, 2, 1])),
    ):
        with NoWaiting(), pytest.raises(WouldWaitError):
            wait()


# A2C is compiled in tests/objectives; other kernels were tried and cost half a minute of tests.
@pytest.mark.slow
@pytest.mark.parametrize("case", ["reinforce", "ppo", "ip_wgf"])
def test_a_compiled_population_equals_an_eager_one(case, monkeypatch):
    """Without a graph break, and compiled once: a change of temperature compiles nothing anew."""
    torch.compiler.reset()
    # Tracing is what may fail; generating code takes ten times as long.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    (plain, collector), (compiled, _) = build_case(case), build_case(case)
    compiled.compile(CompileSettings(compile=True))
    for update in range(3):
        data = collector.collect()
        results = []
        for agent in (plain, compiled):
            torch.manual_seed(update)
            with torch.compiler.set_stance("fail_on_recompile" if update == 2 else "default"):
                losses, figures = agent.update(data.clone())
            results.append(losses.to_dict() | figures)
        torch.testing.assert_close(*results)


def test_trust_regions_are_compiled_with_their_agent(monkeypatch):
    seen = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: seen.append(function) or function
    )
    agent, collector = build_case("ip_wgf")
    agent.compile(CompileSettings(compile=True))
    assert seen == [agent.loss, agent.trust_region.loss]
    assert make_trust_region(agent.actor, weight=0.0, tau=None) is None
    agent.update(collector.collect())
