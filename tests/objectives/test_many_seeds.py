"""Several seeds in one loss: each has the gradient of its own loss, divided by their number.

The oracle is the same loss over each seed alone.
"""

from copy import deepcopy

import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives import HardUpdate

from tests.objectives.stein_builders import (
    LOSSES,
    NO_UPDATER,
    batch,
    gaussian,
    particle_gradient,
    run,
    total,
)
from tests.objectives.trust_region_builders import nudge, probabilistic, states
from torchrl_stein.kernels import (
    BehaviourKernel,
    LayerwiseKernel,
    LinearKernel,
    RadialControl,
    RBFKernel,
    TangentialControl,
)
from torchrl_stein.modules import AmortizedSVGDActor, BirthDeath, ParticleModule
from torchrl_stein.objectives import (
    EvolutionStrategiesLoss,
    GaussianPrior,
    NaturalGradientStep,
    ParameterSpace,
    SinkhornCost,
    SoftQLoss,
    SteinPolicyLoss,
    TRPOLoss,
    WassersteinTrustRegionLoss,
    WGFPotential,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)
S, N = 3, 4
KERNELS = {
    "median": lambda actor: RBFKernel(),
    "fixed": lambda actor: RBFKernel(9.0),
    "sum": lambda actor: RBFKernel() + LinearKernel(),
    "layers": lambda actor: LayerwiseKernel([slice(0, 12), slice(12, 16)]),
    "behaviour": BehaviourKernel,
}
CONTROLS = {"none": lambda kernel: kernel, "radial": RadialControl, "tangential": TangentialControl}


def seed(module, s):
    """The policies of one seed alone."""
    alone = deepcopy(module)
    for name, child in module.named_modules():
        if isinstance(child, ParticleModule):
            alone.set_submodule(name, child.seed(s))
    return alone


def data_of(actor, m=4):
    """Transitions [S, n, m] of all policies."""
    flat = deepcopy(actor)
    population = actor[0].module
    flat[0].module = population.select(range(N))
    flat[0].module.particles.data = population.particles.detach().flatten(0, 1).clone()
    flat[0].module._num_leading = 1
    return batch(flat, n=S * N, m=m).unflatten(0, (S, N))


def losses_of(name="A2CLoss", kernel="median", control="none", **options):
    """The loss over all seeds, those over each alone, and the data."""
    torch.manual_seed(0)
    make_actor, critics, make_loss = LOSSES[name]
    networks = [make_actor(n=(S, N)), *(make(n=(S, N)) for make in critics)]
    with torch.no_grad():  # of different spread
        networks[0][0].module.particles *= torch.arange(1, S + 1).view(S, 1, 1)
    data = data_of(networks[0])

    def stein(networks):
        coupling = CONTROLS[control](KERNELS[kernel](networks[0]))
        return SteinPolicyLoss(make_loss(*networks), kernel=coupling, temperature=0.7, **options)

    alone = [stein([seed(network, s) for network in networks]) for s in range(S)]
    return stein(networks), alone, data


def check_gradients(together, alone, data):
    got = particle_gradient(together, data)
    for s, loss in enumerate(alone):
        want = particle_gradient(loss, data[s])
        assert want.abs().max() > 1e-3
        assert_close(got[s], want / S, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["ReinforceLoss", "A2CLoss", "ClipPPOLoss", "A2CLoss, discrete"])
def test_the_gradient_of_each_seed_is_its_own(name):
    check_gradients(*losses_of(name))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("control", CONTROLS)
def test_with_any_kernel(kernel, control):
    check_gradients(*losses_of(kernel=kernel, control=control))


def test_with_a_prior():
    check_gradients(*losses_of(prior=GaussianPrior(2.0)))


def test_one_step_of_the_optimizer_is_that_of_each_seed():
    together, alone, data = losses_of()

    def step(loss, data, eps):
        optim = torch.optim.Adam([loss.particles], lr=0.1, eps=eps)
        total(run(loss, data)).backward()
        optim.step()
        return loss.particles.detach()

    got = step(together, data, 1e-8 / S)  # in the ratio of the gradients
    for s, loss in enumerate(alone):
        assert_close(got[s], step(loss, data[s], 1e-8), rtol=0, atol=1e-8)


