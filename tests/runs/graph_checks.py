"""What a CUDA graph asks of an update, checked without a GPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Each gives the host a number, or a tensor whose shape depends on numbers.
WAITS = {
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "_linalg_check_errors",
    "bincount",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "multinomial",  # its sanity checks
    "nonzero",
    "nonzero_numpy",
    "unique_consecutive",
    "unique_dim",
}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}


class WouldWaitError(AssertionError):
    """On a GPU, the host would wait for the device here."""


def tensors_of(*values):
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


class NoWaiting(TorchDispatchMode):
    """Fails on operations after which the host knows more than it sent."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        by_mask = name in INDEXED and any(
            index.dtype in (torch.bool, torch.uint8) for index in tensors_of(args[1])
        )
        # Without output_size it counts.
        counts = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in WAITS or by_mask or (counts and func._overloadname != "self_int"):
            raise WouldWaitError(str(func))
        out = func(*args, **kwargs)
        devices = {t.device for t in tensors_of(args, kwargs, out) if t.device.type != "meta"}
        if len(devices) > 1:
            raise WouldWaitError(f"{func} on {devices}")
        return out


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class ReplayedUpdate:
    """A CUDA graph on the CPU: Python runs in the first calls only, then kernels on fixed memory.

    Stands in for CudaGraphModule. The call that records runs once, where a capture runs twice,
    the second time without effect on tensors. Random numbers are drawn anew, as in graphs.
    """

    def __init__(self, function, warmup=2, **_):
        self.function, self.warmup, self.calls = function, warmup, 0

    def __call__(self, batch):
        self.calls += 1
        if self.calls < self.warmup:
            return self.function(batch)
        if self.calls == self.warmup:
            self.batch, self.recording = batch.clone(), _Recording()
            self.inputs = self.batch.copy()
            with self.recording:
                self.out = self.function(self.batch)
            return self.out.clone()
        self.inputs.update_(batch)
        with torch.no_grad():
            for func, args, kwargs, out in self.recording.calls:
                _write(tensors_of(out), func(*args, **kwargs), tensors_of(args, kwargs))
        return self.out.clone()


@torch.no_grad()
def _write(recorded, new, inputs):
    """To fresh memory; what shares that of an input, a view or a change in place, is there."""
    taken = {value.untyped_storage().data_ptr() for value in inputs}
    for old, value in zip(recorded, tensors_of(new), strict=True):
        if old.untyped_storage().data_ptr() not in taken:
            old.copy_(value)
