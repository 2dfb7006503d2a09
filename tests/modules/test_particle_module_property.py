"""A population is n networks: for generated networks, sizes and modes, it gives what they give."""

import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tensordict.nn import AddStateIndependentNormalScale, NormalParamExtractor
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map
from torchrl.modules import MLP

from torchrl_stein.modules import ParticleModule, SigmoidTanh

# Both sides of the switch between all particles at once and one after the other.
ROWS = [0, 1, 2, 5, 399, 400, 401, 450]


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return x + self.layer(x).tanh()


class Branching(Residual):
    """Decides by what it sees, which torch.vmap cannot."""

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class Centring(Residual):
    """Replaces a buffer at every call."""

    def __init__(self, width):
        super().__init__(width)
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, x):
        y = x - self.mean
        self.mean = 0.9 * self.mean + 0.1 * x.detach().reshape(-1, x.shape[-1]).sum(0)
        return super().forward(y)


class Counting(Residual):
    """Changes a buffer in place."""

    def __init__(self, width):
        super().__init__(width)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        return super().forward(x) / self.calls


class Damping(Residual):
    """Scales gradients where there are some."""

    def forward(self, x):
        y = super().forward(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: 0.5 * gradient)
        return y


class Wrapped(nn.Sequential):
    """A Sequential that does more than its layers."""

    def forward(self, x):
        return 2.0 * super().forward(x)


class Pair(nn.Module):
    """Takes the tuple of the layer before it."""

    def forward(self, pair):
        loc, scale = pair
        return loc, scale.clamp(0.5, 0.9)


class First(nn.Module):
    def forward(self, results):
        return results[0]


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


ACTIVATIONS = [nn.Tanh, SigmoidTanh, nn.ReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Identity]
ACTIVATIONS += [nn.LeakyReLU, nn.Sigmoid, nn.PReLU, nn.Dropout, nn.Hardtanh, lambda: nn.Softmax(-1)]
KEEPING_WIDTH = {
    "layer norm": nn.LayerNorm,
    "batch norm": nn.BatchNorm1d,
    "cumulative batch norm": lambda width: nn.BatchNorm1d(width, momentum=None),
    "weight norm": lambda width: weight_norm(nn.Linear(width, width)),
    "spectral norm": lambda width: spectral_norm(nn.Linear(width, width)),
    "gru": lambda width: nn.Sequential(nn.GRU(width, width), First()),
    "attention": lambda width: nn.TransformerEncoderLayer(width, 1, 4, dropout=0.0),
    "residual": Residual,
    "branching": Branching,
    "centring": Centring,
    "counting": Counting,
    "damping": Damping,
    "subclass": lambda width: Wrapped(nn.Linear(width, width), nn.Tanh()),
    "nested": lambda width: nn.Sequential(nn.Sequential(nn.Linear(width, width)), nn.ReLU()),
    "unflatten": lambda width: nn.Sequential(nn.Unflatten(-1, (1, width)), nn.Flatten(-2)),
}
ENDS = {
    "tensor": lambda width: [],
    "matrix": lambda width: [MLP(width, (2, 3), num_cells=[5])],
    "pair": lambda width: [nn.Linear(width, 4), NormalParamExtractor()],
    "clamped pair": lambda width: [nn.Linear(width, 4), NormalParamExtractor(), Pair()],
    "free scale": lambda width: [AddStateIndependentNormalScale(width)],
    "tuple of one": lambda width: [Returns(lambda x: (x,))],
    "list": lambda width: [Returns(lambda x: [x, x.exp()])],
    "dict": lambda width: [Returns(lambda x: {"loc": x, "more": (x.sin(),)})],
    "number": lambda width: [Returns(lambda x: x.sum())],
    "nothing": lambda width: [Returns(lambda x: None)],
    "a pair where a tensor is wanted": lambda width: [
        nn.Linear(width, 4), NormalParamExtractor(), nn.Tanh()
    ],
}  # fmt: skip


@st.composite
def factories(draw):
    """Functions that make a network of inputs ``[..., 3]``."""
    width, makers = 3, []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["linear", "mlp", "activation", "activation", *KEEPING_WIDTH]))
        event(kind)
        if kind == "linear":
            out, bias = draw(st.integers(1, 4)), draw(st.booleans())
            makers.append(lambda a=width, b=out, c=bias: nn.Linear(a, b, bias=c))
            width = out
        elif kind == "mlp":
            out, norm = draw(st.integers(1, 4)), draw(st.sampled_from([None, nn.LayerNorm]))
            options = (
                {} if norm is None else {"norm_class": norm, "norm_kwargs": {"normalized_shape": 6}}
            )
            makers.append(lambda a=width, b=out, o=options: MLP(a, b, num_cells=[6], **o))
            width = out
        elif kind == "activation":
            makers.append(draw(st.sampled_from(ACTIVATIONS)))
        else:
            makers.append(lambda a=width, make=KEEPING_WIDTH[kind]: make(a))
    again, end = draw(st.booleans()), draw(st.sampled_from([*["tensor"] * 4, *ENDS]))
    event(end)

    def make():
        layers = [nn.Linear(3, 3), *(maker() for maker in makers)]
        if again:  # one activation at several places
            activation = nn.Tanh()
            layers = [part for layer in layers for part in (layer, activation)]
        return nn.Sequential(*layers, *ENDS[end](width))

    return make


def outcome(call, *inputs):
    """What a call returns, or the kind of its error."""
    try:
        return call(*inputs), None
    except Exception as error:
        return None, type(error)


def loss(output):
    return sum((leaf * torch.linspace(0.5, 1.5, leaf.numel()).to(leaf).view_as(leaf)).sum()
               for leaf in tree_leaves(output))  # fmt: skip


def each(nets, x):
    outputs = [net(row) for net, row in zip(nets, x.unbind(0), strict=True)]
    return tree_map(lambda *rows: torch.stack(rows), *outputs)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    make=factories(),
    n=st.integers(1, 3),
    rows=st.sampled_from(ROWS),
    extra=st.sampled_from([(), (), (), (1,), (2,)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    training=st.booleans(),
    with_grad=st.booleans(),
)
def test_a_population_gives_what_its_networks_give(
    make, n, rows, extra, dtype, training, with_grad
):
    torch.manual_seed(0)
    net = ParticleModule(make, n).to(dtype).train(training)
    for layer in net._template.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    nets = [net.particle(i) for i in range(n)]
    close = {"rtol": 1e-9, "atol": 1e-9} if dtype is torch.float64 else {"rtol": 1e-3, "atol": 1e-4}
    with torch.set_grad_enabled(with_grad):
        for _ in range(2):  # the second call sees what the first did to buffers
            x = torch.randn(n, *extra, rows, 3, dtype=dtype)
            ours, theirs = (x.clone().requires_grad_(with_grad) for _ in range(2))
            got, error = outcome(net, ours)
            want, expected = outcome(each, nets, theirs)
            assert error is expected
            if error is not None:
                return
            assert tree_flatten(got)[1] == tree_flatten(want)[1]
            torch.testing.assert_close(tree_leaves(got), tree_leaves(want), **close)
            for i, plain in enumerate(nets):
                buffers = dict(net.particle(i).named_buffers())
                torch.testing.assert_close(buffers, dict(plain.named_buffers()), **close)
    if with_grad:
        loss(got).backward()
        loss(want).backward()
        torch.testing.assert_close(ours.grad, theirs.grad, **close)
        for row, plain in zip(net.particles.grad, nets, strict=True):
            flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in plain.parameters()]
            torch.testing.assert_close(row, torch.cat([g.reshape(-1) for g in flat]), **close)
