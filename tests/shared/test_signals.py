"""shared.signals: which polite signals are heard, and that what was ignored stays so."""

import os
import signal
from collections.abc import Iterator

import pytest

from shared.signals import POLITE, Stop, catch_signals, interrupt


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put the handlers back that a test sets."""
    before = {each: signal.getsignal(each) for each in POLITE}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("told", POLITE)
def test_a_signal_that_is_ignored_is_not_heard(told: signal.Signals) -> None:
    signal.signal(told, signal.SIG_IGN)
    stop = Stop()
    with catch_signals(interrupt), stop.heard(), stop.at_once():
        os.kill(os.getpid(), told)
    assert stop.told is None
    assert signal.getsignal(told) == signal.SIG_IGN


@pytest.mark.parametrize("told", POLITE)
def test_a_polite_signal_stops_at_the_next_safe_place(told: signal.Signals) -> None:
    stop = Stop()
    with stop.heard():
        os.kill(os.getpid(), told)
        assert stop.told == told
        with pytest.raises(KeyboardInterrupt, match=told.name), stop.at_once():
            pytest.fail("the block began")