@pytest.mark.parametrize("control", CONTROLS)
def test_values_are_means_over_the_seeds(control):
    together, alone, data = losses_of(control=control, prior=GaussianPrior(2.0))
    got = run(together, data)
    want = [run(loss, data[s]) for s, loss in enumerate(alone)]
    names = [k for k in got.keys() if k.startswith("loss_")]  # noqa: SIM118
    assert {"loss_objective", "loss_repulsion", "loss_prior"} <= set(names)
    for key in [*names, "kernel_offdiag", "kernel_bandwidth"]:
        mean = torch.stack([losses[key] for losses in want]).mean()
        assert_close(got[key], mean, msg=lambda text, key=key: f"{key}: {text}")


def test_distances_are_those_within_seeds():
    together, _, data = losses_of()
    with torch.no_grad():  # far from each other
        together.particles.add_(1000.0 * torch.arange(S).view(S, 1, 1))
    total(run(together, data)).backward()
    x = together.particles.detach()
    pairs = [(x[s, i] - x[s, j]).norm() for s in range(S) for i in range(N) for j in range(i)]
    assert_close(together.diagnose()["particle_distance"], torch.stack(pairs).median())


def test_a_kernel_that_is_constant_within_seeds_is_reported():
    together, _, _ = losses_of()
    together.kernel = RBFKernel(1e12)
    for _ in range(199):
        together.step()
    with pytest.warns(UserWarning, match="the kernel was nearly constant"):
        together.step()


def test_data_of_other_policies_are_refused():
    together, _, data = losses_of()
    data["particle"] = torch.arange(N).view(N, 1, 1).expand(S, N, 4, 1).clone()
    run(together, data)
    data["particle"][1, 2] = 3
    with pytest.raises(ValueError, match=r"'particle' row \[1, 2\] holds data of \[3\]"):
        run(together, data)
    with pytest.raises(
        ValueError, match=r"leading dimensions \[3, 4\] .* got batch size \[12, 4\]"
    ):
        run(together, data.flatten(0, 1))


def test_the_first_batch_of_other_policies_is_reported():
    together, _, data = losses_of("ClipPPOLoss")
    data["action_log_prob"][2, 1] += 1.0
    with pytest.warns(UserWarning, match=f"100% of the actions in row {2 * N + 1}"):
        run(together, data)


def test_a_checkpoint_and_one_seed_of_it():
    together, alone, data = losses_of()
    state = together.state_dict()
    other, _, _ = losses_of()
    with torch.no_grad():
        other.particles.zero_()
    other.load_state_dict(state)
    assert other.particles.equal(together.particles)
    key = next(name for name in state if name.endswith("particles") and "actor" in name)
    assert state[key].shape[:2] == (S, N)
    own = {k: v[1] if torch.is_tensor(v) and v.shape[:2] == (S, N) else v for k, v in state.items()}
    alone[0].load_state_dict(own)
    assert alone[0].particles.equal(together.particles[1])
    assert_close(particle_gradient(alone[0], data[1]), particle_gradient(alone[1], data[1]))


@pytest.mark.parametrize("ours", [True, False])
def test_replacements_of_each_seed(ours):
    """A step of birth and death in one seed is that of its particles alone, companions too."""
    actor = gaussian(n=(S, N))
    critic = gaussian(n=(S, N))
    population, optim = actor[0].module, torch.optim.Adam(actor.parameters())
    actor[0].module.particles.square().sum().backward()
    optim.step()
    process = BirthDeath(population, RBFKernel(), scale=1e-3, jitter=1e-9)
    returns = torch.tensor([[0.0, 9.0, 1.0, 1.0], [7.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 99.0]])
    process.observe(returns.double())
    before = population.particles.detach().clone(), critic[0].module.particles.detach().clone()
    moments = optim.state[population.particles]["exp_avg"].clone()
    parents = process.step(optim, [critic] if ours else [])
    assert parents.tolist() == [[1] * N, [0] * N, [3] * N]
    for s in range(S):
        assert_close(population.particles[s], before[0][s][parents[s]], rtol=0, atol=1e-7)
        follows = parents[s] if ours else torch.arange(N)
        assert critic[0].module.particles[s].equal(before[1][s][follows])
        assert optim.state[population.particles]["exp_avg"][s].equal(moments[s][parents[s]])
    assert process.returns.equal(returns.double().gather(-1, parents))


# trust regions


