"""Work behind: in order, with what goes wrong brought back to whoever hands over."""

from __future__ import annotations

import threading

import pytest
import torch

from nxtools.subject.behind import Behind


def fail() -> None:
    raise OSError("the disk is full")


def test_work_is_done_in_order_in_one_other_thread() -> None:
    done: list[tuple[int, str]] = []
    with Behind() as behind:
        for number in range(50):
            behind(lambda number=number: done.append((number, threading.current_thread().name)))  # type: ignore[misc]
        behind.wait()
        assert done == [(number, "recorder") for number in range(50)]


def test_leaving_waits() -> None:
    done = threading.Event()
    with Behind() as behind:
        behind(lambda: (threading.Event().wait(0.05), done.set())[1])
    assert done.is_set()


def test_what_goes_wrong_is_raised_at_the_next_turn_and_what_waits_is_skipped() -> None:
    later: list[int] = []
    with pytest.raises(OSError, match="disk is full"), Behind() as behind:
        for number in range(100):
            behind(fail if number == 0 else lambda: later.append(1))
    assert later == []


def test_what_goes_wrong_last_is_raised_at_the_end() -> None:
    with pytest.raises(OSError, match="disk is full"), Behind() as behind:
        behind(fail)


def test_an_error_in_front_ends_the_thread() -> None:
    with pytest.raises(KeyboardInterrupt), Behind() as behind:
        raise KeyboardInterrupt
    assert not behind._thread.is_alive()


def test_the_threads_of_others_stay_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen: list[int] = []
        with Behind() as behind:
            behind(lambda: seen.append(torch.get_num_threads()))
        assert seen == [1] and torch.get_num_threads() == 2
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert seen == [1, 2]
    finally:
        torch.set_num_threads(before)
