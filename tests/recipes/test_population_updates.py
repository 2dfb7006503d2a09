"""An iteration of a population: against a loop over particles and steps, written out."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import run, settings_of
from torchrl_stein.runs import estimate_advantages, make_linear_critic

N, E, STEPS, GAMMA, LR = 3, 2, 10, 0.9, 0.5
SMALL = [
    "env=cartpole",
    "+env_options.horizon=6",
    f"population.num_particles={N}",
    f"population.envs_per_particle={E}",
    "population.num_cells=[4]",
    f"training.steps={STEPS}",
    f"loss.gamma={GAMMA}",
    f"optim.lr={LR}",
    "selection=none",
]


def features(observation, step):
    t = step.item() / 100
    s = [max(-10.0, min(10.0, x)) for x in observation.tolist()]
    return torch.tensor([*s, *(x * x for x in s), t, t**2, t**3, 1.0], dtype=torch.float64)


def targets_of(rows, weight):
    """Features, discounted returns and values of every step of one environment."""

    def value(part):
        return (features(part["observation"], part["elapsed_steps"]) @ weight).item()

    found, following = [], None
    for step in reversed(list(rows)):
        after = step["next"]
        if after["terminated"]:
            following = 0.0
        elif after["done"] or following is None:  # cut off: the baseline says what was to come
            following = value(after)
        following = after["reward"].item() + GAMMA * following
        x = features(step["observation"], step["elapsed_steps"])
        found.append((x, following, value(step)))
    return found[::-1]


def by_hand(rows, weight):
    """Features, discounted returns and standardised advantages of one particle's data [E, T]."""
    steps = [step for row in rows for step in targets_of(row, weight)]
    x, returns, values = (
        torch.stack([torch.as_tensor(v) for v in c]) for c in zip(*steps, strict=True)
    )
    advantage = returns - values
    return x, returns, ((advantage - advantage.mean()) / advantage.std(correction=0)).float()


@pytest.mark.parametrize("base", ["reinforce", "a2c"])
def test_one_update_by_hand(base, monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr, **_: torch.optim.SGD(p, lr))
    critics, weights, networks = [], [], []

    def make_critic(*args):
        critics.append(make_linear_critic(*args))
        return critics[-1]

    def look(loop):
        population = loop.components["actor"][0].module
        weights.append(critics[0].module.weight.double().clone())
        networks.append([population.particle(i) for i in range(N)])

    settings = settings_of("svpg", *SMALL, f"base={base}", "kernel=none")
    loop = run("svpg", settings, 3, patches={"make_linear_critic": make_critic}, updated=look)
    data, baseline = loop.collected[2], critics[0].module
    assert data["next", "terminated"].any()
    assert data["next", "truncated"].any()
    assert (weights[1].abs().max() > 0.1) == (base == "a2c")  # there is a baseline to subtract
    for i in range(N):
        x, returns, advantage = by_hand(data[i], weights[1][i])
        loc, scale = networks[1][i](data["observation"][i])
        log_prob = torch.distributions.Normal(loc, scale).log_prob(data["action"][i]).flatten()
        (-(log_prob * advantage).mean() / N).backward()
        for got, old in zip(networks[2][i].parameters(), networks[1][i].parameters(), strict=True):
            assert_close(got.detach(), (old - LR * old.grad).detach(), rtol=1e-4, atol=1e-5)
        if base == "a2c":
            ridge = baseline.ridge * torch.eye(x.shape[1])
            fitted = torch.linalg.solve(x.T @ x + ridge, x.T @ returns.double())
            assert_close(x @ weights[2][i], x @ fitted, rtol=1e-3, atol=1e-3)
        else:
            assert weights[2].abs().max() == 0


def rows_of_passes(*words):
    """Which transitions each update of an iteration sees, by particle."""
    rows = []

    def numbered(make, *args):
        data = make(*args)
        row = torch.arange(E * STEPS).view(1, E, STEPS).expand(N, E, STEPS)
        return data.set("row", row.clone())

    def seen(update, *_, **__):
        def call(batch):
            rows.append(batch["row"].flatten(1))
            return update(batch)

        return call

    patches = {"compiled": seen, "estimate_advantages": partial(numbered, estimate_advantages)}
    run("svpg", settings_of("svpg", *SMALL, "base=ppo", *words), patches=patches)
    assert all((r == r[0]).all() for r in rows)  # the same ones of every particle
    return [r[0] for r in rows]


def test_minibatches_part_the_rows_anew_in_every_epoch():
    rows = rows_of_passes("base.num_epochs=3", "base.num_minibatches=4")
    assert [r.shape for r in rows] == [(5,)] * 12
    epochs = [torch.cat(rows[k : k + 4]) for k in (0, 4, 8)]
    for epoch in epochs:
        assert epoch.sort().values.tolist() == list(range(E * STEPS))
        assert epoch.tolist() != list(range(E * STEPS))
    assert not epochs[0].equal(epochs[1])


def test_without_minibatches_every_epoch_sees_everything():
    rows = rows_of_passes("base.num_epochs=2", "base.num_minibatches=1")
    assert [r.tolist() for r in rows] == [list(range(E * STEPS))] * 2


def test_figures_of_the_stein_loss_do_not_see_the_trust_region():
    def move_away(loop):
        with torch.no_grad():
            loop.components["actor"][0].module.particles.add_(0.1)

    losses = []
    for words in (["trust_region=none"], ["trust_region=wasserstein", "trust_region.weight=100"]):
        settings = settings_of("svpg", *SMALL, *words)
        losses += run("svpg", settings, tracked=move_away).losses
    plain, held = losses
    assert held["loss_trust_region"] > 0
    assert_close(held["repulsion_ratio"], plain["repulsion_ratio"])