@pytest.mark.parametrize("cost", [SinkhornCost, WGFPotential])
def test_transport_within_seeds(cost):
    torch.manual_seed(0)
    actor = probabilistic(particles=(S, N)).double()
    options = {"weight": 0.3, "cost": cost(), "space": ParameterSpace()}
    alone = [WassersteinTrustRegionLoss(seed(actor, s), **options) for s in range(S)]
    together = WassersteinTrustRegionLoss(actor, **options)
    nudge(actor, 0.3)
    losses = together(states(1))
    losses["loss_trust_region"].backward()
    values, costs = [], []
    for s, region in enumerate(alone):
        particles = region.actor_network_params["module", "0", "module", "particles"]
        with torch.no_grad():
            particles.copy_(actor[0].module.particles[s])
        own = region(states(1))
        own["loss_trust_region"].backward()
        assert particles.grad.abs().max() > 1e-3
        assert_close(actor[0].module.particles.grad[s], particles.grad / S, rtol=0, atol=1e-10)
        values.append(own["loss_trust_region"].detach())
        costs.append(own["transport_cost"])
    assert_close(losses["loss_trust_region"].detach(), torch.stack(values).mean())
    assert_close(losses["transport_cost"], torch.stack(costs).mean())


def test_transport_of_each_seed():
    region = WassersteinTrustRegionLoss(
        probabilistic(particles=(2, 3)), space=ParameterSpace(), reduction="none"
    )
    HardUpdate(region, value_network_update_interval=0)
    assert region(states(1))["loss_trust_region"].shape == (2,)


def test_natural_steps_of_each_seed():
    torch.manual_seed(0)
    actor = gaussian(n=(S, N))
    data = data_of(actor, m=50)
    starts = [seed(actor, s) for s in range(S)]

    def stepped(actor, data):
        before = actor[0].module.particles.detach().clone()
        loss = SteinPolicyLoss(TRPOLoss(actor, normalize_advantage=True), temperature=2.0)
        figures = NaturalGradientStep(loss, iterations=20).step(data)
        return actor[0].module.particles.detach() - before, figures

    got, figures = stepped(actor, data)
    for s, start in enumerate(starts):
        want, own = stepped(start, data[s])
        assert want.abs().max() > 1e-3
        assert_close(got[s], want, rtol=0, atol=1e-10)
        for key in ("kl", "improvement", "step_fraction"):
            assert_close(figures[key][s], own[key])


def test_advantages_that_are_standardised_per_policy_are_not_warned_of(recwarn):
    SteinPolicyLoss(TRPOLoss(gaussian(n=(S, N)), normalize_advantage=True))
    assert not [w for w in recwarn if "advantage" in str(w.message)]


def test_what_takes_one_seed_says_so():
    with pytest.raises(ValueError, match=r"actor_network must hold .* one seed .* got 3 seeds"):
        EvolutionStrategiesLoss(gaussian(n=(S, N)), lambda policy, count: torch.zeros(count))


def test_soft_q_learning_of_several_agents():
    """Losses that couple nothing take S agents as particles, and data [S, B]."""
    box = Bounded(-1.0, 1.0, (2,))
    torch.manual_seed(0)
    actor = AmortizedSVGDActor(
        ParticleModule(lambda: MLP(3 + 2, 2, num_cells=[8]), S), action_spec=box
    )
    qvalue = ValueOperator(
        ParticleModule(lambda: MLP(3 + 2, 1, num_cells=[8]), S), in_keys=["observation", "action"]
    )
    loss = SoftQLoss(actor, qvalue)
    loss.make_value_estimator(gamma=0.9)
    HardUpdate(loss, value_network_update_interval=1)

    def gradients(data):
        torch.manual_seed(1)
        loss.zero_grad()
        total(loss(data)).backward()
        return [p.grad.clone() for p in loss.parameters() if p.requires_grad]

    def draw(*shape):
        data = TensorDict({"observation": torch.randn(*shape, 3), "action": torch.zeros(*shape, 2)})
        following = {"observation": torch.randn(*shape, 3), "reward": torch.randn(*shape, 1)}
        ends = {name: torch.zeros(*shape, 1, dtype=torch.bool) for name in ("done", "terminated")}
        return data.set("next", following | ends).auto_batch_size_(len(shape))

    data = draw(S, 16)
    before = gradients(data)
    data[1:] = draw(S - 1, 16)
    after = gradients(data)
    assert len(before) == 2
    for old, new in zip(before, after, strict=True):
        assert old.shape[0] == S
        assert_close(old[0], new[0])
        assert (old[1:] - new[1:]).abs().amax(-1).min() > 1e-4
