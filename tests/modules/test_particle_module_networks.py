"""Networks that do not fit into one batched call, or that change what they are given."""

import pytest
import torch
from tensordict.nn import NormalParamExtractor
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torchrl.modules import MLP

from tests.modules.networks import N, Trunk, as_tuple, each, mlp
from torchrl_stein.modules import ParticleModule


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.cell(x)[0])


def normalised():
    return nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2))


def with_hook(register, hook, pick):
    """A factory of networks of which one layer, or the whole, carries a hook."""

    def factory():
        net = mlp()
        getattr(pick(net), register)(hook)
        return net

    return factory


HOOKS = {
    "on the output": ("register_forward_hook", lambda _, args, out: out + 1),
    "on the input": ("register_forward_pre_hook", lambda _, args: (args[0] + 1,)),
}
LAYERS = {"network": lambda net: net, "linear": lambda net: net[0], "tanh": lambda net: net[1]}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_act_at_any_batch_size(kind, layer):
    net = ParticleModule(with_hook(*HOOKS[kind], LAYERS[layer]), N)
    bare = ParticleModule(mlp, N)
    bare.load_state_dict(net.state_dict())
    large = torch.randn(N, 500, 3)
    for x in (large[:, :6], large):
        torch.testing.assert_close(net(x), each(net, x)[0])
        assert (net(x) - bare(x)).abs().max() > 0.01


@pytest.mark.parametrize("layer", LAYERS)
def test_a_hook_sees_one_network_at_a_time(layer):
    seen = []
    hook = lambda _, args, out: seen.append((args[0].shape, out.sum().item()))  # noqa: E731
    net = ParticleModule(with_hook("register_forward_hook", hook, LAYERS[layer]), N)
    net(torch.randn(N, 6, 3))
    assert [shape[:-1] for shape, _ in seen] == [(6,)] * N
    assert len({value for _, value in seen}) == N


@pytest.mark.parametrize(
    "register", ["register_full_backward_hook", "register_full_backward_pre_hook"]
)
def test_hooks_on_gradients(register):
    calls = []
    hook = lambda *args: calls.append(len(args))  # noqa: E731
    net = ParticleModule(with_hook(register, hook, LAYERS["linear"]), N)
    net(torch.randn(N, 6, 3, requires_grad=True)).sum().backward()
    assert len(calls) == N


def test_without_its_hook_a_network_is_fast_again():
    handles = []

    def factory():
        net = mlp()
        handles.append(net[0].register_forward_hook(lambda _, args, out: 2 * out))
        return net

    net, x = ParticleModule(factory, N), torch.randn(N, 6, 3)
    doubled = net(x)
    for handle in handles:
        handle.remove()
    assert not torch.allclose(net(x), doubled)
    torch.testing.assert_close(net(x), each(net, x)[0])


@pytest.mark.parametrize(
    ("factory", "shape"),
    [
        (lambda: nn.GRU(3, 4, batch_first=True), (2, 7, 3)),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.RNN(3, 4, batch_first=True)), (7, 3)),
        (Recurrent, (6, 3)),
        (lambda: nn.GRUCell(3, 4), (6, 3)),
        (normalised, (6, 3)),
    ],
    ids=["gru", "rnn inside", "lstm cell inside", "gru cell", "spectral norm"],
)
def test_layers_without_a_batching_rule(factory, shape):
    net = ParticleModule(factory, N).eval()
    x = torch.randn(N, *shape)
    got = as_tuple(net(x))
    for value, want in zip(got, each(net, x), strict=True):
        torch.testing.assert_close(value, want)
    got[0].sum().backward()
    assert (net.particles.grad.abs().sum(1) > 0).all()


def test_spectral_norms_of_particles_are_estimated_apart(strategy):
    net = ParticleModule(normalised, N)
    plain = [net.particle(i) for i in range(N)]
    x = torch.randn(N, 6, 3)
    for _ in range(3):
        want = torch.stack([plain[i](x[i]) for i in range(N)])
        torch.testing.assert_close(net(x), want)
    for i in range(N):
        for name, buffer in plain[i].named_buffers():
            torch.testing.assert_close(net.particle(i).get_buffer(name), buffer)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class Item(Branch):
    def forward(self, x):
        return self.layer(x) * x.sum().item()


