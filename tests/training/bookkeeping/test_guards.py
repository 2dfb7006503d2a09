"""What ends a run early: losses that are no numbers, a full disk, and Ctrl-C."""

import os
import signal

import pytest
import torch
from tensordict import TensorDict

from torchrl_stein.training import StopFlag, catch_interrupt, check_losses
from torchrl_stein.training.bookkeeping.guards import exit_if_unwritable

BAD = [float("nan"), float("inf"), -float("inf")]


def losses(**values):
    return TensorDict({name: torch.as_tensor(value) for name, value in values.items()})


def test_finite_losses_pass():
    check_losses(losses(loss_qvalue=1e30, loss_actor=-3.0), step=1)


@pytest.mark.parametrize("value", BAD)
def test_names_term_value_and_step(value):
    with pytest.raises(FloatingPointError, match=rf"^loss_actor is {value} at update 7$"):
        check_losses(losses(loss_qvalue=0.0, loss_actor=value), step=7)


def test_one_bad_element_suffices():
    with pytest.raises(FloatingPointError, match="loss_qvalue is nan at update 1"):
        check_losses(losses(loss_qvalue=[0.0, float("nan")]), step=1)


def test_diagnostics_may_be_anything():
    check_losses(losses(loss_actor=0.0, repulsion_ratio=float("inf")), step=1)


@pytest.mark.parametrize("value", BAD)
def test_names_the_culprits_in_the_batch(value):
    reward, action = torch.zeros(4, 1), torch.zeros(4, 2)
    reward[1], reward[3], action[0, 1] = value, value, value
    batch = TensorDict(
        {
            "action": action,
            "observation": torch.zeros(4, 2),
            "steps": torch.zeros(4, 1, dtype=torch.int64),
            "next": {"reward": reward, "done": torch.zeros(4, 1, dtype=torch.bool)},
        },
        [4],
    )
    with pytest.raises(FloatingPointError) as error:
        check_losses(losses(loss_actor=float("nan")), step=3, batch=batch)
    message = str(error.value)
    assert "('next', 'reward') (2 of 4 values)" in message
    assert "'action' (1 of 8 values)" in message
    assert "observation" not in message
    assert "steps" not in message


def test_says_so_if_the_batch_is_not_to_blame():
    batch = TensorDict({"observation": torch.zeros(4, 2)}, [4])
    with pytest.raises(FloatingPointError, match="at update 3; the batch is finite"):
        check_losses(losses(loss_actor=float("nan")), step=3, batch=batch)


# Ctrl-C


def test_a_flag_is_down_at_first():
    assert StopFlag().requested is False


def test_the_first_interrupt_raises_the_flag():
    before = signal.getsignal(signal.SIGINT)
    with catch_interrupt() as stop:
        assert not stop.requested
        assert signal.getsignal(signal.SIGINT) is not before
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_interrupt_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with catch_interrupt() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handler_comes_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="boom"), catch_interrupt():
        raise RuntimeError("boom")
    assert signal.getsignal(signal.SIGINT) is before


# a disk that cannot be written


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("cannot write a checkpoint to x"), "a.py: cannot write a checkpoint to x"),
        (OSError(28, "No space left"), "a.py: cannot write to runs/1: No space left"),
        (PermissionError(13, "Denied", "runs"), "a.py: cannot write to runs: Denied"),
    ],
)
def test_a_recipe_ends_with_one_line(error, message):
    with pytest.raises(SystemExit) as raised, exit_if_unwritable("a.py", "runs/1"):
        raise error
    assert raised.value.code == message


def test_other_errors_keep_their_traceback():
    with pytest.raises(FloatingPointError), exit_if_unwritable("a.py", "runs/1"):
        check_losses(losses(loss_actor=float("nan")), step=1)
