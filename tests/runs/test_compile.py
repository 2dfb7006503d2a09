"""CUDA graphs around the updates of the recipes, with what stands in for a graph on a CPU."""

import sys
from copy import deepcopy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tests.runs.graph_checks import ReplayedUpdate
from torchrl_stein.runs import compile as module
from torchrl_stein.runs import compiled, saved
from torchrl_stein.runs.compile import make_capturable
from torchrl_stein.runs.settings import Compile

NOTHING = Compile(compile=False, compile_mode=None, cudagraphs=False)
GRAPHS = Compile(compile=False, compile_mode=None, cudagraphs=True)
COMPILED = Compile(compile=True, compile_mode="max-autotune", cudagraphs=False)

OFF_POLICY = [
    "env.num_envs=4",
    "network.num_cells=[8]",
    "training.total_frames=52",
    "training.warmup_frames=16",
    "training.batch_size=8",
    "training.buffer_size=400",
    "training.log_interval=1",
    "training.eval_interval=7",
    "eval.episodes=2",
    "eval.final_episodes=2",
    "eval.max_steps=3",
    "eval.video_steps=0",
]
FEW = ["loss.num_action_samples=3", "loss.num_value_samples=3"]
QUICK_COST = "+trust_region.cost.num_iterations=4"
REGION = ["trust_region.weight=0.4", "trust_region.num_action_samples=3", QUICK_COST]
POPULATION = [
    "env=cartpole",
    "population.num_particles=4",
    "population.envs_per_particle=2",
    "population.num_cells=[4]",
    "training.iterations=9",
    "training.steps=10",
    "training.log_interval=1",
    "training.eval_interval=5",
    "eval.episodes=2",
    "eval.final_episodes=2",
    "eval.max_steps=9",
    "eval.video_steps=0",
]
ALONE = ["selection=none"]
CASES = {
    "soft_q": OFF_POLICY + FEW,
    "soft_q region": [*OFF_POLICY, *FEW, *REGION],
    "soft_q copy": [*OFF_POLICY, *FEW, *REGION, "trust_region.tau=null"],
    "soft_q annealed": [*OFF_POLICY, *FEW, "annealing.updates=9", "annealing.noise_set_size=5"],
    "soft_qv": [*OFF_POLICY, *FEW, *REGION, "actor.num_particles=3"],
    "s2ac": [*OFF_POLICY, "loss.num_action_samples=3", "loss.num_steps=1"],
    "sac": OFF_POLICY,
    "td3": [*OFF_POLICY, "training.total_frames=88"],  # its two updates take turns
    "d4pg": [*OFF_POLICY, "loss.n_steps=2"],
    "ddpg": OFF_POLICY,
    "discrete_soft_q": [*OFF_POLICY, "task=discrete/grid_world"],
    "maddpg": OFF_POLICY,
    "svpg": POPULATION,
    "svpg reinforce": [*POPULATION, *ALONE, "base=reinforce", "loss.final_temperature=0.1"],
    "svpg ppo": [*POPULATION, *ALONE, "base=ppo", "base.num_epochs=2", "base.num_minibatches=2"],
    "svpg region": [
        *POPULATION,
        *ALONE,
        "trust_region=wasserstein",
        "trust_region.tau=0.1",
        QUICK_COST,
    ],
    "svpg behaviour": [*POPULATION, *ALONE, "kernel=behaviour", "kernel.num_states=5"],
    "svpg layerwise": [*POPULATION, *ALONE, "kernel=layerwise"],
    "svpg drift": [*POPULATION, *ALONE, "kernel=drift"],
    "svpg seeds": [*POPULATION, "seeds=2"],
    "trpo": [*POPULATION, "kernel=rbf", "trpo.iterations=2", "loss.temperature=1"],
}


