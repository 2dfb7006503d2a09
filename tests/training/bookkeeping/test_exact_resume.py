"""An off-policy run that is resumed has the numbers of an uninterrupted one, to the bit."""

import pytest
import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.envs.utils import RandomPolicy
from torchrl.modules import AdditiveGaussianModule, OrnsteinUhlenbeckProcessModule, ValueOperator
from torchrl.modules.tensordict_module import TanhModule
from torchrl.objectives import DDPGLoss, SoftUpdate

from tests.training.resuming import check_the_rest, interrupt_at, scalars
from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.objectives import SinkhornCost
from torchrl_stein.training import (
    OffPolicyAgent,
    OffPolicySettings,
    Run,
    find_checkpoint,
    make_mlp,
    make_optimizer,
    make_task,
    make_trust_region,
    read_metadata,
    train_off_policy,
)
from torchrl_stein.training.bookkeeping.collector_state import CollectorState
from torchrl_stein.training.off_policy import loop as off_policy

ENVS = 4


def world(**options):
    return MultiGoalEnv((ENVS,), **{"horizon": 5, "seed": 0, **options})


def soft_q(make_agent, env):
    return make_agent(env, updates=22)


def trust_region(make_agent, env):
    agent = make_agent(env, updates=22)
    agent.trust_region = make_trust_region(
        agent.policy, weight=0.5, tau=None, cost=SinkhornCost(), num_particles=3
    )
    return agent


def moving_average(make_agent, env):
    agent = make_agent(env, updates=22)
    agent.trust_region = make_trust_region(
        agent.policy, weight=0.5, tau=0.1, cost=SinkhornCost(), num_particles=3
    )
    agent.target_updater = SoftUpdate(agent.loss, tau=0.1)
    return agent


def ddpg(noise):
    def build(make_agent, env):
        torch.manual_seed(0)
        spec = env.action_spec_unbatched
        actor = TensorDictSequential(
            TensorDictModule(make_mlp(2, 2, [8]), ["observation"], ["raw"]),
            TanhModule(in_keys=["raw"], out_keys=["action"], spec=spec),
        )
        qvalue = ValueOperator(make_mlp(4, 1, [8]), in_keys=["observation", "action"])
        loss = DDPGLoss(actor, qvalue, delay_actor=True, delay_value=True)
        loss.make_value_estimator(gamma=0.9)
        optimizer, scheduler = make_optimizer(
            (loss.parameters(), 1e-2), updates=22, final_fraction=0.1
        )
        explorer = TensorDictSequential(actor, noise(spec=env.action_spec, safe=True))
        target = SoftUpdate(loss, tau=0.1)
        return OffPolicyAgent(actor, explorer, loss, optimizer, scheduler, target)

    return build


def annealed(make_agent, env):
    agent = make_agent(env, updates=22)
    uniform = agent.explorer[1]  # the fraction of uniform actions falls
    agent.anneal = lambda done: uniform.eps.fill_(0.9 * 0.9**done)
    return agent


AGENTS = {
    "soft_q": soft_q,
    "trust_region": trust_region,
    "moving_average": moving_average,
    "gaussian": ddpg(AdditiveGaussianModule),
    "ornstein_uhlenbeck": ddpg(OrnsteinUhlenbeckProcessModule),
    "annealed": annealed,
}


@pytest.fixture
def train(tmp_path, make_agent):
    def run(name, agent="soft_q", resume=None, env=None, **options):
        env = env or TransformedEnv(world(), InitTracker())
        numbers = OffPolicySettings(
            **{
                "total_frames": 16 + ENVS * 22,
                "warmup_frames": 16,
                "batch_size": 8,
                "buffer_size": 1000,
                "log_interval": 2,
                "eval_interval": 7,
                "checkpoint_interval": 1000,
                **options,
            }
        )
        results = Run(tmp_path / name, {})
        built = AGENTS[agent](make_agent, env)
        if resume is not None:
            torch.manual_seed(77)
        evaluation = {"return": 0.0}  # drawn, so that it moves the random numbers

        def evaluate():
            evaluation["return"] = torch.randn(()).item()
            return evaluation

        complete = train_off_policy(built, env, numbers, results, evaluate, resume)
        return results.directory, complete

    return run


@pytest.mark.parametrize(
    ("agent", "steps"),
    [
        # Among random actions, after the last of them, when episodes end, and after an evaluation.
        ("soft_q", [2, 4, 5, 11]),
        ("trust_region", [8]),
        ("moving_average", [9]),
        ("gaussian", [13]),
        ("ornstein_uhlenbeck", [13]),  # its noise is in the data
        ("annealed", [13]),
    ],
)
def test_off_policy(train, monkeypatch, agent, steps):
    straight, complete = train("straight", agent)
    assert complete
    for step in steps:
        with monkeypatch.context() as patch:
            interrupt_at(patch, off_policy.ReturnMeter, "add", step)
            stopped, complete = train(f"stopped_{step}", agent)
        assert not complete
        resumed, complete = train(f"resumed_{step}", agent, resume=stopped)
        assert complete
        check_the_rest(straight, resumed, ENVS * step)


