"""What every kernel must satisfy, as a test class to inherit from."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from torchrl_stein._torchrl import TorchDispatchMode, tree_leaves
from torchrl_stein.kernels import Kernel, RadialKernel

_MANY = 70  # more particles than are taken pair by pair in any number of dimensions


class KernelContract:
    """Inherit from this class in a test file and define :meth:`make_kernel`.

    pytest then checks symmetry, positive semi-definiteness, the closed-form repulsion against
    autograd in the first argument, batches against loops, coincident, single and many particles,
    bandwidths, dtypes, serialisation, permutations, algebra and memory. Checks run in float64
    where they compare numbers, on random points; the kernel must be deterministic.

    Attributes:
        stationary: whether k(x, y) depends on x - y only: the repulsion of a set on itself then
            sums to zero, and points that coincide do not push each other.
        dims: point dimensions to check. A kernel made for one d lists that one.
        large_dim: dimension of the memory check, that no [n, m, d] is formed; ``None`` skips it.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> class TestMyKernel(KernelContract):
        ...     def make_kernel(self):
        ...         return RBFKernel(bandwidth=2.0)
        >>> TestMyKernel().test_symmetric()
    """

    stationary: bool = True
    # Distances are a loop over few dimensions. In the last, those within one small set are taken
    # pair by pair, all others are products.
    dims: tuple[int, ...] = (1, 3, 12)
    large_dim: int | None = 20_000

    def make_kernel(self) -> Kernel:
        """A fresh kernel; of a class at module level, for pickle."""
        raise NotImplementedError(f"{type(self).__name__} must define make_kernel")

    def freeze(self, kernel: Kernel, x: Tensor, y: Tensor | None) -> Kernel:
        """A copy of the kernel that keeps what it derived from x and y for any other points.

        The default holds the bandwidth of every :class:`RadialKernel` inside. Override it if
        your kernel adapts to the data in another way.
        """
        frozen = copy.deepcopy(kernel)
        for module in frozen.modules():
            if isinstance(module, RadialKernel) and callable(module.rule):
                module.rule = ReplayedRule(module.rule)
        frozen(x, y)
        for module in frozen.modules():
            if isinstance(module, RadialKernel) and isinstance(module.rule, ReplayedRule):
                module.rule.replay()
        return frozen

    def test_slope_at_zero(self) -> None:
        """The profile of a radial kernel and its slope are finite where points coincide."""
        kernel = self.make_kernel()
        if isinstance(kernel, RadialKernel):
            for value in kernel.profile_and_slope(torch.zeros(1, dtype=torch.float64)):
                assert bool(value.isfinite().all()), (
                    "profile or its slope is not finite at t = 0; sqrt(t + 1e-12) has a slope there"
                )

    def test_symmetric(self) -> None:
        """k(x, y) = k(y, x) transposed."""
        for d in self.dims:
            x, y = _points(5, d), _points(4, d, seed=1)
            kernel = self.freeze(self.make_kernel(), x, y)
            assert_close(kernel(x, y), kernel(y, x).mT)

    def test_positive_semi_definite(self) -> None:
        """No eigenvalue of a Gram matrix is below zero by more than rounding."""
        for d in self.dims:
            x = _points(12, d)
            x = torch.cat([x, x[:2], x[:2] + 1e-6])  # repeated and nearly repeated points too
            eigenvalues = torch.linalg.eigvalsh(self.make_kernel()(x))
            # 1e-6 moves entries by about 1e-12 relative to float64's 1e-16 and distances' 1e-16.
            tolerance = 1e-10 * float(eigenvalues.abs().max())
            assert float(eigenvalues.min()) >= -tolerance, f"d={d}: {eigenvalues}"

    def test_batch_is_a_loop(self) -> None:
        """Leading dimensions are independent problems, each with its own bandwidth."""
        kernel = self.make_kernel()
        for d in self.dims:
            scale = torch.tensor([1.0, 2.0, 0.1], dtype=torch.float64)[:, None, None]
            x = _points(30, d).reshape(2, 3, 5, d) * scale
            y = _points(24, d, seed=1).reshape(2, 3, 4, d) * scale
            for target in (y, None):
                gram, repulsion = kernel.gram_and_repulsion(x, target)
                for b in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
                    i = tuple(b)
                    one = kernel.gram_and_repulsion(x[i], None if target is None else target[i])
                    assert_close((gram[i], repulsion[i]), one)

    def test_leading_dimensions_broadcast(self) -> None:
        """One set of points against a batch of others."""
        kernel = self.make_kernel()
        for d in self.dims:
            x, y = _points(15, d).reshape(3, 5, d), _points(12, d, seed=1).reshape(3, 4, d)
            want = kernel.gram_and_repulsion(x, y[:1].expand(3, 4, d))
            assert_close(kernel.gram_and_repulsion(x, y[0]), want)
            want = kernel.gram_and_repulsion(x[:1].expand(3, 5, d), y)
            assert_close(kernel.gram_and_repulsion(x[0], y), want)

    def test_repulsion_is_the_gradient_in_the_first_argument(self) -> None:
        """R_i = sum_j grad_{x_j} k(x_j, y_i), with a bandwidth from the data held fixed."""
        for x, y in self._sets():
            kernel = self.make_kernel()
            gram, repulsion = kernel.gram_and_repulsion(x, y)
            assert_close(gram, kernel(x, y))
            gradients = self._gradients(x, y)
            assert_close(repulsion, gradients.sum(0))

    def test_weighted_repulsion(self) -> None:
        """sum_j W_ji grad_{x_j} k(x_j, y_i): linear in W, and W = 1 is the plain sum."""
        for x, y in self._sets():
            evaluation = self.make_kernel().evaluate(x, y)
            v, w = _points(5, 5, seed=2), _points(5, 5, seed=3)
            v, w = v[:, : evaluation.gram.shape[-1]], w[:, : evaluation.gram.shape[-1]]
            repulsion = evaluation.weighted_repulsion
            assert_close(repulsion(torch.ones_like(w)), repulsion(None))
            assert_close(repulsion(2.0 * v - w), 2.0 * repulsion(v) - repulsion(w))
            assert_close(repulsion(w), (w[..., None] * self._gradients(x, y)).sum(0))

    def test_coincident_points(self) -> None:
        """Identical particles give finite values and gradients; stationary ones do not push."""
        for d in self.dims:
            for n in (1, 2, 5):
                for y in (None, torch.full((3, d), 0.7, dtype=torch.float64)):
                    x = torch.full((n, d), 0.7, dtype=torch.float64, requires_grad=True)
                    gram, repulsion = self.make_kernel().gram_and_repulsion(x, y)
                    (gradient,) = torch.autograd.grad(gram.sum(), x)
                    for name, value in (("k", gram), ("R", repulsion), ("dk/dx", gradient)):
                        assert bool(value.isfinite().all()), f"d={d} n={n}: {name} = {value}"
                    if self.stationary:
                        assert_close(repulsion, torch.zeros_like(repulsion), msg=_hint)
                        assert_close(gradient, torch.zeros_like(gradient), msg=_hint)

    def test_few_particles(self) -> None:
        """One or two particles are no special case."""
        for d in self.dims:
            for n in (1, 2):
                x = _points(n, d)
                for y in (None, _points(1, d, seed=1), _points(3, d, seed=1)):
                    gram, repulsion = self.make_kernel().gram_and_repulsion(x, y)
                    m = n if y is None else y.shape[0]
                    assert gram.shape == (n, m), f"gram {list(gram.shape)}, want {[n, m]}"
                    assert repulsion.shape == (m, d), f"repulsion {list(repulsion.shape)}"
                    assert bool(gram.isfinite().all()), f"gram {gram}"
                    assert bool(repulsion.isfinite().all()), f"repulsion {repulsion}"

    def test_many_particles(self) -> None:
        """The results for some particles do not depend on how many others there are."""
        x = _points(_MANY, self.dims[-1])
        kernel = self.make_kernel()
        frozen = self.freeze(kernel, x, None)
        gram, repulsion = kernel.gram_and_repulsion(x)
        assert_close(gram[:4, :4], frozen(x[:4]))
        assert_close((gram[:, :4], repulsion[:4]), frozen.gram_and_repulsion(x, x[:4].clone()))

    def test_bandwidth(self) -> None:
        """Evaluations carry a bandwidth if and only if the kernel says so."""
        kernel = self.make_kernel()
        x, y = _points(5, self.dims[-1]), _points(4, self.dims[-1], seed=1)
        for target in (None, y):
            found = kernel.evaluate(x, target).bandwidth
            assert (found is not None) == kernel.has_bandwidth, (
                f"{type(kernel).__name__}.has_bandwidth is {kernel.has_bandwidth}, but its "
                f"evaluation has the bandwidth {found}"
            )

    def test_dtype_and_device(self) -> None:
        """float32 in, float32 out, near the float64 values; the same for devices."""
        devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        for device in devices:
            for d in self.dims:
                want = self.make_kernel().gram_and_repulsion(_points(5, d))
                for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
                    kernel = self.make_kernel().to(device=device, dtype=dtype)
                    x = _points(5, d).to(device=device, dtype=dtype)
                    for value, exact in zip(kernel.gram_and_repulsion(x), want, strict=True):
                        assert value.dtype == dtype, f"{dtype} became {value.dtype}"
                        assert value.device.type == device, f"{device} became {value.device}"
                        difference = (value.cpu().double() - exact).abs().max()
                        assert float(difference) <= tolerance * max(1.0, float(exact.abs().max()))

    def test_state_dict_and_pickle(self) -> None:
        """A kernel survives both ways of storing it."""
        x = _points(5, self.dims[-1])
        kernel = self.make_kernel()
        fresh = self.make_kernel()
        fresh.load_state_dict(kernel.state_dict())
        assert_close(fresh.gram_and_repulsion(x), kernel.gram_and_repulsion(x))
        loaded: Any = pickle.loads(pickle.dumps(kernel))
        assert_close(loaded.gram_and_repulsion(x), kernel.gram_and_repulsion(x))

    def test_permutation_equivariant(self) -> None:
        """The order of the particles does not matter."""
        kernel = self.make_kernel()
        for d in self.dims:
            x, y = _points(5, d), _points(4, d, seed=1)
            p, q = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 0, 1])
            gram, repulsion = kernel.gram_and_repulsion(x, y)
            assert_close(kernel.gram_and_repulsion(x[p], y[q]), (gram[p][:, q], repulsion[q]))
            gram, repulsion = kernel.gram_and_repulsion(x)
            assert_close(kernel.gram_and_repulsion(x[p]), (gram[p][:, p], repulsion[p]))

    def test_self_set(self) -> None:
        """y = None is y = x, but for rules that then leave out the pairs (i, i)."""
        for d in self.dims:
            x = _points(5, d)
            kernel = self.make_kernel()
            frozen = self.freeze(kernel, x, None)
            assert_close(kernel.gram_and_repulsion(x), frozen.gram_and_repulsion(x, x.clone()))

    def test_stationary(self) -> None:
        """Invariant to translation, and the forces of a set on itself cancel."""
        if not self.stationary:
            return
        kernel = self.make_kernel()
        for d in self.dims:
            x, y = _points(5, d), _points(4, d, seed=1)
            shifted = kernel.gram_and_repulsion(x + 3.0, y + 3.0)
            assert_close(shifted, kernel.gram_and_repulsion(x, y), msg=_hint)
            total = kernel.gram_and_repulsion(x)[1].sum(0)
            assert_close(total, torch.zeros_like(total), rtol=0.0, atol=1e-12)

    def test_composes(self) -> None:
        """Scaling, sums and products follow the rules of differentiation."""
        kernel = self.make_kernel()
        for x, y in self._sets():
            gram, gradients = kernel(x, y), self._gradients(x, y)
            total = (0.5 * kernel + kernel).gram_and_repulsion(x, y)
            assert_close(total, (1.5 * gram, 1.5 * gradients.sum(0)))
            square = (kernel * kernel).gram_and_repulsion(x, y)
            assert_close(square, (gram**2, (2.0 * gram[..., None] * gradients).sum(0)))

    def test_input_unchanged(self) -> None:
        """Nothing is written into the points."""
        x, y = _points(5, self.dims[-1]), _points(4, self.dims[-1], seed=1)
        before = x.clone(), y.clone()
        self.make_kernel().gram_and_repulsion(x, y)
        assert torch.equal(x, before[0]), "x was changed in place"
        assert torch.equal(y, before[1]), "y was changed in place"

    def test_memory(self) -> None:
        """No tensor of size [n, m, d] for large d."""
        if self.large_dim is None:
            return
        n, d = 16, self.large_dim
        kernel = self.make_kernel().float()
        for y in (None, _points(n, d, seed=1).float()):
            x = _points(n, d).float()
            with LargestTensor() as largest:
                kernel.gram_and_repulsion(x, y)
            # A float64 copy of [n, d] counts twice; [n, n, d] would count sixteen times.
            limit = 4 * x.nbytes
            assert largest.bytes <= limit, (
                f"{type(kernel).__name__} holds a tensor of [n, m, d] or nearly so "
                f"({largest.bytes} bytes; x [n, d] has {x.nbytes}); use a matrix product or cdist, "
                "or set large_dim = None in the class"
            )

    def _sets(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Two sets and one set with itself, in every dimension."""
        for d in self.dims:
            yield _points(5, d), _points(4, d, seed=1)
            yield _points(5, d), None

    def _gradients(self, x: Tensor, y: Tensor | None) -> Tensor:
        """grad_{x_j} k(x_j, y_i) by autograd through ``forward``, ``[n, m, d]``."""
        frozen = self.freeze(self.make_kernel(), x, y)
        target = x.clone() if y is None else y
        # The Jacobian of the column k(., y_i): [n, n, d], of which row j depends on x_j only.
        columns = [
            torch.func.jacrev(lambda points, i=i: frozen(points, target[i : i + 1])[:, 0])(x)
            for i in range(target.shape[0])
        ]
        own = torch.arange(x.shape[0])
        return torch.stack([jacobian[own, own] for jacobian in columns], 1)


