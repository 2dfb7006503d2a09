"""Several agents as rows of one batch, by which what trains one policy trains one for each of them.

TorchRL's multi-agent environments lay n agents out behind the batch, [*B, n]. As rows they stand
before it, [n, *B], where a ``ParticleModule`` of n networks has its leading dimension: row i of the
data is mapped by network i. Any other network is shared by all agents.
"""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey

from torchrl_stein._checks import check_keys, check_type

__all__ = ["AgentsActor", "add_others", "agent_rows"]


def agent_rows(batch: TensorDictBase, group: str = "agents") -> TensorDictBase:
    """Data of n agents ``[*B]`` as ``[n, *B]``: row i is what a single agent i would have recorded.

    Entries of the group move to the root, such as ("agents", "action") ``[*B, n, A]`` to "action"
    ``[n, *B, A]``; of others, such as the reward of all, each agent has a view. So it is under
    "next". Losses that know of one agent take the rows as they take several seeds.

    Args:
        batch: holds entries ``[*B, n, ...]`` under the name of the group and, if it has a "next",
            under ("next", group).
        group: its name.

    Raises:
        KeyError, TypeError, ValueError: without such a group, or for entries of other shapes.

    Example:
        >>> from torchrl_stein.envs import SimpleSpreadEnv
        >>> data = SimpleSpreadEnv((16,), seed=0).rollout(5)
        >>> rows = agent_rows(data)
        >>> rows.batch_size, rows["action"].shape, rows["next", "reward"].shape
        (torch.Size([3, 16, 5]), torch.Size([3, 16, 5, 2]), torch.Size([3, 16, 5, 1]))
    """
    rows = _rows("agent_rows", batch, group)
    following = batch.get("next", None)
    return rows if following is None else rows.set("next", _rows("agent_rows", following, group))


def add_others(rows: TensorDictBase) -> TensorDictBase:
    """Write under "others" what the n - 1 other agents observe and do, and return the rows.

    others_i = (o_{i+1}, a_{i+1}, ..., o_{i+n-1}, a_{i+n-1}), numbers modulo n, ``[n, *B, (n - 1)
    (O + A)]``, of "observation" ``[n, *B, O]`` and "action" ``[n, *B, A]``. A critic that reads
    "observation", "action" and "others" is the centralised critic Q_i(x, a_1, ..., a_n) of Lowe et
    al. 2017 (arXiv:1706.02275): to agent i the others are a part of the state. Its own action
    alone is one that its policy may choose anew.

    Raises:
        KeyError: if the rows lack one of the two.

    Example:
        >>> from tensordict import TensorDict
        >>> seen = {"observation": torch.zeros(3, 8, 14), "action": torch.zeros(3, 8, 2)}
        >>> add_others(TensorDict(seen, [3, 8]))["others"].shape
        torch.Size([3, 8, 32])
    """
    check_keys("add_others", rows, ["observation", "action"])
    both = torch.cat([rows.get("observation"), rows.get("action")], -1)
    n = both.shape[0]
    agents = torch.arange(n, device=both.device)
    others = (agents.unsqueeze(-1) + agents[1:]) % n  # [n, n - 1]
    return rows.set("others", both[others].movedim(1, -2).flatten(-2))


class AgentsActor(TensorDictModuleBase):
    """An actor of the rows of :func:`agent_rows` as the policy of a multi-agent environment.

    Each agent sees its own observation and nothing else. What the actor reads and writes is found
    and left under the name of the group, ("agents", "action") ``[*B, n, A]``.

    Args:
        actor: a TensorDict module, which it shares: over a ``ParticleModule`` of n networks for n
            policies, over any other network for one that all agents share.
        group: name of the agents.

    Raises:
        TypeError: for an actor or a name that is none.
        KeyError, ValueError: at the call, for data without such a group.

    Example:
        >>> from torchrl_stein.envs import SimpleSpreadEnv
        >>> from torchrl_stein.modules import AmortizedSVGDActor, ParticleModule
        >>> env = SimpleSpreadEnv((16,), seed=0)
        >>> box = env.full_action_spec_unbatched["agents", "action"][0]
        >>> samplers = ParticleModule(lambda: torch.nn.Linear(14 + 2, 2), 3)
        >>> actor = AgentsActor(AmortizedSVGDActor(samplers, action_spec=box))
        >>> env.rollout(5, actor)["agents", "action"].shape
        torch.Size([16, 5, 3, 2])
    """

    def __init__(self, actor: TensorDictModuleBase, group: str = "agents") -> None:
        super().__init__()
        words = "a TensorDictModule, such as AmortizedSVGDActor"
        check_type("AgentsActor", words, TensorDictModuleBase, actor=actor)
        check_type("AgentsActor", "a str", str, group=group)
        self.actor, self.group = actor, group
        self.in_keys = [self._nested(key) for key in actor.in_keys]
        self.out_keys = [self._nested(key) for key in actor.out_keys]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write what the actor does for each agent, such as an action ``[*B, n, A]``."""
        check_keys("AgentsActor", tensordict, self.in_keys)
        rows = self.actor(_rows("AgentsActor", tensordict, self.group))
        for own, nested in zip(self.actor.out_keys, self.out_keys, strict=True):
            tensordict.set(nested, rows.get(own).movedim(0, tensordict.batch_dims))
        return tensordict

    def _nested(self, key: NestedKey) -> tuple[str, ...]:
        return (self.group, *(key if isinstance(key, tuple) else (key,)))


def _rows(owner: str, batch: TensorDictBase, group: str) -> TensorDictBase:
    """A batch without "next" as rows, of which nothing is written to the batch."""
    check_keys(owner, batch, [group])
    dims, agents = batch.batch_dims, batch.get(group)
    check_type(owner, "a tensordict", TensorDictBase, **{group: agents})
    # By their shapes: a tensordict that was made of plain dictionaries has lost its batch size.
    own = dict(agents.items(include_nested=True, leaves_only=True))
    sizes = {value.shape[: dims + 1] for value in own.values()}
    size = next(iter(sizes), torch.Size())
    if len(sizes) != 1 or len(size) != dims + 1 or size[:dims] != batch.batch_size:
        got = ", ".join(f"{key!r} {list(value.shape)}" for key, value in own.items())
        raise ValueError(
            f"{owner}: entries of {group!r} must have shape [*B, n, ...] for B = "
            f"{list(batch.batch_size)}, got {got or 'none'}"
        )
    rows = batch.exclude(group, "next").expand(size[-1], *batch.batch_size)
    for key, value in own.items():
        rows.set(key, value.movedim(dims, 0))
    return rows