def test_a_buffer_that_has_forgotten(train, monkeypatch):
    options = {"buffer_size": 27}  # no multiple of the environments
    straight, _ = train("straight", **options)
    with monkeypatch.context() as patch:
        interrupt_at(patch, off_policy.ReturnMeter, "add", 15)
        stopped, _ = train("stopped", **options)
    resumed, _ = train("resumed", resume=stopped, **options)
    check_the_rest(straight, resumed, ENVS * 15)


def test_several_updates_per_step(train):
    # The last but one is due after update 25, the first of three.
    options = {"updates_per_step": 3, "checkpoint_interval": 5, "total_frames": 16 + ENVS * 10}
    straight, _ = train("straight", **options)
    *_, path, last = sorted((straight / "checkpoints").iterdir())
    assert int(last.name.split("-")[1]) == 16 + ENVS * 10
    step = int(path.name.split("-")[1])
    resumed, _ = train("resumed", resume=path, **options)
    expected = {key: value for key, value in scalars(straight).items() if key[1] > step}
    assert scalars(resumed) == expected
    assert ("train/loss_actor.csv", 16 + ENVS * 10) in expected


def test_twice(train, monkeypatch):
    straight, _ = train("straight")
    path = None
    for i, step in enumerate([7, 6]):
        with monkeypatch.context() as patch:
            interrupt_at(patch, off_policy.ReturnMeter, "add", step)
            stopped, _ = train(f"part_{i}", resume=path)
        path = stopped
    resumed, _ = train("rest", resume=path)
    check_the_rest(straight, resumed, ENVS * 13)


def test_the_environments_are_where_they_were(train, monkeypatch):
    # Guards the tests above: without this part of a checkpoint a resumed run goes another way.
    straight, _ = train("straight")
    interrupted = pytest.MonkeyPatch()
    interrupt_at(interrupted, off_policy.ReturnMeter, "add", 11)
    stopped, _ = train("stopped")
    interrupted.undo()
    monkeypatch.setattr(off_policy.CollectorState, "load_state_dict", lambda *_: None)
    resumed, _ = train("resumed", resume=stopped)
    with pytest.raises(AssertionError):
        check_the_rest(straight, resumed, ENVS * 11)


def test_another_number_of_environments_starts_anew(train):
    short, _ = train("short", total_frames=16 + ENVS * 10)
    env = TransformedEnv(MultiGoalEnv((6,), horizon=5, seed=0), InitTracker())
    with pytest.warns(UserWarning, match=r"has environments \[4\], here are \[6\]: .* start anew"):
        longer, complete = train("longer", resume=short, env=env)
    assert complete
    assert max(step for _, step in scalars(longer)) > 16 + ENVS * 10


def test_the_old_checkpoint_is_left_as_it_is(train):
    def content(path):
        return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}

    short, _ = train("short", total_frames=16 + ENVS * 10)
    path = find_checkpoint(short)
    before = content(path)
    train("longer", resume=path)
    assert content(path) == before


def test_the_best_evaluation_is_kept(train):
    # Evaluated after updates 4, 8, ..., 20, saved after every third.
    run, _ = train("run", eval_interval=4, checkpoint_interval=3)
    evaluated = {step // ENVS - 4: v for (n, step), v in scalars(run).items() if "eval" in n}
    assert list(evaluated) == [4, 8, 12, 16, 20]
    saved = {6: 4, 9: 8, 12: 12, 18: 16, 21: 20}  # the first checkpoint after each
    best = max(saved, key=lambda update: float(evaluated[saved[update]]))
    path = find_checkpoint(run / "best")
    assert path.name.endswith(f"{16 + ENVS * best:012d}")
    assert read_metadata(path)["eval_return"] == pytest.approx(float(evaluated[saved[best]]))
    assert "eval_return" not in read_metadata(run)  # of update 22


def test_simulators_start_from_another_reset():
    def starts(state=None):
        env = make_task("Pendulum-v1", (2,), seed=0)
        explorer = RandomPolicy(env.action_spec)
        collector = Collector(env, explorer, frames_per_batch=2, total_frames=100)
        part = CollectorState(collector)
        if state is not None:
            part.load_state_dict(state)
        first = next(iter(collector))["observation"]
        saved = part.state_dict()
        collector.shutdown()
        return first, saved

    torch.manual_seed(0)
    first, saved = starts()
    assert first.equal(starts()[0])
    later = starts(saved)[0]
    assert later.equal(starts(saved)[0])
    assert not (later == first).all(-1).any()
    torch.manual_seed(1)  # a checkpoint of another time
    assert not (starts(starts()[1])[0] == later).all(-1).any()