class Norm(Branch):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        torch.add(self.scale, x.abs().max(), out=self.scale)
        return self.layer(x)


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient  # on purpose: nobody else does that


class OwnDerivative(Branch):
    def forward(self, x):
        return Doubling.apply(self.layer(x))


class Slope(Branch):
    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.layer(x).tanh().sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]


class Asking(Branch):
    def forward(self, x):
        y = self.layer(x)
        return 2 * y if y.requires_grad else y


@pytest.mark.parametrize("rows", [6, 500])
@pytest.mark.parametrize("factory", [Branch, Item, Norm, OwnDerivative, Slope, Asking])
def test_what_vmap_cannot_do_is_done_in_turn(factory, rows):
    net = ParticleModule(factory, N)
    nets = [net.particle(i) for i in range(N)]
    for _ in range(2):
        x = torch.randn(N, rows, 3)
        got, want = net(x), torch.stack([plain(x[i]) for i, plain in enumerate(nets)])
        torch.testing.assert_close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    flat = [torch.cat([p.grad.reshape(-1) for p in plain.parameters()]) for plain in nets]
    torch.testing.assert_close(net.particles.grad, torch.stack(flat))
    for i, plain in enumerate(nets):
        for name, buffer in plain.named_buffers():
            torch.testing.assert_close(net.particle(i).get_buffer(name), buffer)


@pytest.mark.parametrize("rows", [6, 500])
def test_errors_are_those_of_the_network(rows):
    net, x = ParticleModule(Trunk, N), torch.randn(N, rows, 2)
    with pytest.raises(RuntimeError) as plain:
        net.particle(0)(x[0])
    with pytest.raises(RuntimeError) as ours:
        net(x)
    assert str(ours.value) == str(plain.value)
    assert ours.value.__context__ is None
    net(torch.randn(N, rows, 3))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Sequential(nn.Linear(1, 2)), (2,)),
        (lambda: MLP(2, 2, num_cells=[3]), (2,)),
        (lambda: nn.Sequential(nn.LayerNorm((2, 3)), nn.Linear(3, 2)), (2, 3)),
        (lambda: nn.Sequential(NormalParamExtractor(), nn.LSTM(3, 2)), (2,)),
        (lambda: nn.Sequential(nn.Linear(3, 2)), (2, 6, 2)),
    ],
)
def test_particles_are_never_taken_for_rows_or_features(make, shape):
    net, x = ParticleModule(make, 2), torch.randn(shape)
    for call in (lambda: net(x), lambda: net.particle(0)(x[0])):
        with pytest.raises((RuntimeError, IndexError, TypeError)):
            call()


def scaled(in_features=3):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(in_features, 2)
            self.register_buffer("scale", torch.full((in_features,), 2.0))

        def forward(self, x):
            return self.layer(x * self.scale)

    return Scaled()


@pytest.mark.parametrize(
    "make",
    [scaled, lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), normalised],
    ids=["constant", "batch norm", "spectral norm"],
)
def test_evaluation_writes_to_no_buffer_so_that_it_can_be_transformed(make, strategy):
    net = ParticleModule(make, N).eval()
    x = torch.randn(N, 6, 3)

    def total(particles):
        return torch.func.functional_call(net, {"particles": particles}, (x,)).square().sum()

    got = torch.func.grad(total)(net.particles.detach())
    net(x).square().sum().backward()
    torch.testing.assert_close(got, net.particles.grad)


class Remembers(Branch):
    """A state that is no buffer."""

    def __init__(self):
        super().__init__()
        self.last = None

    def forward(self, x):
        y = self.layer(x) if self.last is None else self.layer(x) + self.last
        self.last = y.detach()
        return y


class Counts(Branch):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) / self.calls


