"""n networks of one architecture as one module with one flat parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ._particle_layout import ParticleLayout, check_factory, lay_out
from ._population_forward import Output, evaluate_batched, evaluate_in_turn, needs_its_turn

__all__ = ["ParticleModule"]

# Rows per particle above which, on a CPU, one network at a time is faster than all at once: the
# activations of n networks no longer fit in the cache.
_ROWS_IN_TURN = 400


class ParticleModule(nn.Module):
    """A population: n networks of one architecture, each fed its own row of the input.

    Particle i sees ``input[i]`` and nothing else. All weights are one contiguous parameter
    ``particles`` ``[n, d]``, so that an optimizer step is one fused call and a Stein step one pair
    of matrix products. Wrap it in TensorDictModule, ProbabilisticActor or ValueOperator and hand
    these to any TorchRL loss, once: it sees data of batch size ``[n, ...]``. With an environment
    of batch size ``[n, E]``, row i of the environment belongs to particle i.

    The networks are drawn independently, by calling ``factory`` n times; copies of one network
    would never feel a repulsion. Random layers (dropout) draw differently for each particle.
    On a CPU, large batches go through the networks one after the other, which is faster there;
    networks with hooks (those of the first network serve all), recurrent layers or spectral
    normalization always do.

    Args:
        factory: returns a new, independently initialised network, whose inputs and outputs are
            tensors (several outputs: a tuple).
        num_particles: n.
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
        ValueError: if ``num_particles`` < 1; if ``layout`` is unknown; if a name matches no
            parameter; if two particles come out identical; if a network has tied, lazy, frozen or
            no parameters, mixes dtypes or devices, or has a layer that changes its input in
            place; in ``forward``, if the leading dimension of an input is not n (not a multiple
            of n for ``"flat"``).
        TypeError: if ``factory`` is not callable or returns no module.
        RuntimeError: in ``forward``, if a network changes an input in place (not looked for in
            inference mode and when compiled), or has operations that ``torch.vmap`` lacks.

    Source: particles of Liu et al. 2017 (arXiv:1704.02399), section 4.

    Example:
        >>> import torch
        >>> from torch import nn
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
        num_particles: int,
        *,
        shared: Sequence[str] = (),
        outside_kernel: Sequence[str] = (),
        layout: str = "leading",
    ) -> None:
        super().__init__()
        check_factory(factory)
        if isinstance(num_particles, bool) or not isinstance(num_particles, int):
            raise TypeError(f"ParticleModule: num_particles must be an int, got {num_particles!r}")
        if num_particles < 1:
            raise ValueError(f"ParticleModule: num_particles must be >= 1, got {num_particles}")
        if layout not in ("leading", "flat"):
            raise ValueError(f"ParticleModule: layout must be 'leading' or 'flat', got {layout!r}")
        self.layout = layout
        nets = [factory() for _ in range(num_particles)]
        self._spec = lay_out(nets, shared=shared, outside_kernel=outside_kernel)
        self.particles = nn.Parameter(torch.stack([self._spec.flatten(net) for net in nets]))
        self.shared = nn.Parameter(self._spec.flatten_shared(nets[0])) if shared else None
        for name in self._spec.buffers:
            rows = torch.stack([net.get_buffer(name).detach() for net in nets])
            self.register_buffer(_buffer_key(name), rows)
        if num_particles > 1:
            _check_distinct(self.particles.detach())
        # Not a submodule: its weights are only a mould. It follows train() and deepcopy.
        self.__dict__["_template"] = nets[0]

    @property
    def num_particles(self) -> int:
        """n."""
        return self.particles.shape[0]

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

    def forward(self, *inputs: Tensor) -> Output:
        """Apply network i to row i.

        Args:
            *inputs: ``[n, ..., F]`` each (``[n * E, ..., F]`` for ``layout="flat"``).

        Returns:
            The networks' outputs, with the same leading dimensions.
        """
        rows = tuple(self._as_rows(i, value) for i, value in enumerate(inputs))
        versions = _versions(inputs)
        output = self._evaluate(rows)
        if _versions(inputs) != versions:
            raise RuntimeError(
                f"ParticleModule: {type(self._template).__name__} must leave its inputs as they "
                "are, got a change in place, which changed the caller's data too; write x * 2 "
                "for x.mul_(2)"
            )
        if self.layout == "leading":
            return output
        if isinstance(output, Tensor):
            return output.flatten(0, 1)
        return tuple(value.flatten(0, 1) for value in output)

    def particle(self, index: int) -> nn.Module:
        """A plain module with a copy of the weights and buffers of one particle.

        Args:
            index: of the particle.

        Raises:
            IndexError: if there is no such particle.
        """
        net = deepcopy(self._template)
        with torch.no_grad():
            device, dtype = self.particles.device, self.particles.dtype
            net.to(device=device, dtype=dtype).train(self.training)
            for name, value in self._spec.split(self.particles[index]).items():
                net.get_parameter(name).copy_(value)
            if self.shared is not None:
                for name, value in self._spec.split_shared(self.shared).items():
                    net.get_parameter(name).copy_(value)
            for name in self._spec.buffers:
                net.get_buffer(name).copy_(getattr(self, _buffer_key(name))[index])
        return net

    def select(self, indices: Sequence[int] | Tensor) -> ParticleModule:
        """A population made of copies of some particles, in the given order.

        Args:
            indices: ``[k]``, of particles.

        Raises:
            IndexError: if there is no such particle.

        Example:
            >>> from torch import nn
            >>> ParticleModule(lambda: nn.Linear(3, 2), 4).select([2, 0]).num_particles
            2
        """
        index = torch.as_tensor(indices, device=self.particles.device).reshape(-1)
        chosen = deepcopy(self)
        chosen.particles = nn.Parameter(self.particles.detach()[index].clone())
        for name in self._spec.buffers:
            key = _buffer_key(name)
            chosen.register_buffer(key, getattr(self, key)[index].clone())
        return chosen

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
        return f"num_particles={self.num_particles}, particle={template}"

    def _as_rows(self, position: int, value: Tensor) -> Tensor:
        n = self.num_particles
        if self.layout == "flat" and value.ndim > 0 and value.shape[0] % n == 0:
            return value.unflatten(0, (n, -1))
        if self.layout == "leading" and value.ndim > 0 and value.shape[0] == n:
            return value
        expected = f"{n} (one row per particle)"
        if self.layout == "flat":
            expected = f"a multiple of {n} (rows ordered particle by particle)"
        raise ValueError(
            f"ParticleModule: the leading dimension of input {position} must be {expected}, "
            f"got shape {list(value.shape)}"
        )

    def _evaluate(self, rows: tuple[Tensor, ...]) -> Output:
        state, per_particle = self._state()
        in_turn = needs_its_turn(self._template) or _in_turn_pays(rows[0])
        evaluate = evaluate_in_turn if in_turn else evaluate_batched
        return evaluate(self._template, state, per_particle, *rows)

    def _state(self) -> tuple[dict[str, Tensor], set[str]]:
        # By attribute and not from _parameters: a loss swaps in tensors that are no parameters.
        state = self._spec.split(self.particles)
        for name in self._spec.buffers:
            state[name] = getattr(self, _buffer_key(name))
        per_particle = set(state)
        if self.shared is not None:
            state |= self._spec.split_shared(self.shared)
        return state, per_particle


def _buffer_key(name: str) -> str:
    return "buffer/" + name.replace(".", "/")  # dots are not allowed in names of buffers


def _in_turn_pays(rows: Tensor) -> bool:
    if rows.device.type != "cpu" or torch.compiler.is_compiling() or rows.ndim < 3:
        return False
    return rows[0, ..., 0].numel() > _ROWS_IN_TURN


def _versions(inputs: tuple[Tensor, ...]) -> list[int]:
    # Each counts the changes in place of a tensor and its views, without waiting for a device.
    if torch.compiler.is_compiling():
        return []
    return [value._version for value in inputs if not value.is_inference()]


def _check_distinct(particles: Tensor) -> None:
    _, count = torch.unique(particles, dim=0, return_counts=True)
    if count.numel() < particles.shape[0]:
        raise ValueError(
            f"ParticleModule: {int(count.max())} particles are identical; factory must return an "
            "independently initialised network at every call (was a seed set inside it?)"
        )
