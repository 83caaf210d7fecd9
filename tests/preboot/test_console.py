"""The loader's prompt: joined commands, settings, files, kernels, completion; and what is refused, in one line."""

from __future__ import annotations

import os
import sys

import pytest
from click.testing import CliRunner

from bootwire.cli import main
from bootwire.preboot.console import Console
from bootwire.serve.answers import Answers
from bootwire.serve.files import PublishedDirectory
from http_rig import served
from product import bzimage


class Talk:
    """A console, and what it says."""

    def __init__(self, **more):
        self.said: list[str] = []
        self.console = Console(None, say=self.said.append, environment={}, **more)

    def __call__(self, line):
        """Whether it went well."""
        self.said.clear()
        return self.console.run(line)


@pytest.fixture
def talk():
    talk = Talk()
    yield talk
    talk.console.close()


@pytest.fixture
def base(tmp_path):
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    bzimage(tree / "boot" / "linux")
    (tree / "boot" / "initrd.gz").write_bytes(b"070701" + bytes(200))
    (tree / "boot" / "a b.txt").write_text("one\n\x1b[2Jtwo\n")
    directory = PublishedDirectory(str(tree))
    answers = Answers(
        {}, first_script=lambda *_: b"", boot_script=lambda *_: None, machine_at=lambda _: "",
        published=directory, record=lambda _: None,
    )  # fmt: skip
    with served(answers.http) as house:
        yield f"http://127.0.0.1:{house.port}/files/"
    directory.close()


@pytest.mark.parametrize(
    ("line", "said", "good"),
    [
        ("echo a; echo b", ["a", "b"], True),
        ("echo a && echo b", ["a", "b"], True),
        ("echo a || echo b", ["a"], True),
        ("show x || echo b", ["show: x is not set", "b"], True),
        ("show x && echo b", ["show: x is not set"], False),
        ("show x ; echo b", ["show: x is not set"], False),
        ("show x || show y || echo c", ["show: x is not set", "show: y is not set", "c"], True),
        ("show x && echo b || echo c", ["show: x is not set", "c"], True),
        ("echo 'a;b' \"c && d\"", ["a;b c && d"], True),
        ("set a=1; echo ${a}${none}.", ["1."], True),
        ("set cmdline=console=ttyS0 quiet; show cmdline", ["cmdline = console=ttyS0 quiet"], True),
        ("set my.name x y; echo ${my.name}", ["x y"], True),
        ("  # echo a", [], True),
        ("", [], True),
        ("echo http://h/#a", ["http://h/#a"], True),
        ("exit; echo a", [], True),
        ("echo 'a", ["No closing quotation"], False),
        ("echo a && ", ["a command is missing"], False),
        ("&& echo a", ["a command is missing"], False),
        ("echo a | echo b", ["'|' joins no commands: quote it"], False),
        ("dance", ["dance: there is no such command; help lists all"], False),
        ("resolve", ["resolve: usage: resolve NAME"], False),
        ("echo", [""], True),
        ("boot", ["boot: usage: boot show | save DIRECTORY | qemu | kexec"], False),
        ("boot qemu", ["boot: no kernel is loaded: load kernel URL"], False),
        ("set 1=2", ["set: usage: set NAME=VALUE"], False),
        ("set base=nonsense", ["set: nonsense: not an absolute http or https or ftp or tftp URL"], False),
        ("ls", ["ls: no URL, and no base is set: set base=http://…"], False),
        ("stats", ["stats: stats is for a network card of our own: bootwire console --nic eth0"], False),
        ("resolve 127.0.0.1", ["127.0.0.1"], True),
    ],
)
def test_lines(talk, line, said, good):
    assert (talk(line), talk.said) == (good, said)


def test_a_script_ends_at_its_first_failure_or_exit(talk):
    assert not talk.console.script(["echo a", "dance", "echo b"])
    assert talk.said == ["a", "dance: there is no such command; help lists all"]
    talk.said.clear()
    assert talk.console.script(["echo a", "exit", "echo b"])
    assert talk.said == ["a"]


def test_help_knows_every_command_the_loader_has(talk):
    assert talk("help")
    wanted = "net dhcp arp route ping resolve fetch ls cat load unload lsmod set show boot telnet sockets stats hello"
    told = {line.split()[0] for line in talk.said}
    assert set(wanted.split()) <= told


def test_listing_and_showing_files(talk, base):
    assert talk(f"set base={base}; ls boot")
    assert [line.split()[-1] for line in talk.said] == ["b.txt", "initrd.gz", "linux"]
    assert talk("cd boot ; cat 'a%20b.txt'")
    assert talk.said == ["one", "\\x1b[2Jtwo"]  # a terminal is not the server's to play with


def test_files_go_to_a_pipe_as_they_are(base):
    got: list[bytes] = []
    talk = Talk(write=got.append)
    assert talk(f"cat {base}boot/a%20b.txt")
    assert b"".join(got) == b"one\n\x1b[2Jtwo\n"
    talk.console.close()


