"""Session: what it writes and when, how it ends, and that it goes on to the bit."""

import gc
import io
import json
import os
import re
import signal
import sys
import threading
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl_stein.runs import Session, find_checkpoint
from torchrl_stein.runs import session as module
from torchrl_stein.runs.checkpoint import load_checkpoint, read_manifest
from torchrl_stein.runs.loggers import RunLogger
from torchrl_stein.runs.process import check_losses, explain_failure

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _hangups_are_heard():
    """Also where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def source(rows=4):
    """Batches without end, with a return of each row."""
    while True:
        done = torch.ones(rows, 1, dtype=torch.bool)
        following = TensorDict({"done": done, "episode_reward": torch.rand(rows, 1)}, [rows])
        yield TensorDict({"x": torch.randn(rows, 3), "next": following}, [rows])


def train(settings, total=40, per_batch=1, at=None, ended=None, **options):
    """A recipe in little: 4 steps a batch. ``at(session, data)`` is called in the loop."""
    with Session(settings, **options) as session:
        net = nn.Linear(3, 1)
        optim = torch.optim.Adam(net.parameters(), lr=0.01)
        session.track(net=net, optim=optim, unused=None)
        for data in session.batches(source(), total=total):
            for _ in range(per_batch):
                loss = net(data["x"]).square().mean() + 0.1 * torch.rand(())
                loss.backward()
                optim.step()
                optim.zero_grad()
                session.log_update(TensorDict({"loss_x": loss.detach()}), data, lr=0.01)
            if at is not None:
                at(session, data)
            if session.evaluation_due:
                session.log_evaluation({"return": float(session.updates)})
        if ended is not None:
            ended(session)
        session.finish({"return": 1.5, "length": 3.0})
    return session


def numbers(folder):
    """Every number that was logged, but times: {name: [(step, text)]}."""
    place = Path(folder) / "metrics" / "scalars"
    return {
        str(path.relative_to(place).with_suffix("")): [
            (int(step), value)
            for step, value in (line.split(",") for line in path.read_text().split())
        ]
        for path in sorted(place.rglob("*.csv"))
        if path.parent.name != "time"
    }


def steps(folder, name):
    return [step for step, _ in numbers(folder)[name]]


def saved(folder):
    return [int(path.name.split("-")[1]) for path in sorted(folder.glob("checkpoints/ch*"))]


def line_of(action):
    """The one line that ends a run."""
    with pytest.raises(SystemExit) as end:
        action()
    assert isinstance(end.value.code, str)
    assert "\n" not in end.value.code
    assert end.value.__suppress_context__  # no traceback of what was behind it
    return end.value.code


# what there is, and when


def test_files_of_a_run(small, tmp_path, capsys):
    session = train(small())
    files = {str(p.relative_to(tmp_path / "run")) for p in tmp_path.rglob("*") if p.is_file()}
    names = {name for name in files if not name.startswith("checkpoints")}
    metrics = {"train/loss_x", "train/lr", "train/return", "eval/return", "time/updates_per_s"}
    assert names == {"config.json", "provenance.json", "summary.json", ".lock"} | {
        f"metrics/scalars/{name}.csv" for name in metrics
    }
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config == small().plain() == read_manifest(tmp_path / "run")["config"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == {
        "return": 1.5,
        "length": 3.0,
    }
    assert json.loads((tmp_path / "run" / "provenance.json").read_text()) == session.provenance
    assert f"Results: {tmp_path / 'run'}" in capsys.readouterr().out
    assert (session.steps, session.updates) == (40, 10)


def test_intervals_count_updates(small, tmp_path):
    train(small(log_interval=3, eval_interval=4, checkpoint_interval=5))
    run = tmp_path / "run"
    assert steps(run, "train/loss_x") == [12, 24, 36, 40]  # updates 3, 6, 9 and the last
    assert steps(run, "eval/return") == [16, 32, 40]  # updates 4, 8 and the end
    assert saved(run) == [20, 40]
    assert steps(run, "train/lr") == steps(run, "train/return") == [12, 24, 36, 40]


def test_intervals_that_end_within_a_batch(small, tmp_path):
    """Of three updates a batch: 4 is in the second batch, 8 in the third, 12 in the fourth."""
    train(small(log_interval=5, eval_interval=4, checkpoint_interval=4), total=24, per_batch=3)
    run = tmp_path / "run"
    assert steps(run, "eval/return") == [8, 12, 16, 24]
    assert steps(run, "train/loss_x")[:3] == [8, 16, 20]
    assert saved(run)[-1] == 24
    kept = {read_manifest(path)["step"] for path in run.glob("checkpoints/ch*")}
    assert kept == {16, 24}  # written after 8, 12, 16 and 24 steps


def test_an_interval_longer_than_the_run(small, tmp_path):
    train(small(log_interval=99, eval_interval=99, checkpoint_interval=99))
    run = tmp_path / "run"
    assert steps(run, "train/loss_x") == steps(run, "eval/return") == saved(run) == [40]


def test_returns_are_those_since_the_last_time(small, tmp_path):
    seen = []
    train(small(log_interval=2), at=lambda s, data: seen.append(data["next", "episode_reward"]))
    logged = [float(value) for _, value in numbers(tmp_path / "run")["train/return"]]
    means = [torch.cat(seen[i : i + 2]).mean().item() for i in range(0, 10, 2)]
    assert logged == pytest.approx(means, rel=1e-5)


def test_the_best_checkpoint_is_that_of_the_best_evaluation(small, tmp_path):
    values = iter([3.0, 9.0, 1.0, float("nan"), 2.0])

    def at(session, data):
        if session.evaluation_due:
            session.log_evaluation({"return": next(values)})

    train(small(eval_interval=2, checkpoint_interval=2), at=at)
    best = find_checkpoint(tmp_path / "run" / "best")
    assert (best.name, read_manifest(best)["eval_return"]) == ("checkpoint-000000000016", 9.0)


def test_notes_are_in_the_next_checkpoint(small, tmp_path):
    def at(session, data):
        session.notes["returns"] = [session.updates]

    train(small(), at=at)
    assert read_manifest(tmp_path / "run")["notes"] == {"returns": [10]}


def test_a_size_of_its_own_for_a_batch(small, tmp_path):
    with Session(small()) as session:
        session.track()
        counted = [session.steps for _ in session.batches(iter(range(99)), total=7, size=2)]
    assert counted == [2, 4, 6, 8]


def test_several_seeds_have_their_settings_elsewhere(small, tmp_path):
    settings = small()
    plain = settings.plain()
    object.__setattr__(settings, "plain", lambda: plain | {"seeds": 3})
    with Session(settings) as session:
        session.track()
    assert not (tmp_path / "run" / "config.json").exists()
    assert json.loads((tmp_path / "run" / "batch.json").read_text())["seeds"] == 3


def test_seeds_of_a_run(small):
    first, second = Session(small(seed=1)), Session(small(seed=2))
    assert first.seeds == Session(small(seed=1)).seeds != second.seeds
    assert len({*first.seeds, *second.seeds}) == 6
    draws = [(Session(small(seed=1)), torch.rand(2).tolist())[1] for _ in range(2)]
    assert draws[0] == draws[1]


# going on


def test_a_resumed_run_is_the_uninterrupted_one(small, tmp_path, capsys):
    train(small("straight"))
    train(small("first"), total=20)
    torch.rand(7)
    session = train(small("rest", resume=str(tmp_path / "first")))
    assert (session.steps, session.updates) == (40, 10)
    expected = {
        name: [pair for pair in pairs if pair[0] > 20]
        for name, pairs in numbers(tmp_path / "straight").items()
    }
    assert numbers(tmp_path / "rest") == expected
    newest = find_checkpoint(tmp_path / "first")
    assert f"Resuming {newest}; writing to {tmp_path / 'rest'}" in capsys.readouterr().out


@pytest.mark.parametrize(("length", "final"), [(10, 0.5), (20, 0.5), (20, 1.0)])
def test_a_run_of_another_length_says_that_rates_fall_as_before(
    small, tmp_path, capsys, length, final
):
    """The length of a schedule is part of its state; a rate that stays needs no word."""

    def run(length, **changes):
        net = nn.Linear(3, 1)
        optim = torch.optim.Adam(net.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.LinearLR(optim, 1.0, final, total_iters=length)
        with Session(small(**changes)) as session:
            session.track(schedule=schedule)
            session.save()
        assert schedule.total_iters == 10
        return capsys.readouterr().out

    assert "rates" not in run(10, run_dir="first")
    said = run(length, run_dir="rest", resume=str(tmp_path / "first"))
    assert ("\nLearning rates still fall over 10 updates, not 20\n" in said) == (
        length == 20 and final < 1
    )


def test_a_run_that_is_complete_has_nothing_left(small, tmp_path, capsys):
    train(small("first"))
    train(small("again", resume=str(tmp_path / "first")))
    assert "Nothing left to train: 40 steps are done" in capsys.readouterr().out
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["return"] == 1.5
    assert numbers(tmp_path / "again") == {}


def test_a_checkpoint_that_does_not_fit_leaves_no_directory(small, tmp_path):
    train(small("first"))
    path = find_checkpoint(tmp_path / "first")
    net = path / "net.pt"
    net.write_bytes(net.read_bytes()[:-1] + b"x")
    line = line_of(lambda: train(small("rest", resume=str(tmp_path / "first"))))
    assert line.startswith(f"small.py: the checkpoint is damaged: {net}: its checksum does not fit")
    assert not (tmp_path / "rest").exists()


# before the loop


def test_nothing_is_written_before_track(small, tmp_path):
    with pytest.raises(RuntimeError, match="boom"), Session(small()):
        raise RuntimeError("boom")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:99"])
def test_a_device_that_is_not_there(small, tmp_path, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    line = line_of(lambda: train(small(device=device)))
    words = f"small.py: device must be one that torch finds, got {device}; CUDA devices: 0"
    assert line == words
    assert not (tmp_path / "run").exists()


def test_a_directory_that_is_taken(small, tmp_path):
    train(small())
    assert "already holds a run; to go on with it: resume=" in line_of(lambda: train(small()))
    assert saved(tmp_path / "run") == [20, 40]


# losses that are no numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("interval", [1, 100])
def test_a_loss_that_is_no_number_ends_the_run(small, tmp_path, value, interval):
    def at(session, data):
        if session.updates == 7:
            data["x"][1] = value
            session.log_update(TensorDict({"loss_x": torch.tensor(value)}), data)

    line = line_of(lambda: train(small(log_interval=interval), at=at))
    path = find_checkpoint(tmp_path / "run")
    assert line == (
        f"small.py: loss_x is {value} at update 8; the batch is not finite in 'x' "
        f"(3 of 12 values); the last checkpoint is {path}"
    )
    assert saved(tmp_path / "run") == [20]
    load_checkpoint(path, {"net": nn.Linear(3, 1)})


def test_on_a_device_losses_are_looked_at_when_it_waits_anyway(small, tmp_path, monkeypatch):
    """Reading a number stalls the queue: when they are logged, and before a checkpoint."""
    seen = []
    monkeypatch.setattr(module, "check_losses", lambda losses, step, batch: seen.append(step))

    class Elsewhere(TensorDict):
        def values(self, *args, **kwargs):
            return iter([SimpleNamespace(device=torch.device("cuda"))])

    with Session(small(log_interval=4, checkpoint_interval=5)) as session:
        session.track()
        for data in session.batches(source(), total=40):
            session.log_update(Elsewhere({"loss_x": torch.tensor(0.0)}), data)
    assert seen == [4, 5, 8, 10, 10, 10]  # the last one is logged, due and the end


BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("value", BAD)
def test_the_culprit_is_named(value):
    reward = torch.zeros(4, 1)
    reward[1], reward[3] = value, value
    batch = TensorDict({"n": torch.zeros(4, dtype=torch.int64), "next": {"reward": reward}}, [4])
    bad = TensorDict({"loss_a": torch.tensor(0.0), "loss_b": torch.tensor([0.0, value])})
    words = (
        rf"^loss_b is (nan|{value}) at update 3; the batch is not finite in \('next', 'reward'\) "
    )
    with pytest.raises(FloatingPointError, match=words + r"\(2 of 4 values\)$"):
        check_losses(bad, 3, batch)
    with pytest.raises(FloatingPointError, match=r"at update 3; the batch is finite$"):
        check_losses(bad, 3, batch.exclude("next"))
    check_losses(TensorDict({"loss_a": torch.tensor(1e30), "ratio": torch.tensor(value)}), 1)


# Ctrl-C and its kin


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_loop_with_a_checkpoint(small, tmp_path, capsys, number):
    before = [signal.getsignal(n) for n in SIGNALS]

    def at(session, data):
        if session.updates == 7:
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as end:
        train(small(), at=at)
    assert end.value.code == 128 + number
    path = find_checkpoint(tmp_path / "run")
    assert path.name.endswith("28")
    assert f"Stopped. To go on: resume={path}" in capsys.readouterr().out
    assert not (tmp_path / "run" / "summary.json").exists()
    assert [signal.getsignal(n) for n in SIGNALS] == before
    train(small("straight"))
    train(small("rest", resume=str(path)))
    rest = numbers(tmp_path / "rest")["train/loss_x"]
    assert rest == numbers(tmp_path / "straight")["train/loss_x"][7:]


def test_what_cannot_be_resumed_is_not_promised(small, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(type(small()), "can_resume", lambda self: False)

    def at(session, data):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit):
        train(small(), at=at)
    path = find_checkpoint(tmp_path / "run")
    assert f"Stopped. The last checkpoint is {path}" in capsys.readouterr().out


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_it_at_once_and_quietly(small, tmp_path, first, second):
    def at(session, data):
        if session.updates == 7:
            os.kill(os.getpid(), first)
            os.kill(os.getpid(), second)
            pytest.fail("went on")

    with pytest.raises(SystemExit) as end:
        train(small(), at=at)
    assert end.value.code == 128 + first
    assert end.value.__suppress_context__
    assert saved(tmp_path / "run") == [20]  # the older one is whole
    find_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_the_loop_one_is_enough(small, tmp_path, number):
    def stop(session):
        os.kill(os.getpid(), number)
        pytest.fail("went on")

    with pytest.raises(SystemExit) as end:
        train(small(), ended=stop)
    assert end.value.code == 128 + number
    assert saved(tmp_path / "run") == [20, 40]
    with pytest.raises(SystemExit) as end, Session(small("other")) as session:
        stop(session)
    assert end.value.code == 128 + number
    assert not (tmp_path / "other").exists()


def test_while_loggers_close_it_ends_quietly_too(small, monkeypatch):
    class Slow(RunLogger):
        def close(self):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module, "open_loggers", lambda *_: [Slow()])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        train(small())
    assert end.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_what_nohup_ignores_stays_ignored(small):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train(small(), at=lambda *_: os.kill(os.getpid(), signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_runs_in_a_thread_too(small, tmp_path):
    thread = threading.Thread(target=train, args=(small(),))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "summary.json").exists()


def test_of_several_processes_one_writes(small, tmp_path, capsys):
    session = train(small("other"), rank=1, processes=2)
    assert session.steps == 40
    assert session.updates == 5  # half of the steps were taken elsewhere
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "other").exists()
    with pytest.raises(SystemExit) as end, Session(small(), rank=1, processes=2) as other:
        other.refuse("no")
    assert end.value.code == 1


# refusals and bugs


EDITED = """
def run(session, wrong):
    if wrong == "library":
        from torchrl_stein.runs import make_task
        make_task("no_such_task", (2,), seed=0)
    if wrong == "value":
        raise ValueError("mine")
    if wrong == "key":
        {}["mine"]
    if wrong == "type":
        len(3)
    if wrong == "file":
        open("no_such_file.csv")
    if wrong == "import":
        import no_such_module
    if wrong == "inside":
        from torchrl_stein.runs.pictures import kernel_image
        kernel_image(None)
    if wrong == "memory":
        raise MemoryError
    if wrong == "device":
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
"""


@pytest.fixture
def edited(tmp_path):
    path = tmp_path / "edited.py"
    path.write_text(EDITED)
    found = {}
    exec(compile(EDITED, str(path), "exec"), found)
    return found["run"]


def test_a_refusal_by_the_library_is_one_line(small, edited):
    with pytest.raises(SystemExit) as end, Session(small()) as session:
        edited(session, "library")
    assert end.value.code.startswith("small.py: env must be one of ['ant_hallway_narrow'")
    for wrong, words in (("memory", "not enough memory"), ("device", "can't allocate memory")):
        with pytest.raises(SystemExit, match=words), Session(small()) as session:
            edited(session, wrong)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ("value", ValueError),
        ("key", KeyError),
        ("type", TypeError),
        ("file", FileNotFoundError),
        ("import", ModuleNotFoundError),
        ("inside", AttributeError),
    ],
)
def test_a_bug_in_an_edited_recipe_has_its_traceback(small, edited, tracked, wrong, kind):
    def run():
        with Session(small()) as session:
            if tracked:
                session.track()
            edited(session, wrong)

    with pytest.raises(kind) as error:
        run()
    frames = traceback.extract_tb(error.value.__traceback__)
    assert any(frame.filename.endswith("edited.py") for frame in frames)


def test_once_it_has_learnt_a_refusal_is_a_bug(small, edited):
    with pytest.raises(ValueError, match="env must be one of"):
        train(small(), at=lambda session, data: edited(session, "library"))


def test_errors_that_the_library_did_not_mean_to_raise():
    def fail():
        from torchrl_stein.runs.populations import training_returns

        training_returns({})  # a KeyError within the library, of no one's making

    try:
        fail()
    except KeyError as error:
        assert explain_failure(error, None, 0) is None  # noqa: PT017


# the disk


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("logger", ["csv", "none", "tensorboard"])
@pytest.mark.parametrize("when", ["log", "image", "save", "finish"])
def test_a_directory_that_is_deleted_under_a_run(small, tmp_path, logger, when):
    run, away = tmp_path / "run", tmp_path / "away"
    picture = torch.zeros(4, 4, 3, dtype=torch.uint8)

    def at(session, data):
        if session.updates == 7 and when != "finish":
            run.rename(away)
            if when == "image":
                session.log_image("test/picture", picture)
            elif when == "save":
                session.save()

    def ended(session):
        if when == "finish":
            run.rename(away)

    line = line_of(lambda: train(small(logger=logger), at=at, ended=ended))
    assert re.match(r"small.py: cannot write .*: No such file or directory", line)
    assert not run.exists()  # nothing makes it anew
    assert saved(away)[0] == 20


def test_a_full_disk_is_one_line(small, tmp_path):
    import resource

    def at(session, data):
        if session.updates == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for logger in ("csv", "none"):
        try:
            line = line_of(lambda: train(small(logger, logger=logger), at=at))  # noqa: B023
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert re.match("small.py: cannot write .*: File too large", line)
        find_checkpoint(tmp_path / logger)


def reachable(root):
    """How many objects hang on this one, classes, modules and functions aside."""
    aside = (type, ModuleType, FunctionType, BuiltinFunctionType)
    found, left = {}, [root]
    while left:
        each = left.pop()
        if id(each) not in found and not isinstance(each, aside):
            found[id(each)] = each
            left += gc.get_referents(each)
    return len(found)


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_longer_run_keeps_no_more(small, logger):
    """Each update is logged, and not one number of it stays with the session or its loggers."""
    kept = []

    def at(session, data):
        session.log_histogram("train/x", data["x"])
        if session.updates in (30, 90):
            kept.append(reachable(session))

    train(small(logger=logger, eval_interval=10, checkpoint_interval=30), total=400, at=at)
    assert abs(kept[1] - kept[0]) < 30  # of 60 updates; some have a return, some a checkpoint


def test_nothing_is_kept_open(small):
    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    def at(session, data):
        session.log({f"many/{i}": 1.0 for i in range(200)})
        seen.append(count())

    train(small("first"))
    before, seen = count(), []
    train(small("second"), at=at)
    assert count() == before
    assert max(seen) <= before + 3  # the lock, and what is being written


# the terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_rate_and_remaining_time(small, monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    bars = []
    train(small(), at=lambda session, data: bars.append(str(session._bar)))
    assert "20.0/40.0" in bars[4]
    assert "50%" in bars[4]
    assert re.search(r"\[\d\d:\d\d<.*steps/s", bars[4])


def test_a_log_file_does_not(small, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    train(small())
    assert sys.stderr.getvalue() == ""


def test_lines_of_a_run(small, capsys):
    def ended(session):
        session.provenance["started"] = (datetime.now(UTC) - timedelta(seconds=185)).isoformat()

    train(small(), ended=ended)
    first, second, finished, *metrics, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"update +5  return 5  \(0.0 min left\)", first)
    assert re.fullmatch(r"update +10  return 10  \(0.0 min left\)", second)
    assert re.fullmatch("Finished after 3 min 0[5-9] s", finished)
    assert [line.split() for line in metrics] == [["return", "1.5"], ["length", "3"]]
    assert len({len(line) for line in metrics}) == 1  # right-aligned
    assert last.startswith("Results: ")


def test_a_summary_shows_what_it_is_told(small, capsys):
    with Session(small()) as session:
        session.track()
        session.finish({"a": 1.0, "b": 2.0}, shown=["b", "none"])
        session.finish({"a": 1.0}, shown=[])
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["Finished", "b", "Results:", "Finished", "Results:"]
