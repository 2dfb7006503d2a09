"""What an encoder of large observations has to be: apart from networks, which read its features."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict.nn import TensorDictModuleBase

from torchrl_stein._checks import check_type

__all__ = ["check_apart", "check_encoder"]


def check_encoder(
    owner: str,
    encoder: TensorDictModuleBase,
    *,
    actor_network: Sequence[TensorDictModuleBase],
    qvalue_network: Sequence[TensorDictModuleBase],
) -> None:
    """Require a TensorDictModule that Q-networks read, or nothing would train it."""
    expected = 'a TensorDictModule, such as TensorDictModule(net, ["pixels"], ["features"])'
    check_type(owner, expected, TensorDictModuleBase, encoder=encoder)
    read = qvalue_network[0].in_keys
    if not set(encoder.out_keys).intersection(read):
        raise ValueError(
            f"{owner}: encoder must write an entry that qvalue_network reads, one of {list(read)}, "
            f"it writes {list(encoder.out_keys)}"
        )
    check_apart(owner, encoder, actor_network=actor_network, qvalue_network=qvalue_network)


def check_apart(
    owner: str, encoder: TensorDictModuleBase, **networks: Sequence[TensorDictModuleBase]
) -> None:
    """Require parameters that stand in no network, where a second loss would train them."""
    own = {id(parameter) for parameter in encoder.parameters()}
    for name, several in networks.items():
        if any(id(parameter) in own for network in several for parameter in network.parameters()):
            raise ValueError(
                f"{owner}: encoder must share no parameters with {name}; let {name} read "
                f"{list(encoder.out_keys)}, which the loss gives it"
            )
