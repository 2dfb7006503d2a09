"""What a user of a loss expects to find on a loss that is wrapped around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensordict import TensorDictParams
from torch import nn
from torchrl.objectives import LossModule

from torchrl_stein._checks import check_discounts
from torchrl_stein._torchrl import buffers_of, children_of, schedulable_buffers

__all__ = ["LossWrapper"]


def _of_wrapped(name: str) -> property:
    # LossModule defines these itself, so that __getattr__ would never be asked. A loss of one's
    # own may do without some.
    def read(self: LossWrapper) -> Any:
        return getattr(children_of(self).get("loss_module"), name, None)

    def write(self: LossWrapper, value: Any) -> None:
        if "loss_module" in children_of(self):  # not yet in LossModule.__init__
            setattr(self.loss_module, name, value)

    return property(read, write, doc=f"``{name}`` of the wrapped loss.")


class LossWrapper(LossModule):
    """Keys, value estimator, targets, parameters and coefficients are those of ``loss_module``.

    Subclasses assign it at the end of their ``__init__`` and define ``_own_out_keys``.
    """

    loss_module: LossModule
    _out_keys: list[Any] | None = None

    tensor_keys = _of_wrapped("tensor_keys")
    value_estimator = _of_wrapped("value_estimator")
    value_type = _of_wrapped("value_type")
    default_value_estimator = _of_wrapped("default_value_estimator")
    loss_mask_key = _of_wrapped("loss_mask_key")
    use_prioritized_weights = _of_wrapped("use_prioritized_weights")
    deterministic_sampling_mode = _of_wrapped("deterministic_sampling_mode")
    vmap_randomness = _of_wrapped("vmap_randomness")
    _has_update_associated = _of_wrapped("_has_update_associated")

    def __getattr__(self, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            if name == "loss_module" or name.startswith("__"):
                raise
            return getattr(nn.Module.__getattr__(self, "loss_module"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        # loss.entropy_coeff = 0.01 and the like, as on the wrapped loss
        wrapped = children_of(self).get("loss_module")
        theirs = schedulable_buffers(wrapped)
        if name in theirs and name not in buffers_of(self):
            setattr(wrapped, name, value)
        else:
            super().__setattr__(name, value)
        if name == "loss_module":
            # Parameters of several networks are a locked TensorDict, which remembers its detached
            # self: after a cast, the actor would follow the critics that were.
            for part in value.modules():
                if isinstance(part, TensorDictParams):
                    part.unlock_()

    @property
    def in_keys(self) -> list[Any]:
        """Keys read from the batch: those of the wrapped loss."""
        return getattr(self.loss_module, "in_keys", [])

    @in_keys.setter
    def in_keys(self, values: list[Any]) -> None:
        self.loss_module.in_keys = values

    @property
    def out_keys(self) -> list[Any]:
        """Keys of the result: those of the wrapped loss, and ours."""
        if self._out_keys is None:
            return [*getattr(self.loss_module, "out_keys", []), *self._own_out_keys()]
        return self._out_keys

    @out_keys.setter
    def out_keys(self, values: list[Any]) -> None:
        self._out_keys = values

    def set_keys(self, **kwargs: Any) -> None:
        """Rename entries, see ``set_keys`` of the wrapped loss."""
        self.loss_module.set_keys(**kwargs)

    def make_value_estimator(self, *args: Any, **kwargs: Any) -> LossWrapper:
        """Choose the value estimator of the wrapped loss."""
        check_discounts(type(self).__name__, kwargs)
        self.loss_module.make_value_estimator(*args, **kwargs)
        return self

    def set_vmap_randomness(self, value: str) -> None:
        """See ``set_vmap_randomness`` of the wrapped loss."""
        self.loss_module.set_vmap_randomness(value)

    def reset(self) -> None:
        """See ``reset`` of the wrapped loss."""
        self.loss_module.reset()

    def reset_parameters_recursive(self) -> None:
        """Draw the parameters of the wrapped loss anew, where its networks know how."""
        self.loss_module.reset_parameters_recursive()

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As for any module; buffers that the wrapped loss makes when first asked are made."""
        self.loss_module.state_dict()
        return super().load_state_dict(*args, **kwargs)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Children, and the wrapped loss's targets, which ``SoftUpdate(loss)`` looks for here."""
        yield from super().named_children()
        for name, child in self.loss_module.named_children():
            if name.startswith("target_"):
                yield name, child

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the wrapped loss, of the kernel and of the prior."""
        yield from nn.Module.named_parameters(self, prefix, recurse, remove_duplicate)

    def _own_out_keys(self) -> list[str]:
        raise NotImplementedError
