"""Meter: what a terminal shows, and that nothing of it is left."""

import io

import pytest

from minicnn.progress import Meter, say


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_cursor_comes_back_after_an_exception_and_once():
    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt), Meter("loading", 5, file=terminal) as meter:
        meter.update(2, "half")
        raise KeyboardInterrupt
    meter.close()
    meter.close()
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1
    before = terminal.getvalue()
    meter.last = float("inf")  # lines elsewhere are due only after a while
    meter.update(5)
    assert terminal.getvalue() == before


def test_lines_elsewhere():
    file = io.StringIO()
    with Meter("loading", 5, every=-1, file=file) as meter:
        meter.update(3, "half")
    with Meter("loading", 5, silent=True, every=-1, file=file) as quiet:
        quiet.update(3)
    assert file.getvalue() == "loading 3/5  half\n"


def test_rank_0_speaks(capsys):
    class Rank:
        rank, size = 1, 2

    say(Rank(), "not this")
    say(None, "this", 1)
    assert capsys.readouterr().out == "this 1\n"
