"""Steps in another thread: the same results, errors and ends, and a caller that never waits long."""

import contextlib
import threading
import time

import pytest

from LiverUNetLib.steps import Progress, finish, in_one_thread


def counted(taken, seconds=0.0):
    """Three steps and a result; records the threads in which they ran."""
    try:
        for n in range(3):
            time.sleep(seconds)
            taken.append(threading.get_ident())
            yield Progress("Counting", n + 1, 3)
        return "counted"
    finally:
        taken.append("closed")


def test_all_steps_are_taken_in_one_other_thread_and_the_result_comes_back():
    taken, shown = [], []
    assert finish(in_one_thread(counted(taken)), shown.append) == "counted"
    threads = set(taken[:3])
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert [progress.done for progress in shown if progress.total][-1] == 3


@pytest.mark.slow
def test_the_caller_is_not_blocked_during_a_step():
    steps, longest = in_one_thread(counted([], seconds=0.4)), 0.0
    with contextlib.suppress(StopIteration):
        while True:
            started = time.monotonic()
            next(steps)
            longest = max(longest, time.monotonic() - started)
    assert longest < 0.3, "each step takes 0.4 s"


def test_an_error_comes_back_to_the_caller():
    def failing():
        yield Progress("Counting", 1, 2)
        raise ValueError("two")

    with pytest.raises(ValueError, match="two"):
        finish(in_one_thread(failing()))


def test_closing_lets_the_current_step_end_and_then_closes_the_steps():
    taken = []
    steps = in_one_thread(counted(taken, seconds=0.2))
    next(steps)
    started = time.monotonic()
    steps.close()
    assert time.monotonic() - started < 0.1
    end = time.monotonic() + 5
    while "closed" not in taken and time.monotonic() < end:
        time.sleep(0.01)
    assert taken[-1] == "closed"
    assert len(taken) == 2, "no other step was begun"


def test_every_step_is_taken_within_the_context():
    inside, seen = [], []

    @contextlib.contextmanager
    def around():
        inside.append(threading.get_ident())
        yield
        inside.pop()

    def looking():
        for n in range(3):
            seen.append(list(inside) == [threading.get_ident()])
            yield Progress("Looking", n, 3)

    finish(in_one_thread(looking(), around=around))
    assert seen == [True] * 3
    assert inside == []