def test_fetching(talk, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert talk(f"set base={base}boot; fetch initrd.gz; fetch linux other")
    assert (tmp_path / "initrd.gz").read_bytes().startswith(b"070701")
    assert (tmp_path / "other").exists()
    assert not talk("fetch nothing")
    assert talk.said == [f"fetch: {base}boot/nothing: 404 Not Found"]
    assert not talk(f"fetch initrd.gz again {'0' * 64}")
    assert not (tmp_path / "again").exists()


def test_a_kernel_is_loaded_and_written_down(talk, base, tmp_path):
    assert talk(f"set base={base}boot/; set cmdline=quiet; load linux; load initrd.gz; lsmod")
    assert [line.split()[0] for line in talk.said[-2:]] == ["kernel", "initrd"]
    assert talk(f"boot save {tmp_path}/out"), talk.said
    assert (tmp_path / "out" / "cmdline").read_text() == "quiet\n"
    assert sorted(os.listdir(tmp_path / "out")) == ["cmdline", "initrd", "kernel"]
    assert talk("unload initrd.gz; lsmod")
    assert len(talk.said) == 1
    assert talk("unload; lsmod")
    assert talk.said == []


def test_a_password_is_not_said(talk, base):
    secret = base.replace("//", "//me:secret@")
    said = []
    for line in ("load kernel {}boot/linux", "lsmod", "fetch {}nothing", "unload {}boot/linux", "ls {}nothing"):
        talk(line.format(secret))
        said += talk.said
    assert len(said) == 4
    assert not any("secret" in text for text in said)


def test_what_is_no_kernel_is_refused(talk, base, tmp_path):
    assert talk(f"load kernel {base}boot/initrd.gz")
    assert not talk(f"boot save {tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_completion(talk, base):
    complete = talk.console.completions
    assert complete([], "so") == ["sockets "]
    assert complete(["set"], "ba") == ["base="]
    assert complete(["boot"], "") == ["show ", "save ", "qemu ", "kexec "]
    assert complete(["poweron"], "uefi") == ["uefi", "uefi-http"]
    assert complete(["ls"], "b") == []
    talk(f"set base={base}")
    assert complete(["ls"], "b") == ["boot/"]
    assert complete(["load", "kernel"], "boot/l") == ["boot/linux"]
    assert complete(["cat"], "nothing/x") == []


# --- one-shot commands ------------------------------------------------------------------------------------------


def test_ls_of_the_command_line(base, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    result = CliRunner().invoke(main, ["ls", base + "boot"])
    assert (result.exit_code, [line.split()[-1] for line in result.stdout.splitlines()]) == (
        0,
        ["b.txt", "initrd.gz", "linux"],
    )
    assert CliRunner().invoke(main, ["ls", base + "nothing"]).exit_code == 1
    assert CliRunner().invoke(main, ["ls", "nothing"]).exit_code == 1


def test_boot_client_with_a_kernel(base, tmp_path, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    urls = [f"{base}boot/linux", f"{base}boot/initrd.gz"]
    out = tmp_path / "out"
    words = ["boot-client", *urls, "--cmdline", "a='b  c' d;e", "--then", "save", "-o", str(out)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert (out / "cmdline").read_text() == "a='b  c' d;e\n"
    assert (out / "initrd").read_bytes()
    shown = CliRunner().invoke(main, ["boot-client", urls[0], "--cmdline", "quiet"])
    assert shown.exit_code == 0
    assert "command line: quiet" in shown.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "needs a card"),
        (["--nic", "eth0", "--cmdline", "x"], "the network tells the command line"),
        (["http://h/k", "--then", "save"], "writes to a directory"),
    ],
)
def test_boot_client_used_wrongly(words, error):
    result = CliRunner().invoke(main, ["boot-client", *words])
    assert (result.exit_code, error in result.stderr) == (2, True)


def test_the_console_of_the_command_line(tmp_path):
    (tmp_path / "script").write_text("# a comment\necho from a file\n")
    runner = CliRunner()
    assert runner.invoke(main, ["console", "-c", "echo a", "-c", "echo b"]).stdout == "a\nb\n"
    assert runner.invoke(main, ["console", str(tmp_path / "script")]).stdout == "from a file\n"
    assert runner.invoke(main, ["console"], input="echo from stdin\n").stdout == "from stdin\n"
    assert runner.invoke(main, ["console", "-c", "dance"]).exit_code == 1
    assert runner.invoke(main, ["console", str(tmp_path / "nothing")]).exit_code == 1


def test_a_person_at_the_prompt(tmp_path):
    """A real terminal: history is kept, completion works, the end of the input leaves."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": "src", "TERM": "dumb", "HOME": str(tmp_path)}
        os.execv(sys.executable, [sys.executable, "-m", "bootwire", "console"])
    shown = b""

    def until(mark):
        nonlocal shown
        while mark not in shown:
            shown += os.read(terminal, 4096)
        shown = shown.partition(mark)[2]

    until(b"bootwire> ")
    os.write(terminal, b"ec\tdone-$((1))\n")  # the tab completes "echo "
    until(b"\r\ndone-$((1))\r\n")
    until(b"bootwire> ")
    os.write(terminal, b"exit\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    history = tmp_path / "bootwire" / "history"
    assert "echo done-$((1))" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
