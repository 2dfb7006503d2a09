"""Updates of every recipe on a GPU: without waiting, compiled, and as CUDA graphs."""

from functools import partial
from itertools import count

import pytest
import torch
import torch._inductor.config
from tensordict import TensorDict

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import run
from tests.recipes.test_compile import CASES, POPULATIONS, settings_for
from tests.runs.graph_checks import ReplayedUpdate
from torchrl_stein.kernels import MedianBandwidth, RBFKernel
from torchrl_stein.objectives import SinkhornCost
from torchrl_stein.regression import ParticleFlow, RegressionPosterior
from torchrl_stein.runs import (
    compiled,
    estimate_advantages,
    make_linear_critic,
    make_population_collector,
)
from torchrl_stein.runs.settings import Compile

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(900),
]
# Graphs and fused kernels add up in another order, and Adam divides small numbers by each other.
CLOSE = {"rtol": 1e-2, "atol": 1e-3}
GRAPHS, FUSED = {"cudagraphs": True}, {"compile": True}
WAYS = {"graphs": GRAPHS, "compiled": FUSED, "both": GRAPHS | FUSED}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
WORLDS = ("cartpole", "cartpole_swingup", "double_pendulum", "mountain_car")


@pytest.fixture(autouse=True)
def _the_same_random_numbers():
    # The compiler draws its own otherwise.
    with torch._inductor.config.patch(fallback_random=True):
        torch.compiler.reset()
        yield


def settings_on(device, case, **compile_settings):
    name, settings = settings_for(case, **compile_settings)
    return name, settings.model_copy(update={"device": device})


