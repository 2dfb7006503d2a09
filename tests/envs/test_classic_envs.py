"""The classic-control worlds as batched TorchRL environments, and any world of one's own."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchrl.collectors import Collector
from torchrl.envs import Compose, RewardSum, SerialEnv, StepCounter, TransformedEnv
from torchrl.envs.utils import check_env_specs, step_mdp

from torchrl_stein.envs import (
    BatchedEnv,
    CartpoleEnv,
    CartpoleSwingUpEnv,
    CartpoleSwingUpWorld,
    DoublePendulumEnv,
    MountainCarEnv,
    MultiGoalWorld,
)

ENVS = [CartpoleEnv, CartpoleSwingUpEnv, DoublePendulumEnv, MountainCarEnv]
all_envs = pytest.mark.parametrize("make", ENVS, ids=lambda e: e.__name__)


@all_envs
@pytest.mark.parametrize("batch_size", [(), (3,), (2, 4)])
def test_specs_hold(make, batch_size):
    env = make(batch_size)
    check_env_specs(env, seed=0, break_when_any_done="both")
    world = env.world
    assert env.horizon == 500
    assert env.action_spec.shape == (*batch_size, 1)
    assert env.observation_spec["observation"].shape == (*batch_size, world.observation_dim)
    assert env.observation_spec["state"].shape == (*batch_size, world.state_dim)
    # what a step reads back, which environments in worker processes must be told
    assert set(env.state_spec.keys()) == {"state", "elapsed_steps"}
    assert not world.clean_start


@all_envs
def test_same_seed_same_episodes(make):
    first, second, other = (
        make((4,), seed=seed).rollout(5, lambda td: td.set("action", torch.ones(4, 1)))
        for seed in (1, 1, 2)
    )
    assert first["next", "state"].equal(second["next", "state"])
    assert not first["state"].equal(other["state"])


@all_envs
def test_partial_reset_leaves_the_others_untouched(make):
    env = make((3,), seed=0)
    data = env.reset()
    data = env.step(data.set("action", torch.ones(3, 1)))["next"].exclude("reward")
    before = data.clone()
    mask = torch.tensor([[False], [True], [False]])
    fresh = env.reset(data.set("_reset", mask))
    assert fresh["elapsed_steps"].flatten().tolist() == [1, 0, 1]
    for key in ("state", "observation"):
        assert fresh[key][[0, 2]].equal(before[key][[0, 2]])
        assert not fresh[key][1].equal(before[key][1])
    assert fresh["observation"].equal(env.world.observe(fresh["state"]))


@all_envs
def test_steps_of_the_environment_are_steps_of_the_world(make):
    env = make((2, 3), seed=0)
    data = env.rollout(4, break_when_any_done=False)
    after, reward, terminated = env.world.step(data["state"], data["action"])
    assert data["next", "state"].allclose(after)
    assert data["next", "observation"].allclose(env.world.observe(after))
    assert data["next", "reward"].allclose(reward)
    assert data["next", "terminated"].equal(terminated)


def test_leaving_the_track_terminates_and_the_horizon_truncates():
    env = CartpoleSwingUpEnv((2,), horizon=60, clean_start=True, start_spread=(0, 0, 0, 0))
    action = torch.tensor([[1.0], [0.0]])
    data = env.rollout(100, lambda td: td.set("action", action.clone()), break_when_all_done=True)
    after = data["next"]
    steps = after["terminated"][0].flatten().nonzero()
    # 10 N on 1.1 kg go 3 m in sqrt(2 * 3 * 1.1 / 10) s = 0.81 s: 16 or 17 steps
    assert steps[0].item() + 1 in (16, 17)
    assert after["reward"][0, steps[0]].item() == -100.0
    assert after["observation"][0, steps[0], 0].abs().item() > 3
    assert not after["terminated"][1].any()
    assert after["truncated"][1].flatten().tolist() == [False] * 59 + [True]
    assert after["done"].equal(after["terminated"] | after["truncated"])


def test_transforms_and_collector_of_torchrl():
    env = TransformedEnv(
        DoublePendulumEnv((4, 3), horizon=6, seed=0), Compose(RewardSum(), StepCounter())
    )
    for data in Collector(env, None, frames_per_batch=12 * 12, total_frames=12 * 12):
        after = data["next"]
        assert data.shape == (4, 3, 12)
        assert after["step_count"].equal(after["elapsed_steps"])
        assert after["truncated"].equal(after["elapsed_steps"] == 6)


def test_serial_env_stacks_them():
    check_env_specs(SerialEnv(2, lambda: CartpoleSwingUpEnv((3,))), seed=0)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class _NoReading(TorchDispatchMode):
    """Stands in for the debug mode of a GPU: refuses operations whose result the host reads."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        if func in (aten._local_scalar_dense.default, aten.nonzero.default):
            raise AssertionError(f"{func} makes the host wait")
        return func(*args, **(kwargs or {}))