class MakesABuffer(Branch):
    def forward(self, x):
        self.register_buffer("offset", x.detach().sum())
        return self.layer(x) + self.offset


@pytest.mark.parametrize("rows", [6, 500])
@pytest.mark.parametrize(
    ("factory", "name"), [(Remembers, "last"), (Counts, "calls"), (MakesABuffer, "offset")]
)
def test_state_that_particles_would_share_is_refused(factory, name, rows):
    net = ParticleModule(lambda: nn.Sequential(nn.Linear(3, 3), factory()), N)
    with pytest.raises(RuntimeError, match=rf"layer .* keeps '{name}' .*\(register_buffer\)"):
        net(torch.randn(N, rows, 3))


class Grows(Branch):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, 3))

    def forward(self, x):
        self.seen = torch.cat([self.seen, x.detach()])
        return self.layer(x)


def test_buffers_keep_their_shape(strategy):
    with pytest.raises(RuntimeError, match=r"shape and dtype of buffer seen, \[1, 3\] .*\[7, 3\]"):
        ParticleModule(Grows, N)(torch.randn(N, 6, 3))


@pytest.mark.parametrize("rows", [6, 500])
def test_results_must_be_tensors(rows):
    class Nothing(Branch):
        def forward(self, x):
            return self.layer(x), None

    with pytest.raises(TypeError, match=r"Nothing: .* must return tensors, .*got NoneType"):
        ParticleModule(Nothing, N)(torch.randn(N, rows, 3))


def test_flat_rows_need_rows():
    class Total(Branch):
        def forward(self, x):
            return self.layer(x).sum()

    net = ParticleModule(Total, N, layout="flat")
    with pytest.raises(ValueError, match='layout="flat", Total must return one row per row'):
        net(torch.randn(N * 6, 3))
    assert ParticleModule(Total, N)(torch.randn(N, 6, 3)).shape == (N,)


def test_a_population_of_populations(strategy):
    net = ParticleModule(lambda: ParticleModule(mlp, 2), N)
    x = torch.randn(N, 2, 6, 3)
    torch.testing.assert_close(net(x), each(net, x)[0])
    inner = ParticleModule(lambda: ParticleModule(lambda: nn.GRU(3, 4), 2), N)
    for got, want in zip(inner(x), each(inner, x), strict=True):
        torch.testing.assert_close(got, want)


class InPlace(Branch):
    def forward(self, x):
        return self.layer(x.mul_(2))


class SecondInPlace(Branch):
    def forward(self, x, y):
        y += 1
        return self.layer(x + y)


@pytest.mark.parametrize("layout", ["leading", "flat"])
@pytest.mark.parametrize(
    ("factory", "inputs"),
    [(InPlace, 1), (SecondInPlace, 2), (lambda: nn.Sequential(InPlace(), nn.Tanh()), 1)],
    ids=["first", "second", "inside"],
)
def test_a_network_must_not_change_its_input(factory, inputs, layout, strategy):
    net = ParticleModule(factory, N, layout=layout)
    shape = (N, 6, 3) if layout == "leading" else (N * 6, 3)
    with pytest.raises(RuntimeError, match=r"ParticleModule: .* must leave its inputs as they are"):
        net(*(torch.randn(shape) for _ in range(inputs)))


def test_a_network_may_change_what_it_made(strategy):
    net = ParticleModule(lambda: nn.Sequential(nn.Linear(3, 3), InPlace()), N)
    x = torch.randn(N, 6, 3)
    torch.testing.assert_close(net(x), each(net, x)[0])


def test_inputs_of_inference_mode_have_no_versions(strategy):
    net = ParticleModule(mlp, N)
    x = torch.randn(N, 6, 3)
    with torch.inference_mode():
        torch.testing.assert_close(net(x.clone()), net(x))


def test_a_network_in_turn_compiles_without_graph_breaks():
    net = ParticleModule(with_hook(*HOOKS["on the output"], LAYERS["linear"]), N)
    x = torch.randn(N, 6, 3)
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), net(x))
