"""seeds= of the recipes: every population, or policy, of the batch learns as it would alone."""

import json
import re

import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import Enough, load, run, settings_of
from tests.recipes.processes import SMALL
from torchrl_stein.modules import SamplingActor
from torchrl_stein.objectives import ActionSpace
from torchrl_stein.runs import (
    make_configured_task,
    make_linear_critic,
    make_population_collector,
    make_trust_region,
)
from torchrl_stein.runs.settings import SettingsError

S, N = 2, 3
CASES = {
    "svpg": [],
    "no baseline": ["base=reinforce"],
    "ppo": ["base=ppo", "base.num_epochs=3", "base.num_minibatches=1"],
    "ip_wgf": ["trust_region=wasserstein", "trust_region.weight=5"],
    "independent": ["kernel=none"],
    "joint": ["kernel=none", "population.num_particles=1"],
    "radial": ["kernel=radial"],
    "tangential": ["kernel=tangential"],
    "layerwise": ["kernel=layerwise"],
    "behaviour": ["kernel=behaviour"],
}


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def learn(*overrides, updates=3, **watched):
    """A loop and its critic."""
    critics = []

    def make_critic(env, n, make=make_linear_critic):
        critics.append(make(env, n))
        return critics[-1]

    def make_collector(env, actor, make=make_population_collector, **counts):
        """Of episodes in double precision, where that is the default."""
        collector, draw = make(env, actor, **counts), env.draw_starts
        collector._state = collector._state.to(torch.get_default_dtype())
        env.draw_starts = lambda shape: draw(shape).to(torch.get_default_dtype())
        return collector

    small = (*SMALL["svpg"], "+env_options.horizon=15", "training.steps=30", "selection=none")
    settings = settings_of("svpg", *small, *overrides)
    patches = {
        "make_linear_critic": make_critic,
        "make_population_collector": make_collector,
    }
    return run("svpg", settings, updates, patches=patches, **watched), critics[0]


def particles(loop):
    return loop.components["loss"].particles.detach()


@pytest.mark.parametrize("name", CASES)
def test_a_population_learns_as_it_would_alone(doubles, name):
    starts = []
    together, critic = learn(
        f"seeds={S}", *CASES[name], tracked=lambda loop: starts.append(particles(loop).clone())
    )
    assert (particles(together) - starts[0]).abs().amax(-1).min() > 1e-3
    for s in range(S):

        def begin(loop, s=s):
            particles(loop).copy_(starts[0][s])
            if loop.components["previous"] is not None:
                loop.components["previous"].step()

        data = [batch[s] for batch in together.collected]
        alone, own = learn(*CASES[name], tracked=begin, batches=data)
        assert_close(particles(together)[s], particles(alone), rtol=0, atol=1e-8)
        assert_close(critic.module.weight[s], own.module.weight)


def test_replacements_stay_within_a_population():
    settings = settings_of("svpg", *SMALL["svpg"], f"seeds={S}", "selection.scale=0.01")

    def stop(loop):
        raise Enough

    selection = run("svpg", settings, tracked=stop).components["selection"]
    selection.observe(torch.tensor([[0.0, 2.0, 0.5], [90.0, 99.0, 91.0]]))
    assert selection.draw().tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("kernel", ["drift", "shared_drift"])
def test_drifts_of_all_particles_differ(kernel):
    drift = learn(f"seeds={S}", f"kernel={kernel}")[0].components["loss"].kernel
    assert len(torch.unique(drift.directions.flatten(0, 1), dim=0)) == S * N
    # A push is as long as the repulsion within the particle's own population.
    x = torch.randn(drift.directions.shape)
    pushes = drift.gram_and_repulsion(x)[1].norm(dim=-1)
    expected = [drift.kernel.gram_and_repulsion(part)[1].norm(dim=-1) for part in x]
    assert_close(pushes, torch.stack(expected))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["seeds=3", "seed=2", "env=Pendulum-v1"],
            r"seeds=1 with env=Pendulum-v1, .*: --multirun seed=2,3,4$",
        ),
        (["seeds=0"], "seeds must be greater than or equal to 1, got 0"),
    ],
)
def test_seeds_that_cannot_be(overrides, message):
    with pytest.raises(SettingsError, match=message):
        settings_of("svpg", *overrides)


