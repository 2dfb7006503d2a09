"""Updates of the off-policy recipes, compiled and as CUDA graphs."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

pytest.importorskip("hydra")

from hydra import compose, initialize_config_dir

from tests.recipes.agents import OFF_POLICY_AGENTS, build_off_policy
from tests.recipes.processes import RECIPES, ROOT, start
from tests.training import graph_checks
from tests.training.graph_checks import NoWaiting, ReplayedUpdate
from torchrl_stein.objectives import soft_q
from torchrl_stein.training import CompileSettings, make_capturable

UPDATES = 12  # TD3's actor learns in every second, and each kind of update warms up five times


def run_both(plain, other, batch_of, updates, compare, stance=None):
    for update in range(updates):
        results = []
        for agent in (plain, other):
            torch.manual_seed(update)
            with torch.compiler.set_stance("fail_on_recompile" if update == stance else "default"):
                results.append(agent.update(batch_of(update).clone()).to_dict())
        compare(*results)


# Not of several processes, which talk to each other in the middle of an update.
@pytest.mark.parametrize("name", [*sorted({*RECIPES, "ip_wgf", "trpo"} - {"sharded_svpg"})])
def test_every_recipe_has_the_settings_of_torchrl(name):
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        assert compose(name)["compile"] == {
            "compile": False,
            "compile_mode": None,
            "cudagraphs": False,
        }


@pytest.mark.parametrize("case", OFF_POLICY_AGENTS)
def test_a_replayed_update_equals_one_that_python_runs(case, monkeypatch):
    """To the bit, with rates, temperatures and targets that change."""
    monkeypatch.setattr("torchrl_stein.training.compilation.CudaGraphModule", ReplayedUpdate)
    monkeypatch.setattr(CompileSettings, "check", lambda self, device: None)
    monkeypatch.setattr(soft_q, "check_finite_on_cpu", lambda *args: None)
    (plain, batch_of), (captured, _) = build_off_policy(case), build_off_policy(case)
    make_capturable(plain.optimizer)
    captured.compile(CompileSettings(cudagraphs=True))

    def compare(a, b):
        assert graph_checks.same(a, b)

    run_both(plain, captured, batch_of, UPDATES, compare)
    weights, others = plain.loss.state_dict(), captured.loss.state_dict()
    assert all(value.equal(others[name]) for name, value in weights.items())
    assert any(learner.calls > learner.warmup for learner in captured._learners.values())


@pytest.mark.parametrize("case", OFF_POLICY_AGENTS)
def test_an_update_would_not_wait(case, monkeypatch):
    agent, batch_of = build_off_policy(case)
    step = agent.optimizer.step
    # On a CPU only: the check of rewards, and Adam's reading of counts, which are on the CPU.
    monkeypatch.setattr(soft_q, "check_finite_on_cpu", lambda *args: None)

    def unseen():
        with _disable_current_modes():
            step()

    unseen._wrapped_by_lr_sched = True  # or the schedule warns
    agent.optimizer.step = unseen
    if case == "sac":
        # TorchRL's TanhNormal looks at its bounds whenever it is made, but not in a graph.
        monkeypatch.setattr("torchrl.modules.distributions.continuous.is_compiling", lambda: True)
    for update in range(2):
        with NoWaiting():
            agent.update(batch_of(update))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dp_wgf", "sac", "td3"])  # others were tried: 20 s each
def test_a_compiled_update_equals_an_eager_one(case, monkeypatch):
    """Without a graph break, and compiled once for each kind of update."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    (plain, batch_of), (compiled, _) = build_off_policy(case), build_off_policy(case)
    compiled.compile(CompileSettings(compile=True))
    run_both(plain, compiled, batch_of, 4, torch.testing.assert_close, stance=3)


@pytest.mark.parametrize("recipe", ["soft_q", "svpg"])
def test_graphs_without_a_gpu_are_refused_in_one_line(tmp_path, recipe):
    process = start(tmp_path, recipe, "compile.cudagraphs=true").wait()
    assert process.code == 1
    assert process.err.strip().splitlines()[-1] == (
        f"{recipe}.py: compile.cudagraphs needs a CUDA device, got device=cpu"
    )
    assert not (tmp_path / "run").exists()
