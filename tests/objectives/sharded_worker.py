"""One of two processes that train a sharded population, and the one process to compare with.

Started by test_sharded_stein.py as ``python -m tests.objectives.sharded_worker RANK FOLDER``.
"""

import sys
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torchrl.modules import ValueOperator
from torchrl.objectives import A2CLoss, ReinforceLoss

from tests.objectives.stein_builders import (
    LOSSES,
    OBS,
    TEMPERATURE,
    batch,
    coupled,
    gaussian,
    total,
    value,
)
from torchrl_stein.kernels import DriftControl, IMQKernel, LayerwiseKernel, RBFKernel
from torchrl_stein.modules import shard_particles
from torchrl_stein.modules.population import find_population
from torchrl_stein.objectives import GaussianPrior, ShardedSteinPolicyLoss, SteinPolicyLoss

N, WORLD, STEPS, WIDTH = 4, 2, 3, 16  # particles, processes, updates, parameters of a policy
COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_gather_single",
    "all_reduce",
    "barrier",
    "broadcast",
)


def one_critic(n, dtype):
    return ValueOperator(nn.Linear(OBS, 1).to(dtype))


def population_of(actor):
    return find_population("tests", "actor", actor)[1]


# name -> what differs from A2C with the median heuristic at temperature 10 in double precision
CASES = {
    "a2c": {},
    "a2c, single precision": {"dtype": torch.float32},
    "a2c, temperature 0": {"temperature": 0.0},
    "a2c, some columns outside of the kernel": {"options": {"outside_kernel": ["0.bias"]}},
    "a2c, one critic": {"critic": one_critic},
    "a2c, a schedule": {"temperature": lambda step: 10.0 / (1 + step)},
    "reinforce": {"base": ReinforceLoss},
    "reinforce, single precision": {"base": ReinforceLoss, "dtype": torch.float32},
    "reinforce, imq and prior": {
        "base": ReinforceLoss,
        "kernel": lambda actor: IMQKernel(),
        "prior": GaussianPrior(std=0.5),
    },
    "reinforce, prior at temperature 0": {
        "base": ReinforceLoss,
        "temperature": 0.0,
        "prior": GaussianPrior(std=0.5),
    },
    "layers": {"kernel": lambda actor: LayerwiseKernel(population_of(actor).layer_slices)},
    "sum": {"kernel": lambda actor: RBFKernel() + 0.5 * IMQKernel()},
    "drift": {
        "kernel": lambda actor: DriftControl(RBFKernel(), N, population_of(actor).kernel_dim)
    },
    "DQNLoss": {"base": "DQNLoss"},
    "ClipPPOLoss": {"base": "ClipPPOLoss"},
}


def make_networks(case):
    """The whole population, its critics, and what makes their loss."""
    torch.manual_seed(0)
    base, dtype = case.get("base", A2CLoss), case.get("dtype", torch.float64)
    if isinstance(base, str):
        actor, critics, make = LOSSES[base]
        return [actor(N), *(critic(N) for critic in critics)], make
    critic = case.get("critic", lambda n, dtype: value(n, dtype))
    return [gaussian(N, dtype, **case.get("options", {})), critic(N, dtype)], base


def prepare(case, rank=None):
    """The loss and the data of each update: of one rank, or of all particles."""
    networks, make = make_networks(case)
    dtype = case.get("dtype", torch.float64)
    data = [batch(networks[0], N, dtype=dtype) for _ in range(STEPS)]
    for part in data:  # row i is of particle i of the whole population
        part["particle"] = torch.arange(N).view(-1, 1, 1).expand(*part.shape, 1)
    kernel = case.get("kernel", lambda actor: RBFKernel())(networks[0])
    if rank is not None:
        rows = slice(rank * N // WORLD, (rank + 1) * N // WORLD)
        networks = [
            network if "critic" in case and i else shard_particles(network, rank, WORLD)
            for i, network in enumerate(networks)
        ]
        data = [part[rows] for part in data]
    options = {
        "kernel": kernel,
        "temperature": case.get("temperature", 10.0),
        "prior": case.get("prior"),
        "coupled": coupled(case["base"]) if isinstance(case.get("base"), str) else None,
    }
    options = {name: value for name, value in options.items() if value is not None}
    kind = SteinPolicyLoss if rank is None else ShardedSteinPolicyLoss
    return kind(make(*networks), **options), data


def train(case, rank=None):
    """Losses, gradients and figures of every update, and the parameters after the last."""
    loss, data = prepare(case, rank)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    updates = []
    for part in data:
        optimizer.zero_grad()
        losses = loss(part)
        total(losses).backward()
        if rank is not None and "critic" in case:
            for parameter in loss.critic_network_params.parameters():
                dist.all_reduce(parameter.grad)
        gradients = {k: p.grad.clone() for k, p in loss.named_parameters() if p.grad is not None}
        figures = loss.diagnose()
        optimizer.step()
        loss.step()
        updates.append(
            {"losses": losses.detach().to_dict(), "gradients": gradients, "figures": figures}
        )
    parameters = {name: p.detach().clone() for name, p in loss.named_parameters()}
    return {"updates": updates, "parameters": parameters}


@contextmanager
def counted(calls):
    """Writes down the collectives that are called, and the bytes of this rank's part."""
    originals = {name: getattr(dist, name) for name in COLLECTIVES if hasattr(dist, name)}

    def counting(name):
        def call(*args, **options):
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            calls.append((name, tensors[-1].nbytes if tensors else None))
            return originals[name](*args, **options)

        return call

    for name in originals:
        setattr(dist, name, counting(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def count(rank):
    """What is communicated, by the part of an update."""
    loss, data = prepare(CASES["a2c"], rank)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    found = {}
    for part in ("forward", "backward", "diagnose", "steps"):
        found[part] = []
        with counted(found[part]):
            if part == "forward":
                losses = loss(data[0])
            elif part == "backward":
                total(losses).backward()
            elif part == "diagnose":
                loss.diagnose()
            else:
                optimizer.step()
                for _ in range(100):  # the look at the kernel is at every 50th
                    loss.step()
    return found


def refusals(rank):
    """Messages for ranks that do not fit together, by what is wrong."""
    torch.manual_seed(0)
    whole, same = gaussian(N), gaussian(N)
    part = shard_particles(whole, rank, WORLD)
    uneven = [slice(0, 3), slice(3, 4)][rank]
    rows = population_of(whole).select(range(N)[uneven])
    lonely = gaussian(len(range(N)[uneven]))
    population_of(lonely).particles = rows.particles
    cases = {
        "number": (lonely, {}),
        "same": (same, {}),
        "temperature": (part, {"temperature": TEMPERATURE + rank}),
        "kernel": (part, {"kernel": [RBFKernel(), RBFKernel(2.0)][rank]}),
        "dtype": (deepcopy(part).float() if rank else part, {}),
    }
    found = {}
    for name, (actor, options) in cases.items():
        torch.manual_seed(1)
        try:
            ShardedSteinPolicyLoss(ReinforceLoss(actor, value(2)), **options)
        except ValueError as error:
            found[name] = str(error)
    return found


def outsider(rank):
    """Groups of one rank: what the rank outside is told, and the rank inside gets."""
    group = dist.new_group([0])
    try:
        loss = ShardedSteinPolicyLoss(ReinforceLoss(gaussian(2), value(2)), process_group=group)
    except ValueError as error:
        return str(error)
    return loss.world_size


def main(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    torch.manual_seed(0)
    results = {
        "runs": {name: train(case, rank) for name, case in CASES.items()},
        "calls": count(rank),
        "refusals": refusals(rank),
        "outsider": outsider(rank),
    }
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
