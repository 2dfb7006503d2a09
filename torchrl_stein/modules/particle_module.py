"""n networks of one architecture as one module with one flat parameter."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from torchrl_stein._checks import check_choice, check_count, check_particles, check_type
from torchrl_stein._torchrl import number_of_changes, tree_map

from ._layout import ParticleLayout, check_factory, lay_out
from ._population_forward import call_population

__all__ = ["ParticleModule"]

# Rows per particle above which, on a CPU, one network at a time is faster than all at once: the
# activations of n networks no longer fit in the cache.
_ROWS_IN_TURN = 400
_STEPS = {"modules", "named_modules", "children", "named_children"}
# They walk over modules for parameters, modes and hooks, of which a population takes care.
_LIBRARIES = {"torch", "tensordict", "torchrl", "torchrl_stein"}


class ParticleModule(nn.Module):
    """A population: n networks of one architecture, each fed its own row of the input.

    Particle i sees ``input[i]`` and nothing else. All weights are one contiguous parameter
    ``particles`` ``[n, d]``, so that an optimizer step is one fused call and a Stein step one pair
    of matrix products. Wrap it in TensorDictModule, ProbabilisticActor or ValueOperator and hand
    these to any TorchRL loss, once: it sees data of batch size ``[n, ...]``. With an environment
    of batch size ``[n, E]``, row i of the environment belongs to particle i.

    The networks are drawn independently, by calling ``factory`` n times; copies of one network
    would never feel a repulsion. Outputs, gradients and buffers are exactly those of n separate
    calls of :meth:`particle`; random layers (dropout) draw differently for each particle. All
    particles pass at once where the layers allow it, else one after the other: hooks, recurrent
    layers, attention, spectral normalization, what ``torch.vmap`` lacks, large batches on a CPU.
    Hooks and attributes are those of the first network and serve all.

    ``apply(fn)`` reaches the layers of every particle; ``modules()`` does not show them, and warns
    loops that look for them.

    S independent seeds of a population are one module too: with ``num_particles=(S, n)``,
    ``particles`` is ``[S, n, d]``, inputs and data are ``[S, n, ...]``, and what couples particles
    (kernels, losses, birth and death) does so within each seed.

    Args:
        factory: returns a new, independently initialised network, whose inputs are tensors and
            whose output is one or a tuple, list or dict of such.
        num_particles: n, or a pair (S, n).
        shared: names of parameters, or of submodules, that all particles have in common: a trunk.
            They are the parameter ``shared`` ``[s]``, drawn by the first call of ``factory``; a
            loss that averages over particles averages their gradients.
        outside_kernel: names of parameters, or of submodules, that belong to each particle but
            that a kernel shall not see: they get their own gradient and no repulsion. Meant for
            scale parameters: a log-standard-deviation repelled like a weight diverges.
        layout: ``"leading"`` for inputs ``[n, ..., F]``; ``"flat"`` for ``[n * E, ..., F]``, rows
            ordered particle by particle, as flat vectors of simulators have them.

    Attributes:
        particles: ``[n, d]``; first the columns that a kernel sees, then those outside.
        shared: ``[s]``, or None.
        num_particles: n.
        num_parameters: d.
        kernel_dim: number of leading columns of ``particles`` that a kernel sees.
        layer_slices: name of a layer -> its slice of those columns.

    Raises:
        TypeError, ValueError: for arguments of another kind or out of range, names that match no
            parameter, networks that are identical, or differ in more than weights and buffers, or
            have tied, lazy, frozen or no parameters, several dtypes or devices, or layers that
            change their input or weights in place; in ``forward``, for inputs that do not begin
            with the leading dimensions (rows that are no multiple of n for ``"flat"``), and what is
            no tensor.
        RuntimeError: in ``forward``, if a network changes an input in place (not looked for in
            inference mode and when compiled), or keeps a tensor or number from one call to the
            next that is no buffer.

    Source: particles of Liu et al. 2017 (arXiv:1704.02399), section 4.

    Example:
        >>> net = ParticleModule(lambda: nn.Linear(3, 2), num_particles=4)
        >>> net.particles.shape, net(torch.zeros(4, 10, 3)).shape
        (torch.Size([4, 8]), torch.Size([4, 10, 2]))
        >>> net.particle(1)
        Linear(in_features=3, out_features=2, bias=True)
    """

    particles: Tensor
    shared: Tensor | None
    _template: nn.Module
    _spec: ParticleLayout

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        num_particles: int | tuple[int, ...],
        *,
        shared: Sequence[str] = (),
        outside_kernel: Sequence[str] = (),
        layout: str = "leading",
    ) -> None:
        super().__init__()
        check_factory(factory)
        leading = check_particles("ParticleModule", num_particles)
        check_choice("ParticleModule", ("leading", "flat"), layout=layout)
        if shared and len(leading) > 1:
            raise ValueError(
                "ParticleModule: shared must be empty for several seeds, which have nothing in "
                f"common, got {list(shared)}"
            )
        self.layout, self._num_leading = layout, len(leading)
        nets = [factory() for _ in range(leading.numel())]
        self._spec = lay_out(nets, shared=shared, outside_kernel=outside_kernel)
        rows = torch.stack([self._spec.flatten(net) for net in nets])
        self.particles = nn.Parameter(rows.unflatten(0, leading))
        self.shared = nn.Parameter(self._spec.flatten_shared(nets[0])) if shared else None
        for name in self._spec.buffers:
            rows = torch.stack([net.get_buffer(name).detach() for net in nets])
            self.register_buffer(_buffer_key(name), rows.unflatten(0, leading))
        _check_distinct(
            self.particles.detach(),
            "factory must return an independently initialised network at every call (was a seed "
            "set inside it?)",
        )
        # Not a submodule: its weights are only a mould. It follows train() and deepcopy.
        self.__dict__["_template"] = nets[0]
        self.training = nets[0].training

    @property
    def num_particles(self) -> int:
        """n, of one seed."""
        return self.particles.shape[-2]

    @property
    def leading(self) -> torch.Size:
        """``(n,)`` or ``(S, n)``: the first dimensions of inputs, outputs and data."""
        return self.particles.shape[-1 - self._num_leading : -1]

    @property
    def num_parameters(self) -> int:
        """d, parameters of one particle without the shared ones."""
        return self._spec.num_parameters

    @property
    def kernel_dim(self) -> int:
        """Number of leading columns of ``particles`` that a kernel sees."""
        return self._spec.kernel_dim

    @property
    def layer_slices(self) -> dict[str, slice]:
        """Columns of each layer, among those that a kernel sees."""
        return self._spec.layer_slices()

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Apply network i to row i of every input; outputs have the same leading dimensions."""
        rows = tuple(self._as_rows(str(i), value) for i, value in enumerate(inputs))
        named_rows = {name: self._as_rows(name, value) for name, value in named.items()}
        given = (*inputs, *named.values())
        versions = _versions(given)
        state, per_particle = self._state()
        pays = _in_turn_pays(*rows, *named_rows.values())
        output = call_population(
            self._template, state, per_particle, rows, named_rows, in_turn=pays
        )
        if _versions(given) != versions:
            raise RuntimeError(
                f"ParticleModule: {type(self._template).__name__} must leave its inputs as they "
                "are, got a change in place, which changed the caller's data too; write x * 2 "
                "for x.mul_(2)"
            )
        if self.layout == "flat":
            return tree_map(self._flattened, output)
        if self._num_leading == 1:
            return output
        return tree_map(lambda value: value.unflatten(0, self.leading), output)

    def particle(self, *index: int) -> nn.Module:
        """A plain module with a copy of the weights and buffers of one particle.

        Args:
            *index: ``i``, or ``s, i`` where there are S seeds; an IndexError if there is none.
        """
        for number in index:
            check_count("ParticleModule.particle", at_least=None, index=number)
        if len(index) != self._num_leading:
            raise ValueError(
                f"ParticleModule.particle: index must have one number for each of the dimensions "
                f"{list(self.leading)}, got {list(index)}"
            )
        return self._filled(deepcopy(self._template), *index)

    def seed(self, index: int) -> ParticleModule:
        """The population ``[n, d]`` of one of S seeds, a copy.

        Example:
            >>> ParticleModule(lambda: nn.Linear(3, 2), (5, 4)).seed(2).particles.shape
            torch.Size([4, 8])
        """
        check_count("ParticleModule.seed", at_least=None, index=index)
        if self._num_leading == 1:
            raise ValueError(
                "ParticleModule.seed: num_particles must be a pair (S, n), got n alone"
            )
        chosen = self._indexed(index)
        chosen._num_leading = 1
        return chosen

    def select(self, indices: Sequence[int] | Tensor) -> ParticleModule:
        """A population made of copies of some particles (of each seed), in the given order.

        Args:
            indices: ``[k]``, of particles; an IndexError if there is none.

        Example:
            >>> ParticleModule(lambda: nn.Linear(3, 2), 4).select([2, 0]).num_particles
            2
        """
        index = torch.as_tensor(indices, device=self.particles.device).reshape(-1)
        if index.numel() == 0:
            raise ValueError("ParticleModule.select: indices must name a particle, got none")
        if index.dtype in (torch.bool, torch.uint8) or index.dtype.is_floating_point:
            raise TypeError(
                f"ParticleModule.select: indices must be integers, got dtype {index.dtype}"
            )
        return self._indexed(*[slice(None)] * (self._num_leading - 1), index)

    def apply(self, fn: Callable[[nn.Module], Any]) -> ParticleModule:
        """Call a function on every layer of every particle, then on this module.

        As ``nn.Module.apply`` on each network: for weights of one's own, such as orthogonal ones.

        Example:
            >>> def start_at_zero(layer):
            ...     if isinstance(layer, nn.Linear):
            ...         nn.init.zeros_(layer.bias)
            >>> ParticleModule(lambda: nn.Linear(3, 2), 4).apply(start_at_zero).particle(2).bias
            Parameter containing:
            tensor([0., 0.], requires_grad=True)
        """
        self._change(lambda net: net.apply(fn))
        fn(self)
        return self

    def reset_parameters(self) -> None:
        """Draw every particle again, by the ``reset_parameters`` of its layers.

        Weights of layers without such a method stay, as in one network; without any it is a
        RuntimeError. TorchRL's ``reset_parameters_recursive`` comes here.
        """
        if not any(hasattr(layer, "reset_parameters") for layer in self._template.modules()):
            raise RuntimeError(
                f"ParticleModule: {type(self._template).__name__} has no layer with "
                "reset_parameters(); make a new population"
            )
        self._change(lambda net: net.apply(_reset))
        _check_distinct(self.particles.detach(), "reset_parameters() of its layers must be random")

    def train(self, mode: bool = True) -> ParticleModule:
        """Training or evaluation mode, also of the layers of the networks."""
        self._template.train(mode)
        return super().train(mode)

    def get_extra_state(self) -> dict[str, Any]:
        """Names and shapes of the columns: what the flat tensor means."""
        return self._spec.describe()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse weights of another architecture of the same size."""
        if state != self._spec.describe():
            raise ValueError(
                "ParticleModule: the state_dict belongs to another architecture: "
                f"{state} there, {self._spec.describe()} here"
            )

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        template = str(self._template).replace("\n", "\n  ")
        size = self.num_particles if self._num_leading == 1 else tuple(self.leading)
        return f"num_particles={size}, particle={template}"

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """This module alone; warns loops that look for layers."""
        yield from super().named_modules(*args, **kwargs)
        _warn_who_loops()  # now that they go on: who looked for a population has found it

    def named_children(self) -> Iterator[Any]:
        """Nothing; warns loops that look for layers."""
        _warn_who_loops()
        yield from super().named_children()

    def _indexed(self, *index: Any) -> ParticleModule:
        """A copy with some of the particles and their buffers."""
        chosen = deepcopy(self)
        chosen.particles = nn.Parameter(self.particles.detach()[index].clone())
        for name in self._spec.buffers:
            key = _buffer_key(name)
            chosen.register_buffer(key, getattr(self, key)[index].clone())
        return chosen

    def _as_rows(self, name: str, value: Tensor) -> Tensor:
        """An input as one row for each network, of all seeds."""
        leading = self.leading
        count = leading.numel()
        check_type("ParticleModule", "a tensor", Tensor, **{f"input {name}": value})
        if self.layout == "flat" and value.ndim > 0 and value.shape[0] % count == 0:
            return value.unflatten(0, (count, value.shape[0] // count))
        if self.layout == "leading" and value.shape[: len(leading)] == leading:
            return value if len(leading) == 1 else value.flatten(0, 1)
        expected = f"dimension of input {name} must be {count} (one row per particle)"
        if self.layout == "flat":
            expected = (
                f"dimension of input {name} must be a multiple of {count} (rows ordered particle "
                "by particle)"
            )
        elif len(leading) > 1:
            expected = f"dimensions of input {name} must be {list(leading)} (seeds and particles)"
        raise ValueError(f"ParticleModule: the leading {expected}, got shape {list(value.shape)}")

    def _flattened(self, value: Tensor) -> Tensor:
        if value.ndim < 2:
            raise ValueError(
                f'ParticleModule: for layout="flat", {type(self._template).__name__} must return '
                "one row per row of its input, got a tensor without dimensions"
            )
        return value.flatten(0, 1)

    def _filled(self, net: nn.Module, *index: int) -> nn.Module:
        """The network with the weights and buffers of one particle."""
        net.to(device=self.particles.device, dtype=self.particles.dtype)
        state = self._spec.split(self.particles[index])
        if self.shared is not None:
            state |= self._spec.split_shared(self.shared[index[:-1]])
        state |= {name: getattr(self, _buffer_key(name))[index] for name in self._spec.buffers}
        own = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)
        return net

    def _change(self, fn: Callable[[nn.Module], Any]) -> None:
        """Let something happen to every network, and take over their weights and buffers."""
        # Of an ensemble of populations, whose parameters a loss lends us, all [N, n] networks.
        indices = list(product(*map(range, self.particles.shape[:-1])))
        # The mould stands for the first: it keeps what else happens to a network.
        nets = [self._template, *(deepcopy(self._template) for _ in indices[1:])]
        for net, index in zip(nets, indices, strict=True):
            fn(self._filled(net, *index))
        _put([self._spec.flatten(net) for net in nets], self.particles)
        if self.shared is not None:
            first = [net for net, index in zip(nets, indices, strict=True) if index[-1] == 0]
            _put([self._spec.flatten_shared(net) for net in first], self.shared)
        for name in self._spec.buffers:
            _put([net.get_buffer(name) for net in nets], getattr(self, _buffer_key(name)))

    def _state(self) -> tuple[dict[str, Tensor], set[str]]:
        # By attribute and not from _parameters: a loss swaps in tensors that are no parameters.
        several = self._num_leading > 1
        state = self._spec.split(self.particles.flatten(0, 1) if several else self.particles)
        for name in self._spec.buffers:
            rows = getattr(self, _buffer_key(name))
            # A view, through which networks write to the buffer.
            state[name] = rows.view(-1, *rows.shape[2:]) if several else rows
        per_particle = set(state)
        if self.shared is not None:
            state |= self._spec.split_shared(self.shared)
        return state, per_particle


def _buffer_key(name: str) -> str:
    return "buffer/" + name.replace(".", "/")  # dots are not allowed in names of buffers


def _in_turn_pays(*rows: Tensor) -> bool:
    if torch.compiler.is_compiling() or not rows:
        return False
    first = rows[0]
    return first.device.type == "cpu" and prod(first.shape[1:-1]) > _ROWS_IN_TURN


def _versions(inputs: tuple[Tensor, ...]) -> list[int]:
    # Each counts the changes in place of a tensor and its views, without waiting for a device.
    if torch.compiler.is_compiling():
        return []
    return [number_of_changes(value) for value in inputs if not value.is_inference()]


def _reset(layer: nn.Module) -> None:
    reset: Any = getattr(layer, "reset_parameters", None)
    if reset is not None:
        reset()


@torch.no_grad()
def _put(rows: list[Tensor], where: Tensor) -> None:
    # Not where nothing has changed: a function that only looks must not spoil a backward pass.
    values = torch.stack(rows).to(where).view_as(where)
    if not torch.equal(values, where):
        where.copy_(values)


def _check_distinct(particles: Tensor, remedy: str) -> None:
    rows = particles.flatten(0, -2)
    _, count = torch.unique(rows, dim=0, return_counts=True)
    if count.numel() < len(rows):
        raise ValueError(f"ParticleModule: {int(count.max())} particles are identical; {remedy}")


def _warn_who_loops() -> None:
    """Warn code outside of the libraries that walks over modules, from a method that lists them.

    The usual loop that initialises layers, ``for layer in actor.modules()``, finds none here and
    does nothing. Only the stack tells who asks: the same methods serve all that torch does.
    """
    if torch.compiler.is_compiling():
        return
    depth = 2
    while sys._getframe(depth).f_code.co_name in _STEPS:
        depth += 1
    caller = sys._getframe(depth).f_globals.get("__name__", "")
    if caller.partition(".")[0] not in _LIBRARIES:
        warnings.warn(
            "ParticleModule: a loop over modules finds no layers of particles, whose weights are "
            "one parameter; apply(fn) calls a function on every layer of every particle, "
            "reset_parameters() draws all anew",
            stacklevel=depth + 1,
        )