def numbers(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*.csv")
        if path.parent.name != "time"
    }


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Without what the library looks at on a CPU only, where looking is free."""
    for place in [m for name, m in sys.modules.items() if name.startswith("torchrl_stein.")]:
        if hasattr(place, "may_look"):
            monkeypatch.setattr(place, "may_look", lambda *_: False)


@pytest.mark.parametrize("case", CASES)
def test_a_replayed_update_equals_one_that_python_runs(
    case, recipe, tmp_path, monkeypatch, as_on_a_gpu
):
    """To the bit: nothing of an update happens on the host alone, whatever changes meanwhile."""
    name = case.split()[0]
    script, graphs, results = saved._import_recipe(name), [], []
    for kind in ("plain", "replayed"):

        def launch(update, settings, *optimizers, kind=kind, **_):
            for optimizer in optimizers:
                make_capturable(optimizer)  # in both, for the same rounding of their rates
            if kind == "plain":
                return update
            graphs.append(ReplayedUpdate(update, warmup=5))
            return graphs[-1]

        monkeypatch.setattr(script, "compiled", launch)
        settings = recipe(name).read(*CASES[case], f"run_dir={tmp_path / kind}")
        script.main(settings)
        results.append(numbers(tmp_path / kind))
    assert results[0] == results[1]
    assert any("loss_" in name for name in results[0])
    assert any(graph.calls > graph.warmup + 3 for graph in graphs)


def test_the_stand_in_sees_a_number_of_the_host():
    """Guards the tests above: a rate that is no tensor stays what it was when it was recorded."""

    def learn(captured):
        net = nn.Linear(2, 1)
        optim = torch.optim.SGD(net.parameters(), lr=0.1)

        def update(batch):
            optim.zero_grad()
            net(batch["x"]).mean().backward()
            optim.step()
            return TensorDict({"weight": net.weight.detach()})

        update = ReplayedUpdate(update) if captured else update
        for step in range(6):
            optim.param_groups[0]["lr"] = 0.1 / (step + 1)
            update(TensorDict({"x": torch.ones(3, 2)}))
        return net.weight

    torch.manual_seed(0)
    plain = learn(False)
    torch.manual_seed(0)
    assert not learn(True).equal(plain)


# what is compiled


def test_what_the_settings_ask_for(monkeypatch):
    monkeypatch.setattr(module, "CudaGraphModule", ReplayedUpdate)
    assert compiled(torch.sin, NOTHING) is torch.sin
    optim = torch.optim.Adam(nn.Linear(2, 1).parameters())
    graph = compiled(torch.sin, GRAPHS, optim)
    assert (graph.function, graph.warmup) == (torch.sin, 5)
    assert isinstance(optim.param_groups[0]["lr"], torch.Tensor)
    seen = []
    loss = nn.Linear(2, 1)
    monkeypatch.setattr(loss, "compile", lambda **options: seen.append(options))
    assert compiled(torch.sin, COMPILED, losses=[loss, None]) is torch.sin
    backend = {"backend": module.inductor_for_cpu}
    assert seen == [{"fullgraph": True, "mode": "max-autotune", **backend}]


def test_a_method_is_compiled_in_place(monkeypatch):
    class Doubled(nn.Linear):
        def doubled(self, x):
            seen.append(torch.compiler.is_compiling())
            return 2 * self(x)

    monkeypatch.setattr(module, "inductor_for_cpu", "eager")
    seen, loss, x = [], Doubled(2, 1), torch.ones(3, 2)
    expected = 2 * loss(x)
    compiled(torch.sin, NOTHING.model_copy(update={"compile": True}), losses=[loss.doubled])
    torch.testing.assert_close(loss.doubled(x), expected)
    assert seen == [True]
    other = deepcopy(loss)
    with torch.no_grad():
        other.weight.zero_()
    torch.testing.assert_close(other.doubled(x), 2 * other(x))


def test_a_cpu_keeps_no_mask_of_relu():
    """Else a compiled update takes longer than an eager one."""
    torch.compiler.reset()
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    net[2].requires_grad_(False)  # nothing else then keeps what ReLU returns
    x, kept = torch.randn(5, 3), []
    net(x).sum().backward()
    expected = net[0].weight.grad.clone()
    net.zero_grad()
    compiled(torch.sin, NOTHING.model_copy(update={"compile": True}), losses=[net])
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        value = net(x).sum()
    value.backward()
    assert kept
    assert all(tensor.dtype == torch.float32 for tensor in kept)
    torch.testing.assert_close(net[0].weight.grad, expected)


def test_optimizers_that_no_graph_can_hold():
    with pytest.raises(ValueError, match="needs an optimizer with the option capturable, got SGD"):
        make_capturable(torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1))


def test_a_schedule_fills_the_rate_that_a_graph_reads():
    optimizer = torch.optim.Adam(nn.Linear(2, 1).parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)
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
    state = captured.state_dict()
    assert state["param_groups"][0]["lr"] == pytest.approx(0.1)
    assert state["param_groups"][0]["capturable"] is False
    captured.load_state_dict(plain.state_dict())
    assert isinstance(captured.param_groups[0]["lr"], torch.Tensor)
    plain.load_state_dict(state)
    assert isinstance(plain.param_groups[0]["lr"], float)