def test_from_the_command_line(finished, evaluate, capsys):
    directory = finished("svpg", f"seeds={S}", "seed=7", "selection.scale=0.01").directory
    for seed in (7, 8):
        folder = directory / f"seed{seed}"
        summary = json.loads((folder / "summary.json").read_text())
        assert {f"particle_{i}" for i in range(N)} < set(summary)
        config = json.loads((folder / "config.json").read_text())
        assert (config["seed"], config["seeds"]) == (seed, 1)
        lines = (folder / "metrics/scalars/test/return_particle_2.csv").read_text().split()
        assert [line.split(",")[0] for line in lines] == ["240", "480"]  # steps of one seed
    evaluate.main(str(directory), episodes=3, seed=1)
    text = capsys.readouterr().out
    rows = re.findall(r"^  seed (\d) particle +(\d) +-?\d+\.\d+ +\d+\.\d +-?\d+\.\d+$", text, re.M)
    assert sorted(rows) == [(s, i) for s in "78" for i in "012"]


# one policy and its critics for each seed


LEARNT = ["loss.fixed_alpha=false"]
REGION = ["trust_region.weight=0.4"]
OFF_POLICY = {
    "sac": ("sac", LEARNT),
    "td3": ("td3", []),
    "ddpg": ("ddpg", []),
    "soft_q": ("soft_q", [*LEARNT, "loss.num_qvalue_nets=2", "loss.value_target=expected"]),
    "dp_wgf": ("soft_q", [*REGION, "loss.value_proposal=actor"]),
    "dp_wgf_v": ("soft_qv", [*LEARNT, *REGION, "loss.num_qvalue_nets=2"]),
    "soft_qv": ("soft_qv", ["trust_region.weight=0", "actor.num_particles=1"]),
    # With as many probes as dimensions a trace is exact, and nothing of it is drawn.
    "s2ac": ("s2ac", [*LEARNT, "loss.num_probes=2"]),
    "s2ac_fixed": ("s2ac", ["loss.num_probes=2", "loss.bound_step=true"]),
}


def off_policy(name, *overrides):
    """Settings, the loss and, with its predecessor elsewhere, the trust region."""
    recipe, own = OFF_POLICY[name]
    settings = settings_of(recipe, *SMALL[recipe], f"seeds={S}", *own, *overrides)
    torch.manual_seed(0)
    terms = terms_of(settings)
    with torch.no_grad():
        for params in terms[0].actor_network_params.parameters():
            params += 0.1 * torch.randn_like(params)
        if LEARNT[0] in own:
            terms[0].log_alpha += torch.arange(S).unsqueeze(-1)
    return settings, terms


def terms_of(settings):
    env = make_configured_task(settings.env, (*settings.leading, 1), seed=0)
    terms = [load(settings.recipe).make_loss(settings, env)]
    if hasattr(settings, "trust_region"):
        region = settings.trust_region
        space = ActionSpace(region.num_action_samples)
        terms += [r for r in make_trust_region(region, terms[0].actor_network, space)[:1] if r]
    return terms