def _hint(message: str) -> str:
    return f"{message}\nIf k(x, y) is no function of x - y, set stationary = False in the class."


def _points(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


class ReplayedRule:
    """A bandwidth rule that records its answers, then repeats them whatever the points are."""

    def __init__(self, rule: Callable[[Tensor, int], Tensor]) -> None:
        self.rule = rule
        self.answers: list[Tensor] = []
        self.replayed: Iterator[Tensor] | None = None

    def replay(self) -> None:
        """Stop recording; from now on give the recorded answers in turn."""
        self.replayed = itertools.cycle(self.answers)

    def __call__(self, pairs: Tensor, n: int) -> Tensor:
        """Record the answer of the rule, or repeat one."""
        if self.replayed is not None:
            return next(self.replayed)
        self.answers.append(self.rule(pairs, n))
        return self.answers[-1]


class LargestTensor(TorchDispatchMode):
    """Context that records the size in ``bytes`` of the largest tensor any operation returns.

    Example:
        >>> with LargestTensor() as largest:
        ...     _ = torch.zeros(10) + torch.zeros(3, 1)
        >>> largest.bytes  # [3, 10] in float32
        120
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and look at the memory behind its result; views add nothing."""
        result = func(*args, **(kwargs or {}))
        tensors = (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self.bytes = max([self.bytes, *(one.untyped_storage().nbytes() for one in tensors)])
        return result
