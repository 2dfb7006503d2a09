"""Soft Q-learning on the multi-goal world: what is measured, and one small run of each kind."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from benchmarks.experiments import soft_q_multigoal
from benchmarks.experiments.soft_q_multigoal import METHODS, DriveOnlyKernel
from benchmarks.recipes import settings_of
from torchrl_stein.functional import svgd_direction
from torchrl_stein.kernels import MedianBandwidth, RBFKernel
from torchrl_stein.runs import build
from torchrl_stein.runs.pictures import PROBE_STATES
from torchrl_stein.runs.targets import trust_all_targets

# Q / alpha = slope . a, a density on the square that factorises, with closed-form quantiles.
SLOPE = torch.tensor([1.5, -0.8])
ALPHA = 4.0


def quantile(u, slope):
    """Inverse distribution function of density ~ exp(slope x) on [-1, 1]."""
    low, high = math.exp(-slope), math.exp(slope)
    return torch.log(low + u * (high - low)) / slope


class Sampler:
    """Draws from exp(tilt * slope . a) on the square: exactly the density if tilt = 1."""

    def __init__(self, tilt=1.0):
        self.tilt = tilt

    def sample(self, states, count):
        u = torch.rand(len(states), count, 2)
        return torch.stack([quantile(u[..., i], self.tilt * SLOPE[i].item()) for i in range(2)], -1)


def fit(sampler, **options):
    def qvalue(states, actions):
        assert states["observation"].tolist() == [list(s) for s in PROBE_STATES]
        assert actions.shape[:1] == (3,)
        return ALPHA * (actions @ SLOPE)

    loss = SimpleNamespace(qvalue=qvalue, temperature=torch.tensor(ALPHA), actor_network=sampler)
    measured = soft_q_multigoal.sampler_fit(loss, **options)
    return {name: torch.tensor(values) for name, values in measured.items()}


def kl(sampler, **options):
    return fit(sampler, **options)["kl"]


def test_kl_of_a_perfect_sampler_is_that_of_the_finite_sample():
    # 99 free cells / (2 * 4000 samples) = 0.0124, the expectation of a chi-squared variable.
    values = torch.stack([kl(Sampler()) for _ in range(10)])
    assert values.shape == (10, 3)
    assert values.mean().item() == pytest.approx(99 / 8000, rel=0.1)
    assert kl(Sampler(), samples=400_000).max() < 5e-4


@pytest.mark.parametrize("tilt", [-1.0, 1e-4])
def test_kl_of_a_wrong_sampler(tilt):
    # In closed form: the mean of the log ratio of the two densities under the sampler.
    def log_normaliser(slope):
        return math.log((math.exp(slope) - math.exp(-slope)) / slope)

    def mean(slope):
        return 1 / math.tanh(slope) - 1 / slope

    expected = sum(
        (tilt - 1) * s * mean(tilt * s) - log_normaliser(tilt * s) + log_normaliser(s)
        for s in SLOPE.tolist()
    )
    assert expected > 0.3
    measured = kl(Sampler(tilt), samples=100_000)
    assert measured.tolist() == pytest.approx([expected] * 3, rel=0.05)


def test_kl_sees_swapped_coordinates_and_a_collapse():
    class Swapped(Sampler):
        def sample(self, states, count):
            return super().sample(states, count).flip(-1)

    class Collapsed(Sampler):
        def sample(self, states, count):
            return torch.zeros(len(states), count, 2)

    assert kl(Swapped()).min() > 0.5
    assert kl(Collapsed()).min() > 3.0
    assert kl(Collapsed()).isfinite().all()
    # One cell, against exp(entropy) of the density: between one and a hundred cells.
    assert (fit(Collapsed())["width"] > 1 / 100).all()
    assert (fit(Collapsed())["width"] < 1 / 20).all()
    assert fit(Sampler(), samples=100_000)["width"].tolist() == pytest.approx([1] * 3, abs=0.01)


def test_kl_of_a_sampler_on_the_border():
    class Border(Sampler):
        def sample(self, states, count):
            return torch.ones(len(states), count, 2)

    assert kl(Border()).isfinite().all()


# the table


def result(method, seed, **options):
    goals = {f"goal_{i}": 0.25 for i in range(4)}
    numbers = {"success": 1.0, "entropy": 0.9, "return": -200.0, "length": 6.5, "cpu_s": 60.0}
    numbers["entropy_one_start"] = 0.5
    facts = {"method": method, "seed": seed, "updates": 2500, "frames": 166_400}
    return {**facts, **goals, **numbers, **options}


EXACT = {
    "return": -191.25,
    "success": 1.0,
    "length": 7.5,
    "entropy": 1.0,
    **{f"goal_{i}": 0.25 for i in range(4)},
}


def test_the_table_sums_up_every_method():
    soft, ddpg = "soft Q-learning", "DDPG (TorchRL)"
    runs = [
        result(soft, 0, goal_2=0.1, success=0.85, kl=[0.1, 0.2, 0.3], width=[1.0] * 3),
        result(soft, 1, goal_0=0.2, success=0.95, kl=[0.3, 0.2, 0.1], width=[1.0] * 3),
        result(ddpg, 0, goal_0=1.0, goal_1=0.0, goal_2=0.0, goal_3=0.0),
    ]
    page = soft_q_multigoal.table(runs, EXACT)
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines()]
    by_name = {row[0]: row for row in reversed(rows)}  # the first table of the three wins
    assert by_name["exact soft-optimal policy"][2:6] == ["1.000", "0.250", "1.000", ""]
    assert by_name[soft][1:4] == ["2", "0.900 ± 0.071", "0.150 ± 0.071"]
    assert by_name[ddpg][1:4] == ["1", "1.000 ± nan", "0.000 ± nan"]
    assert "repulsion off" not in by_name
    assert by_name[soft][5] == "0.500 ± 0.000"
    assert [soft, "KL", "0.200 ± 0.141", "0.200 ± 0.000", "0.200 ± 0.141"] in rows
    assert page.count(f"| {soft} | 0 |") == page.count(f"| {ddpg} | 0 |") == 1
    assert "--seeds 2" in page
    assert "166400 environment steps and 2500 updates" in page
    # Every table has as many columns in each row as in its head.
    tables = [part.splitlines() for part in page.split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table}) == 1, table[0]


@pytest.fixture
def trusting():
    trust_all_targets()
    yield
    trust_all_targets(False)


def test_every_method_is_a_recipe_with_such_settings(trusting):
    for name, (recipe, overrides) in METHODS.items():
        settings = settings_of(recipe, *overrides)
        assert settings.recipe == recipe
        if recipe == "soft_q":
            assert settings.loss.temperature == soft_q_multigoal.TEMPERATURE
            kernel = build(settings.loss.kernel)
            assert isinstance(kernel, DriveOnlyKernel) == (name == "repulsion off")


@pytest.mark.parametrize("method", ["repulsion off", "DDPG (TorchRL)"])
def test_a_run_in_numbers(method, trusting):
    small = ["training.total_frames=6464", "training.batch_size=8", "network.num_cells=[8]"]
    small += ["eval.final_episodes=20", "eval.video_steps=0"]
    found = soft_q_multigoal.train(method, 3, *small)
    assert (found["method"], found["seed"]) == (method, 3)
    assert (found["updates"], found["frames"]) == (1, 6464)
    assert found["cpu_s"] > 0
    assert ("kl" in found) == (method == "repulsion off")
    page = soft_q_multigoal.table([found], EXACT)
    assert f"| {method} | 3 |" in page


# the controls


def test_the_control_without_repulsion():
    x, y = torch.randn(2, 7, 3), torch.randn(2, 5, 3)
    for points in ((x,), (x, y)):
        full, control = RBFKernel(MedianBandwidth()), DriveOnlyKernel(MedianBandwidth())
        gram, repulsion = control.gram_and_repulsion(*points)
        assert_close(gram, full.gram_and_repulsion(*points)[0])
        assert repulsion.shape == points[-1].shape
        assert (repulsion == 0).all()
        assert full.gram_and_repulsion(*points)[1].abs().min() > 0
        weights = torch.rand_like(gram)
        assert (control.evaluate(*points).weighted_repulsion(weights) == 0).all()
        assert_close(control.evaluate(*points).bandwidth, full.bandwidth(*points))
    scores = torch.randn(2, 7, 3)
    force = svgd_direction(gram, repulsion, scores)
    assert_close(force.total, force.drive)
