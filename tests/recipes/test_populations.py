"""What svpg.py and trpo.py build from their groups of settings, and do in their first updates."""

import math
from itertools import pairwise

import pytest
import torch
from torchrl.objectives import A2CLoss, ClipPPOLoss, ReinforceLoss

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import run, settings_of
from tests.recipes.processes import ROOT, SMALL
from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    IdentityKernel,
    LayerwiseKernel,
    RadialControl,
    RBFKernel,
    SharedDriftControl,
    TangentialControl,
)
from torchrl_stein.objectives import TRPOLoss
from torchrl_stein.runs import estimate_advantages, make_linear_critic

KERNELS = {
    "behaviour": BehaviourKernel,
    "drift": DriftControl,
    "layerwise": LayerwiseKernel,
    "none": IdentityKernel,
    "radial": RadialControl,
    "rbf": RBFKernel,
    "shared_drift": SharedDriftControl,
    "tangential": TangentialControl,
}


def first_updates(*overrides, name="svpg", updates=1, config=None, **watched):
    settings = settings_of(name, *SMALL[name], *overrides, config=config)
    return run(name, settings, updates, **watched)


def particles(loop):
    return loop.components["loss"].particles.detach().clone()


@pytest.mark.parametrize("recipe", ["svpg", "trpo"])
def test_a_kernel_is_chosen_by_its_name(recipe):
    """Each couples the policies in its own way: they start alike and end differently."""
    assert {path.stem for path in (ROOT / "recipes/conf/kernel").glob("*.yaml")} == set(KERNELS)
    ends = {}
    for kernel, kind in KERNELS.items():
        selection = ["selection=none"] if recipe == "svpg" else []
        loop = first_updates(f"kernel={kernel}", *selection, name=recipe)
        assert type(loop.components["loss"].kernel) is kind
        assert torch.stack([v for v in loop.losses[0].values() if v.ndim == 0]).isfinite().all()
        ends[kernel] = particles(loop)
    same = [(a, b) for a in ends for b in ends if a < b and ends[a].equal(ends[b])]
    assert same == []


def test_the_bandwidth_is_that_of_the_authors():
    kernel = first_updates("selection=none").components["loss"].kernel
    x = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4 and 9
    assert kernel.evaluate(x).bandwidth.item() == pytest.approx(4 / (2 * math.log(4)))
    paper = first_updates(config="ip_wgf").components["loss"].kernel
    assert paper.evaluate(x).bandwidth.item() == pytest.approx(4 / math.log(3))


@pytest.mark.parametrize(
    ("base", "loss", "fits", "passes"),
    [
        ("reinforce", ReinforceLoss, False, 1),
        ("a2c", A2CLoss, True, 1),
        ("ppo", ClipPPOLoss, True, 6),
    ],
)
def test_a_base_chooses_loss_baseline_and_passes(base, loss, fits, passes):
    calls, critics = [], []

    def counted(update, *_, **__):
        def call(batch):
            calls.append(batch.batch_size)
            return update(batch)

        return call

    def make_critic(env, n, make=make_linear_critic):
        critics.append(make(env, n))
        return critics[-1]

    more = ["base.num_epochs=3", "base.num_minibatches=2"] if base == "ppo" else []
    loop = first_updates(
        f"base={base}",
        *more,
        updates=2,
        patches={"compiled": counted, "make_linear_critic": make_critic},
    )
    assert type(loop.components["loss"].loss_module) is loss
    assert bool(critics[0].module.weight.any()) is fits
    assert len(calls) == 2 * passes
    if base == "ppo":  # halves of the 40 transitions of each particle
        assert set(calls) == {torch.Size([3, 20])}


def test_the_clip_of_ppo_and_the_discount():
    loop = first_updates("base=ppo", "base.clip_epsilon=0.3")
    assert loop.components["loss"].loss_module.clip_epsilon.item() == pytest.approx(0.3)
    seen = []

    def estimate(data, critic, gamma, lmbda, *rest):
        seen.append((gamma, lmbda))
        return estimate_advantages(data, critic, gamma, lmbda, *rest)

    first_updates("loss.gamma=0.9", "loss.lmbda=0.8", patches={"estimate_advantages": estimate})
    assert seen == [(0.9, 0.8)]


def test_the_temperature_is_annealed():
    loop = first_updates("loss.final_temperature=0.1", updates=4)
    temperatures = [losses["temperature"].item() for losses in loop.losses]
    assert temperatures == pytest.approx([10.0 * 0.01 ** (k / 4) for k in range(4)])
    loop = first_updates(updates=2)
    assert [losses["temperature"].item() for losses in loop.losses] == [10.0, 10.0]


def test_particles_are_replaced_at_intervals_with_the_returns_that_go_with_them():
    before, notes = [], []

    def track(loop):
        loop.notes["returns"] = [float(i) for i in range(3)]
        step = loop.components["selection"].step

        def watched(*args):
            before.append(loop.updates)
            parents = step(*args)
            notes.append(parents.tolist())
            return parents

        loop.components["selection"].step = watched

    loop = first_updates("selection.scale=0.01", "selection.interval=2", updates=4, tracked=track)
    assert before == [1, 3]  # in the second and fourth iteration
    returns = [0.0, 1.0, 2.0]
    for parents in notes:
        returns = [returns[parent] for parent in parents]
    assert loop.notes["returns"] == returns
    assert first_updates("selection=none").components["selection"] is None


def test_the_previous_population_is_that_before_an_iteration():
    """Of a trust region: whatever number of steps an iteration has."""
    pairs = []

    def look(loop):
        region = loop.components["region"]
        names = ("actor_network_params", "target_actor_network_params")
        found = (dict(getattr(region, name).items(True, True)) for name in names)
        pairs.append([v.data.clone() for flat in found for k, v in flat.items() if _last(k)])

    options = ("selection=none", "trust_region=wasserstein", "base=ppo", "base.num_epochs=2")
    loop = first_updates(*options, updates=3, tracked=look, updated=look)
    assert pairs[0][0].equal(pairs[0][1])
    for before, after in pairwise(pairs):
        assert after[1].equal(before[0])
        assert not after[0].equal(before[0])
    # The paper's weight is in units of the temperature.
    assert loop.components["region"].weight == pytest.approx(0.4 * 10.0)


def _last(key):
    return (key if isinstance(key, str) else key[-1]) == "particles"


def test_a_single_agent_has_the_data_of_all():
    loop = first_updates(config="joint")
    assert loop.collected[0].batch_size == torch.Size([3, 2, 20])  # as the small settings say
    settings = settings_of("svpg", config="joint")
    assert (settings.population.num_particles, settings.population.envs_per_particle) == (1, 160)
    assert settings.selection is None


def test_natural_gradients_keep_their_bound_and_report():
    loop = first_updates("trpo.max_kl=0.02", "trpo.iterations=7", name="trpo", updates=3)
    assert type(loop.components["loss"].loss_module) is TRPOLoss
    for losses in loop.losses:
        assert 0 < losses["kl"] <= 0.0201
        assert 0 < losses["step_fraction"] <= 1
        assert 0 <= losses["cg_residual"] < 1
        assert losses["improvement"].isfinite()
    settings = settings_of("trpo")
    assert (settings.population.num_particles, settings.env) == (1, "Hopper-v5")
