"""The recording of a terminal, which `make first-minutes` plays again."""

from first_minutes.screens import Recording, Screen

ERASE_LINE, UP = "\x1b[2K", "\x1b[1A"


def recorded(*outputs: str) -> Recording:
    recording = Recording(columns=10, lines=3)
    for second, output in enumerate(outputs, start=1):
        recording.add(float(second), "".join(outputs[: second - 1]) + output)
    return recording


def test_recording_keeps_what_each_moment_adds() -> None:
    recording = recorded("one\r\n", "", "two\r\n")
    assert recording.parts == [(1.0, "one\r\n"), (3.0, "two\r\n")]
    assert recording.seconds == 3.0


def test_text_is_found_across_moments() -> None:
    recording = recorded("demo is", " up")
    assert recording.seconds_of("is up") == 2.0
    assert recording.seconds_of("down") is None


def test_screens_are_what_a_person_saw() -> None:
    recording = recorded("one\r\ntwo\r\n", "", f"{UP}{ERASE_LINE}2\r\n", "\x1b[1m\x1b[0m", "3\r\n4\r\n")
    assert list(recording.screens()) == [Screen(1.0, "one\ntwo"), Screen(3.0, "one\n2"), Screen(5.0, "3\n4")]
    assert recording.text.splitlines()[-2:] == ["3", "4"]


def test_half_a_character_waits_for_its_rest() -> None:
    recording = Recording(columns=10, lines=3)
    recording.add(1.0, "下\ufffd")
    recording.add(2.0, "下载")
    assert [screen.text.replace(" ", "") for screen in recording.screens()] == ["下", "下载"]