def transitions(seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(size):
        return torch.randn(S, 16, size, generator=generator)

    never = torch.zeros(S, 16, 1, dtype=torch.bool)
    following = {"observation": normal(2), "reward": normal(1), "done": never, "terminated": never}
    values = {"observation": normal(2), "action": torch.tanh(normal(2)), "next": following}
    return TensorDict(values, [S, 16])


def run_terms(terms, data):
    """All losses, whose gradients the parameters then have."""
    losses = {name: value for term in terms for name, value in term(data.clone()).items()}
    losses = {name: value for name, value in losses.items() if name.startswith("loss_")}
    sum(losses.values()).backward()
    return losses


def gradients(terms, data):
    """By seed: those of all parameters, which have seeds before their columns, or population."""
    terms[0].zero_grad()
    torch.manual_seed(1)
    run_terms(terms, data)
    found = [p.grad for p in terms[0].parameters() if p.grad is not None]
    dims = [-2 if grad.shape[-2] == S else -3 for grad in found]
    rows = [grad.movedim(dim, 0).reshape(S, -1) for grad, dim in zip(found, dims, strict=True)]
    return torch.cat(rows, -1)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_nothing_of_one_seed_enters_another(name):
    _, terms = off_policy(name)
    data, other = transitions(0), transitions(1)
    before = gradients(terms, data)
    data[1:] = other[1:]
    after = gradients(terms, data)
    assert_close(after[0], before[0])
    assert (after[1:] - before[1:]).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("name", [name for name in OFF_POLICY if name != "sac"])
def test_a_policy_learns_as_it_would_alone(doubles, name):
    """Of the same noise: losses and their gradients are means of those of single seeds."""
    quiet = ["loss.policy_noise=0"] if name == "td3" else []
    settings, together = off_policy(name, *quiet)
    share_noise(together[0].actor_network)
    data, found = transitions(0), []
    losses = run_terms(together, data)
    if len(together) > 1:
        assert losses["loss_trust_region"] > 1e-4
    for s in range(S):
        alone = terms_of(settings.model_copy(update={"seeds": 1}))
        share_noise(alone[0].actor_network, s)
        pairs = [
            pair
            for terms in zip(alone, together, strict=True)
            for pair in zip(*map(networks, terms), strict=True)
        ]
        for own, theirs in pairs:
            for value, part in columns(own, theirs[0].data, s):
                value.data.copy_(part)
        if hasattr(alone[0], "log_alpha"):
            alone[0].log_alpha.data.copy_(together[0].log_alpha[s, 0])
        found.append(run_terms(alone, data[s]))
        for own, theirs in pairs:
            if theirs[0].grad is not None:
                for value, part in columns(own, theirs[0].grad, s):
                    assert_close(part, value.grad / S)
        if hasattr(alone[0], "log_alpha"):
            assert_close(together[0].log_alpha.grad[s, 0], alone[0].log_alpha.grad / S)
    for key, value in losses.items():
        assert_close(value, torch.stack([own[key] for own in found]).mean())


def share_noise(actor, *seed):
    """The noise of a sampler depends on its size alone; a seed alone has its row."""
    if isinstance(actor, SamplingActor):
        draw = type(actor).draw_noise

        def same(states, num_samples):
            torch.manual_seed(num_samples)
            batch = states.batch_size if not seed else (S, *states.batch_size)
            return draw(actor, TensorDict({}, batch), num_samples)[seed]

        actor.draw_noise = same


def columns(own, theirs, s):
    """The tensors of one network, each with what several seeds hold for it in seed s."""
    if own[0].shape == theirs.shape[1:]:  # a population
        yield own[0], theirs[s]
        return
    flat, size = theirs.select(-2, s), 0
    for value in own:
        count = value[0].numel() if flat.ndim > 1 else value.numel()
        yield value, flat[..., size : size + count].reshape(value.shape)
        size += count
    assert size == flat.shape[-1]


def networks(term):
    """Parameters of actor and critics and of their targets: layers in order, or particles."""
    names = ("actor_network_params", "qvalue_network_params", "value_network_params")
    for name in [n for n in names if hasattr(term, n)]:
        for params in (getattr(term, name), getattr(term, f"target_{name}")):
            leaves = {k: v for k, v in params.items(True, True) if "critics" not in k}
            ordered = [k for k in leaves if k[-1] in ("weight", "bias")]
            ordered.sort(key=lambda key: (key[:-1], key[-1] == "bias"))
            whole = [v for k, v in leaves.items() if k[-1] == "particles"]
            yield whole or [leaves[key] for key in ordered]


@pytest.mark.parametrize("recipe", ["sac", "soft_qv", "s2ac"])
def test_off_policy_seeds_from_the_command_line(finished, evaluate, capsys, recipe):
    directory = finished(recipe, f"seeds={S}", "seed=7", "loss.fixed_alpha=false").directory
    for seed in (7, 8):
        folder = directory / f"seed{seed}"
        assert json.loads((folder / "config.json").read_text())["seed"] == seed
        assert "return" in json.loads((folder / "summary.json").read_text())
        lines = (folder / "metrics/scalars/eval/return.csv").read_text().split()
        assert [line.split(",")[0] for line in lines] == ["480", "640", "800"]  # of one seed
    evaluate.main(str(directory), episodes=3, seed=1)
    assert re.findall(r"^seed (\d)$", capsys.readouterr().out, re.M) == ["7", "8"]
