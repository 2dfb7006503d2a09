"""Updates of the recipes: compiled, and without waiting for a device."""

import sys

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import run, settings_of, values_of
from tests.recipes.processes import QUICK_COST, RECIPES, SMALL
from tests.runs.graph_checks import NoWaiting
from torchrl_stein import objectives  # noqa: F401 - whose names as_on_a_gpu replaces

FEW = ["loss.num_action_samples=3", "loss.num_value_samples=3"]
REGION = ["trust_region.weight=0.4", "trust_region.num_action_samples=3"]
REGION_OF_ITS_OWN = [*REGION, QUICK_COST]  # the small settings of soft_qv have one
CROSSQ = ["network.norm=batch_renorm", "loss.value_target=expected", "loss.num_value_samples=1"]
OFF_POLICY = {
    "soft_q": ("soft_q", *FEW, "annealing.updates=6"),
    "dp_wgf": ("soft_q", *FEW, *REGION_OF_ITS_OWN, "loss.num_qvalue_nets=2"),
    "dp_wgf_copied": ("soft_q", *FEW, *REGION_OF_ITS_OWN, "trust_region.tau=null"),
    "crossq": ("soft_q", *FEW, "loss.actor_interval=2", *CROSSQ),
    "pixels": ("soft_q_pixels", *FEW),
    "soft_qv": ("soft_qv", *FEW, *REGION, "actor.num_particles=2"),
    "soft_qv_seeds": ("soft_qv", *FEW, *REGION, "seeds=2", "loss.fixed_alpha=false"),
    "s2ac": ("s2ac", "loss.num_action_samples=3", "loss.num_steps=1"),
    "s2ac_seeds": ("s2ac", "loss.num_steps=1", "seeds=2", "loss.fixed_alpha=false"),
    "sac": ("sac",),
    "sac_crossq": ("sac", "network.norm=batch_renorm", "loss.actor_interval=2"),
    "sac_seeds": ("sac", "seeds=2", "loss.fixed_alpha=false"),
    "d4pg": ("d4pg",),
    "ddpg": ("ddpg",),
    "discrete_soft_q": ("discrete_soft_q", "loss.fixed_alpha=false"),
    "acer": ("acer",),
    "acer_box": ("acer", "env.name=multigoal", "loss.entropy_coeff=null"),
    "maddpg": ("maddpg",),
    "td3": ("td3",),
}
# Other losses of PPO are not captured.
ON_POLICY = {"a2c_alone": ("a2c",), "ppo_alone": ("ppo", "loss.entropy_coeff=null")}
IP_WGF = ["selection=none", "trust_region=wasserstein", QUICK_COST]
POPULATIONS = {
    "a2c": ("svpg", "selection=none"),
    "reinforce": ("svpg", "selection=none", "base=reinforce", "loss.final_temperature=0.1"),
    "ppo": ("svpg", "selection=none", "base=ppo", "base.num_epochs=2", "base.num_minibatches=2"),
    "ip_wgf": ("svpg", *IP_WGF),
    "ip_wgf_moving": ("svpg", *IP_WGF, "trust_region.tau=0.1"),
    "birth_death": ("svpg", "selection.interval=2"),
    "layerwise": ("svpg", "selection=none", "kernel=layerwise"),
    "behaviour": ("svpg", "selection=none", "kernel=behaviour", "kernel.num_states=10"),
    "drift": ("svpg", "selection=none", "kernel=drift"),
    "seeds": ("svpg", "selection=none", "seeds=2"),
    "trpo": ("trpo", "kernel=rbf", "trpo.iterations=2"),
}
CASES = OFF_POLICY | ON_POLICY | POPULATIONS


def settings_for(case, **compile_settings):
    """Settings of a case, also those that are refused without a GPU."""
    name, *overrides = CASES[case]
    more = ["training.warmup_frames=32", "env.num_envs=4", "network.num_cells=[8]"]
    if case in ON_POLICY:
        more = ["training.total_frames=4000"]
    elif case in POPULATIONS:
        more = ["training.iterations=100", "training.steps=10"]
    settings = settings_of(name, *SMALL[name], *more, *overrides)
    chosen = settings.compile.model_copy(update=compile_settings)
    return name, settings.model_copy(update={"compile": chosen})


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Without what the library looks at on a CPU only, where looking is free."""
    for place in [m for name, m in sys.modules.items() if name.startswith("torchrl_stein.")]:
        if hasattr(place, "may_look"):
            monkeypatch.setattr(place, "may_look", lambda *_: False)


# Not of several processes, which talk to each other in the middle of an update.
@pytest.mark.parametrize(
    "name", [*sorted({*RECIPES, "ip_wgf", "joint"} - {"compose", "sharded_svpg"})]
)
def test_every_recipe_has_the_settings_of_torchrl(name):
    assert values_of(name)["compile"] == {
        "compile": False,
        "compile_mode": None,
        "cudagraphs": False,
    }


@pytest.mark.parametrize("case", CASES)
def test_an_update_would_not_wait(case, as_on_a_gpu, monkeypatch):
    name, settings = settings_for(case)
    if case.startswith(("sac", "acer")):
        # TorchRL's TanhNormal looks at its bounds whenever it is made, but not in a graph.
        monkeypatch.setattr("torchrl.modules.distributions.continuous.is_compiling", lambda: True)
    calls = []

    def guarded(update, compile_settings, *optimizers, losses=()):
        for optimizer in optimizers:
            hide(optimizer)

        def call(*args):
            calls.append(1)
            if len(calls) == 1:  # the first one reads counts
                return update(*args)
            with NoWaiting():
                return update(*args)

        return call

    run(name, settings, 3, patches={"compiled": guarded})
    assert len(calls) >= 3


def hide(optimizer):
    """Adam's reading of counts, which are on the CPU."""
    step = optimizer.step
    if hasattr(step, "_seen"):
        return

    def unseen():
        with _disable_current_modes():
            step()

    unseen._wrapped_by_lr_sched = unseen._seen = True  # or a schedule warns
    optimizer.step = unseen


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["ppo", "td3", "sac_seeds", "crossq"]
)  # others were tried, and take half a minute
def test_a_compiled_update_equals_an_eager_one(case, monkeypatch):
    """Each loss is traced once: rates and temperatures that change trace nothing anew."""
    torch.compiler.reset()
    # Forward and backward are traced; generating code would take ten times as long.
    monkeypatch.setattr("torchrl_stein.runs.compile.inductor_for_cpu", "aot_eager")
    runs = []
    for compile in (False, True):
        name, settings = settings_for(case, compile=compile)

        def forbid(loop, compile=compile):
            if compile and loop.updates == 2:  # both kinds of an update
                torch.compiler.set_stance("fail_on_recompile")

        try:
            runs.append(run(name, settings, 5, updated=forbid))
        finally:
            torch.compiler.set_stance("default")
    for losses in zip(*(loop.losses for loop in runs), strict=True):
        # Explained variance divides by a small variance: five roundings instead of one.
        torch.testing.assert_close(*(found.to_dict() for found in losses), rtol=1e-5, atol=1e-5)
