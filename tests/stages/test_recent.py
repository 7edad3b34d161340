"""What was asked for last is kept, and no more of it than was said."""

import threading
import time

import pytest

from stages.recent import Recent


def made_by(recent, keys):
    """The keys whose values had to be made."""
    made = []
    for key in keys:
        assert recent.get(key, lambda key=key: made.append(key) or key.upper()) == key.upper()
    return "".join(made)


def test_the_last_few_are_kept():
    recent = Recent(2)
    assert made_by(recent, "abab") == "ab"
    assert made_by(recent, "cbcb") == "c", "b was asked for after a"
    assert made_by(recent, "a") == "a"
    assert len(recent._values) == 2


def test_what_is_asked_for_again_outlives_what_was_made_later():
    recent = Recent(2)
    assert made_by(recent, "aba") == "ab"
    assert made_by(recent, "c") == "c"
    assert made_by(recent, "a") == ""
    assert made_by(recent, "b") == "b"


def test_what_has_to_go_goes_before_the_next_is_made():
    recent, alive = Recent(1), []
    for key in "ab":
        recent.get(key, lambda: alive.append(len(recent._values)))
    assert alive == [0, 0]


def test_a_value_that_cannot_be_made_is_asked_for_again():
    recent = Recent(1)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)
    assert recent.get("a", lambda: 1) == 1


def test_several_threads_make_a_value_once():
    recent, made = Recent(2), []

    def ask(number):
        for key in "abab":
            assert recent.get(key, lambda key=key: time.sleep(0.01) or made.append(key) or key) == key

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == ["a", "b"]