@contextmanager
def waiting_forbidden(device):
    if device == "cpu":
        with _NoReading():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@all_envs
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]
)
def test_steps_and_starts_never_wait_for_the_device(make, device):
    env = make((3,), device, seed=0)
    data, action = env.reset(), torch.ones(3, 1, device=device)
    env.step(data.clone().set("action", action))  # the first call may set up libraries
    with waiting_forbidden(device):
        for _ in range(5):
            data = step_mdp(env.step(data.set("action", action)))
        env._reset()  # reset() adds a look of TorchRL's own at the done flags, which waits
    assert data["elapsed_steps"].flatten().tolist() == [5] * 3


@all_envs
@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu(make):
    env = make((3,), "cuda", seed=0)
    data = env.rollout(5, break_when_any_done=False)
    assert data["next", "reward"].device.type == "cuda"
    assert data["next", "state"].isfinite().all()
    assert env.render(data).device.type == "cuda"


# a world of one's own


def test_any_world_becomes_an_environment():
    env = BatchedEnv(MultiGoalWorld(), (5,), horizon=7)
    check_env_specs(env, seed=0)
    assert env.observation_spec["state"].shape == (5, 2)


def test_bad_arguments_are_named():
    with pytest.raises(
        TypeError, match=r"BatchedEnv: world must be a World: state_dim, .*, got object$"
    ):
        BatchedEnv(object(), horizon=5)
    with pytest.raises(ValueError, match=r"horizon must be >= 1, got 0"):
        CartpoleEnv(horizon=0)
    with pytest.raises(ValueError, match=r"CartpoleEnv: batch_size must be >= 1, got -1"):
        CartpoleEnv((-1,))
    with pytest.raises(ValueError, match=r"pole_length must be > 0, got 0"):
        CartpoleEnv(pole_length=0)
    with pytest.raises(TypeError, match="pole_lenght"):
        CartpoleEnv(pole_lenght=1.0)


# pictures


@all_envs
def test_render_draws_what_moves(make):
    env = make((2,), seed=0)
    data = env.rollout(12, lambda td: td.set("action", torch.ones(2, 1)), break_when_any_done=False)
    images = env.render(data)
    assert images.dtype == torch.uint8
    assert images.shape[:2] == (2, 12)
    assert images.shape[-1] == 3
    assert (images != 255).any(-1).flatten(2).any(-1).all()  # never an empty page
    assert not images[0, 0].equal(images[0, 11])
    assert env.render(data[0, 3]).equal(images[0, 3])
    single = torch.vmap(env.world.render)(data["state"][0])
    assert single.equal(images[0])


def test_an_upright_pole_is_drawn_above_the_cart():
    world = CartpoleSwingUpWorld(clean_start=True)
    orange = torch.tensor([213, 94, 0], dtype=torch.uint8)
    for angle, rows in ((0.0, slice(0, 48)), (torch.pi, slice(52, 100))):
        picture = world.render(world.place(torch.tensor([0.0, 0.0, angle, 0.0])))
        pole = (picture == orange).all(-1)
        assert pole[rows].sum() > 0.8 * pole.sum() > 0
        assert pole[:, 90:110].sum() == pole.sum()


def test_render_says_what_is_missing():
    class Blind(MultiGoalWorld):
        render = None

    env = BatchedEnv(Blind(), horizon=5)
    with pytest.raises(NotImplementedError, match=r"Blind has no render\(state\)"):
        env.render(env.reset())
    with pytest.raises(KeyError, match="CartpoleEnv: the batch lacks key 'state', it holds"):
        CartpoleEnv().render(CartpoleEnv().reset().exclude("state"))
