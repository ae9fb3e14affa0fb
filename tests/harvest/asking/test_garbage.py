"""The collector of garbage is spared while a run lasts, and is afterwards as it was."""

import gc

import pytest

from harvest.asking.garbage import NEW_OBJECTS, spare_collector


def test_the_collector_is_as_it_was_once_a_run_has_broken_off() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with spare_collector():
        assert gc.get_threshold()[0] == NEW_OBJECTS
        assert gc.get_freeze_count() > 0
        with spare_collector():  # a second run in the process
            pass
        assert gc.get_threshold()[0] == NEW_OBJECTS
    with pytest.raises(ValueError, match="broken off"), spare_collector():
        raise ValueError("broken off")
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)


def test_a_collector_that_somebody_has_set_stays_so() -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with spare_collector():
            assert gc.get_threshold()[0] == 0
            assert gc.get_freeze_count() == 0
    finally:
        gc.set_threshold(*before)
