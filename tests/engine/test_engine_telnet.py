"""Telnet options: what is agreed to, what is refused, and that no server gets more answers than it asked questions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine.telnet import Heard, Terminal
from bootwire.wire import telnet
from bootwire.wire.telnet import DO, DONT, WILL, WONT, Option, Parameters, Parser

ECHO, SGA, TTYPE, NAWS = telnet.ECHO, telnet.SUPPRESS_GO_AHEAD, telnet.TERMINAL_TYPE, telnet.WINDOW_SIZE


def says(*tokens):
    return b"".join(telnet.emit(token) for token in tokens)


def test_what_we_do_is_agreed_to_once():
    terminal = Terminal()
    assert terminal.receive(says(Option(DO, TTYPE))).answer == says(Option(WILL, TTYPE))
    assert terminal.receive(says(Option(DO, TTYPE))).answer == b""
    assert terminal.receive(says(Option(DONT, TTYPE))).answer == says(Option(WONT, TTYPE))
    assert terminal.receive(says(Option(DONT, TTYPE))).answer == b""


def test_what_nobody_knows_is_refused():
    for option in (5, 33, 39, 200, 255):
        heard = Terminal().receive(says(Option(DO, option), Option(WILL, option)))
        assert heard.answer == says(Option(WONT, option), Option(DONT, option))
    assert Terminal().receive(says(Option(DO, ECHO))).answer == says(Option(WONT, ECHO))


def test_the_first_words_are_not_repeated_when_the_server_agrees():
    terminal = Terminal(columns=100, rows=30)
    assert terminal.start() == says(Option(WILL, TTYPE), Option(WILL, NAWS), Option(DO, SGA))
    heard = terminal.receive(says(Option(DO, TTYPE), Option(DO, NAWS), Option(WILL, SGA)))
    assert heard == Heard(b"", says(Parameters(NAWS, b"\0\x64\0\x1e")))


def test_the_first_words_are_not_repeated_when_the_server_declines():
    terminal = Terminal()
    terminal.start()
    assert terminal.receive(says(Option(DONT, TTYPE), Option(DONT, NAWS), Option(WONT, SGA))).answer == b""


def test_the_server_echoes_while_it_says_so():
    terminal = Terminal()
    seen = [terminal.server_echoes]
    for verb in (WILL, WONT):
        terminal.receive(says(Option(verb, ECHO)))
        seen.append(terminal.server_echoes)
    assert seen == [False, True, False]


def test_the_terminal_type_is_told_when_asked_after_agreeing():
    terminal, question = Terminal("xterm"), says(Parameters(TTYPE, bytes((telnet.SEND,))))
    assert terminal.receive(question).answer == b""
    terminal.receive(says(Option(DO, TTYPE)))
    assert terminal.receive(question).answer == says(Parameters(TTYPE, b"\0xterm"))


def test_a_new_window_size_is_told_if_the_server_wants_it():
    terminal = Terminal()
    assert terminal.resize(255, 1) == b""
    assert terminal.receive(says(Option(DO, NAWS))).answer == says(Option(WILL, NAWS), Parameters(NAWS, b"\0\xff\0\1"))
    assert terminal.resize(255, 300) == b"\xff\xfa\x1f\0\xff\xff\x01\x2c\xff\xf0"


def test_a_change_of_mind_waits_for_the_answer():
    terminal = Terminal()
    assert terminal.ask(False, SGA, True) == says(Option(DO, SGA))
    assert terminal.ask(False, SGA, False) == b""  # RFC 1143: queued
    assert terminal.receive(says(Option(WILL, SGA))).answer == says(Option(DONT, SGA))
    assert terminal.ask(False, SGA, True) == b""
    assert terminal.receive(says(Option(WONT, SGA))).answer == says(Option(DO, SGA))
    assert terminal.receive(says(Option(WILL, SGA))).answer == b""


def test_keys_and_text():
    terminal = Terminal()
    assert terminal.type(b"ls\n") == b"ls\r\n"
    assert terminal.type(b"\r\xff") == b"\r\0\xff\xff"
    assert terminal.receive(b"a\xff\xf9b") == Heard(b"ab", b"")


OPTIONS = st.lists(st.tuples(st.sampled_from([WILL, WONT, DO, DONT]), st.sampled_from([0, 1, 3, 24, 31, 77])))


@given(OPTIONS)
def test_no_option_is_answered_twice(said):
    terminal = Terminal()
    terminal.start()
    for verb, option in said:
        answer = terminal.receive(says(Option(verb, option))).answer
        told = [token for token in Parser().receive(answer) if isinstance(token, Option)]
        assert len(told) <= 1


@given(OPTIONS)
def test_saying_it_again_is_answered_no_more(said):
    terminal = Terminal()
    for verb, option in said:
        terminal.receive(says(Option(verb, option)))
        if terminal.receive(says(Option(verb, option))).answer:
            assert (
                terminal.receive(says(Option(verb, option))).answer
                == terminal.receive(says(Option(verb, option))).answer
                == says(Option({WILL: DONT, DO: WONT}[verb], option))
            )  # refused, and refused again


def test_two_ends_fall_silent():
    here, there = Terminal(), Terminal()
    to_there, to_here = here.start(), there.start()
    for _ in range(4):
        to_there, to_here = here.receive(to_here).answer, there.receive(to_there).answer
    assert (to_there, to_here) == (b"", b"")


def test_a_line_ends_by_cr_lf_but_in_binary_by_the_terminals_own_key():
    terminal = Terminal()
    assert terminal.type(b"ls\n") == b"ls\r\n"
    terminal.receive(telnet.emit(Option(DO, telnet.BINARY)))
    assert terminal.type(b"ls\n\xff") == b"ls\r\xff\xff"
    terminal.receive(telnet.emit(Option(DONT, telnet.BINARY)))
    assert terminal.type(b"ls\n") == b"ls\r\n"