def without_waiting(function):
    """Fails where the host would wait, from the fourth call: the first may set up libraries."""
    calls = count()

    def call(*args, **options):
        watched = next(calls) > 2 and torch.cuda.is_available()
        torch.cuda.set_sync_debug_mode("error" if watched else "default")
        try:
            return function(*args, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return call


def watched_parts(guard):
    """In the places of names of a recipe: what it does on the device, under a guard."""

    def make_critic(*args):
        critic = make_linear_critic(*args)
        critic.module.fit = guard(critic.module.fit)
        return critic

    def make_collector(*args, **options):
        collector = make_population_collector(*args, **options)
        collector.collect = guard(collector.collect)
        return collector

    return {
        "compiled": lambda *args, **options: guard(compiled(*args, **options)),
        "estimate_advantages": guard(estimate_advantages),
        "make_linear_critic": make_critic,
        "make_population_collector": make_collector,
    }


def run_without_waiting(device, case, guard=without_waiting, **changes):
    """Some updates; also what populations do around them."""
    # TorchRL's TanhNormal looks at its bounds unless it is compiled.
    name, settings = settings_on(device, case, compile=case == "sac" and device == "cuda")
    settings = settings.model_copy(update=changes)
    parts = watched_parts(guard)
    patches = parts if case in POPULATIONS else {"compiled": parts["compiled"]}

    def watch_selection(loop):
        selection = loop.components.get("selection")
        if selection is not None:
            selection.step = guard(selection.step)

    # Nine: each part is watched from its fourth call on, also what every second update does.
    return run(name, settings, 9, patches=patches, tracked=watch_selection)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_an_update_does_not_wait(device, case):
    run_without_waiting(device, case)


@pytest.mark.parametrize("env", WORLDS)
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_collecting_from_a_world_does_not_wait(device, env):
    run_without_waiting(device, "a2c", env=env)


def test_all_that_a_population_does_is_watched():
    seen = []

    def guard(function):
        def call(*args, **options):
            seen.append(getattr(function, "__name__", type(function).__name__))
            return function(*args, **options)

        return call

    run_without_waiting("cpu", "birth_death", guard)
    assert {"collect", "estimate_advantages", "fit", "step", "partial"} <= set(seen)


def faster_equals_plain(device, case, way):
    """Rates, temperatures and targets change on the way; each kind of update warms up five times.

    Both learn from the same batches, and draw the same numbers in each update.
    """
    batches, losses, collected = [], [], None
    for compile_settings in ({}, way):
        name, settings = settings_on(device, case, **compile_settings)
        numbers = count()

        def make(*args, numbers=numbers, first=not losses, **options):
            update = compiled(*args, **options)

            def call(batch):
                number = next(numbers)
                if first:
                    batches.append(batch.clone())
                torch.manual_seed(number)  # of the device too, from which replays draw as well
                return update(batches[number].clone())

            return call

        given = None if collected is None else [data.clone() for data in collected]
        loop = run(name, settings, 14, patches={"compiled": make}, batches=given)
        losses.append(loop.losses)
        collected = loop.collected
    for update, (want, got) in enumerate(zip(*losses, strict=True)):
        torch.testing.assert_close(
            scalars(got), scalars(want), **CLOSE, msg=lambda m, k=update: f"update {k}: {m}"
        )


def scalars(losses):
    return {name: value for name, value in losses.items() if value.ndim == 0}


@ways
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_a_faster_update_equals_the_plain_one(device, case, way):
    """A replay waits by itself, for CudaGraphModule synchronises: waiting is not tested here."""
    faster_equals_plain(device, case, way)


@pytest.mark.parametrize("case", ["soft_q", "td3", "birth_death"])
def test_a_graph_that_python_replays_equals_the_plain_one(case, monkeypatch):
    monkeypatch.setattr("torchrl_stein.runs.compile.CudaGraphModule", ReplayedUpdate)
    faster_equals_plain("cpu", case, GRAPHS)


@pytest.mark.parametrize("case", ["soft_q", "ppo"])
def test_an_update_that_differs_is_noticed(case, monkeypatch):
    def wrong(update, **_):
        return lambda batch: update(batch) * 2

    monkeypatch.setattr("torchrl_stein.runs.compile.CudaGraphModule", wrong)
    with pytest.raises(AssertionError, match="update 0"):
        faster_equals_plain("cpu", case, GRAPHS)


def make_flow(device):
    torch.manual_seed(0)
    posterior = RegressionPosterior(3, 2, 4, num_cells=5).to(device)
    optimizer = torch.optim.RMSprop(posterior.parameters(), lr=1e-2, alpha=0.9, eps=1e-6)
    return ParticleFlow(posterior, RBFKernel(MedianBandwidth("log(n)")), optimizer, SinkhornCost())


def steps_of(flow, **compile_settings):
    """As in the recipe: one update of a flow, launched in this way."""
    settings = Compile(
        **({"compile": False, "compile_mode": None, "cudagraphs": False} | compile_settings)
    )
    if settings.compile:
        flow.compile(partial(torch.compile, fullgraph=True))

    def update(batch):
        direction = flow.step(batch["features"], batch["target"], num_rows=30)
        return TensorDict({"total": direction.total})

    return compiled(update, settings, flow.optimizer)


def rows(device):
    features, target = torch.randn(2, 6, 3, device=device), torch.randn(2, 6, device=device)
    return TensorDict({"features": features, "target": target})


@ways
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_a_faster_flow_equals_the_plain_one(device, way):
    plain, fast = make_flow(device), make_flow(device)
    step, move = steps_of(plain), steps_of(fast, **way)
    for _ in range(10):
        batch = rows(device)
        torch.testing.assert_close(move(batch)["total"], step(batch)["total"], **CLOSE)
    torch.testing.assert_close(fast.posterior.particles, plain.posterior.particles, **CLOSE)


def test_a_replayed_flow_equals_the_plain_one(monkeypatch):
    monkeypatch.setattr("torchrl_stein.runs.compile.CudaGraphModule", ReplayedUpdate)
    test_a_faster_flow_equals_the_plain_one("cpu", GRAPHS)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_a_step_of_the_flow_does_not_wait(device):
    move = without_waiting(steps_of(make_flow(device)))
    batch = rows(device)
    for _ in range(5):
        move(batch)
