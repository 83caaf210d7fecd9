"""Scripts as iPXE reads them: `run_order` below splits lines, words and operators as its script.c and exec.c do."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from bootwire.assets import scripts
from bootwire.assets.scripts import (
    MARKER,
    Boot,
    Caller,
    apology,
    autoexec,
    boot_script,
    boot_url,
    caller,
    mismatch,
    script_url,
)

BASE = "http://192.0.2.1:8080"
MAC = "52:54:00:12:34:56"


def boot(initrds: int = 0, cmdline: str = "", message: str = "", syslog: str = "") -> Boot:
    urls = (boot_url(BASE, MAC, f"initrd/{number}") for number in range(initrds))
    return Boot(boot_url(BASE, MAC, "kernel"), boot_url(BASE, MAC, MARKER), tuple(urls), cmdline, message, syslog)


def logical_lines(script: bytes) -> list[str]:
    """Lines as process_script makes them: LF ends one, one CR before it is dropped, a last backslash joins the next."""
    lines, line = [], ""
    for piece in script.decode().split("\n"):
        line += piece.removesuffix("\r")
        if line.endswith("\\"):
            line = line[:-1]
            continue
        lines.append(line)
        line = ""
    return lines


def commands(script: bytes) -> list[list[str]]:
    """Every command with its words, before settings are looked up: what can run, whatever the text in it."""
    found = []
    for line in logical_lines(script):
        words: list[str] = []
        for word in [word for word in re.split("[ \f\n\r\t\v]", line) if word]:
            if word.startswith("#"):
                break
            if word in ("||", "&&", ";"):
                found.append(words)
                words = []
            else:
                words.append(word)
        found.append(words)
    return [words for words in found if words]


def names(script: bytes) -> list[str]:
    return [words[0] for words in commands(script)]


def looked_up(words: list[str]) -> str:
    """An argument list as iPXE joins it again, with no setting set but those that are left as they are."""
    return " ".join(words).replace("${nil}", "")


def test_boot_script_is_this_text():
    what = boot(2, "console=ttyS0,115200n8 ip=dhcp", "Hello from the lab", "192.0.2.1")
    assert boot_script(what, "efi").decode() == (
        "#!ipxe\n"
        "set syslog 192.0.2.1 ||\n"
        "echo -- Hello from the lab\n"
        "set tries:int32 0\n"
        ":again\n"
        "imgfree\n"
        "set step fetching kernel\n"
        "kernel --name kernel http://192.0.2.1:8080/boot/52-54-00-12-34-56/kernel || goto failed\n"
        "set step fetching initrd0\n"
        "initrd --name initrd0 http://192.0.2.1:8080/boot/52-54-00-12-34-56/initrd/0 || goto failed\n"
        "set step fetching initrd1\n"
        "initrd --name initrd1 http://192.0.2.1:8080/boot/52-54-00-12-34-56/initrd/1 || goto failed\n"
        "imgfetch --name started http://192.0.2.1:8080/boot/52-54-00-12-34-56/started ||\n"
        "imgfree started ||\n"
        "set step starting the kernel\n"
        "boot kernel initrd=initrd0 initrd=initrd1 console=ttyS0,115200n8 ip=dhcp || goto failed\n"
        "exit\n"
        ":failed\n"
        "echo Bootwire: ${step} failed: ${errno}\n"
        "inc tries\n"
        "iseq ${tries} 5 && goto stop ||\n"
        "echo Bootwire: trying again in 3 seconds, Ctrl-C stops\n"
        "sleep 3 || goto stop\n"
        "goto again\n"
        ":stop\n"
        "echo Bootwire: gives up, the firmware goes on\n"
        "sleep 3 ||\n"
        "imgfree\n"
        "exit 1\n"
    )


def test_autoexec_is_this_text():
    assert autoexec(BASE, MAC, "192.0.2.1").decode().splitlines()[:8] == [
        "#!ipxe",
        "set tries:int32 0",
        ":again",
        "set step getting an address",
        "ifconf --configurator dhcp || goto failed",
        "set syslog 192.0.2.1 ||",
        "set step fetching the boot script",
        "imgfetch --name boot.ipxe http://192.0.2.1:8080/boot.ipxe?mac=52-54-00-12-34-56"
        "&arch=${buildarch}&platform=${platform}&uuid=${uuid}&serial=${serial:uristring}"
        "&manufacturer=${manufacturer:uristring}&product=${product:uristring} || goto failed",
    ]


def test_every_goto_of_every_script_has_its_label_once():
    for script in (boot_script(boot(0)), autoexec(BASE), apology("no")):
        labels = [line[1:] for line in logical_lines(script) if line.startswith(":")]
        targets = {words[1] for words in commands(script) if words[0] == "goto"}
        assert targets == set(labels)
        assert len(set(labels)) == len(labels)


def test_every_script_begins_with_the_magic_ipxe_looks_for():
    for script in (boot_script(boot(0)), autoexec(BASE), apology("no")):
        assert script.startswith(b"#!ipxe\n")


def test_scripts_use_only_commands_that_ipxe_of_2019_has():
    known = {"set", "echo", "imgfree", "kernel", "initrd", "imgfetch", "boot", "exit", "inc", "iseq", "goto"}
    known |= {"sleep", "ifconf", "chain"}
    for script in (
        boot_script(boot(1, "a", "b", "192.0.2.1")),
        autoexec(BASE, "", "192.0.2.1"),
        apology("x"),
    ):
        assert {name for name in names(script) if name[0] != ":"} <= known


def test_a_bios_kernel_gets_no_initrd_words():
    script = boot_script(boot(2, "quiet"), "pcbios")
    assert ["boot", "kernel", "quiet"] in commands(script)


def test_no_syslog_no_line_about_it():
    assert b"syslog" not in boot_script(boot(1, "quiet"))


def test_a_failed_marker_never_stops_the_boot():
    lines = boot_script(boot(0)).decode().splitlines()
    fetched = next(line for line in lines if "/started" in line)
    assert fetched.endswith(" ||")
    assert "imgfree started ||" in lines


def test_settings_in_the_command_line_are_the_operators_to_use():
    assert "ip=${ip}::${gateway}" in boot_script(boot(0, cmdline="ip=${ip}::${gateway}")).decode()


TEXT = st.text(
    st.one_of(st.characters(exclude_categories=()), st.sampled_from("\n\r\t\v\f\x00\x1b\\|&;#${}: -\u2028\u202e"))
)


@given(TEXT, TEXT)
@example("a\\", "b\\")
@example("a ; reboot", "x || shell")
@example("# nothing", "${x} && poweroff")
@example("\nreboot\n", "a\r\nshell")
@example("", ":label reboot")
@example("\udcff", "\udcff")
def test_no_text_of_the_operator_adds_a_command(cmdline, message):
    plain = boot_script(boot(1, "x", "", ""))
    script = boot_script(boot(1, cmdline, message, ""))
    echoes = len(message.replace("\r\n", "\n").replace("\r", "\n").split("\n")) if message.strip() else 0
    echoes = min(echoes, scripts.MAX_MESSAGE_LINES)
    assert names(script) == ["echo"] * echoes + names(plain)


@given(TEXT)
def test_a_command_line_arrives_word_by_word(cmdline):
    script = boot_script(boot(1, cmdline))
    arrived = next(looked_up(words) for words in commands(script) if words[0] == "boot")
    meant = re.sub("[\x00-\x1f\x7f]", " ", cmdline).encode("utf-8", "replace").decode().replace("${nil}", "")
    assert arrived.split() == ["boot", "kernel", "initrd=initrd0", *meant.split()]


@given(TEXT)
@example("$${${net0/mac}")
@example("{{7*7}} {0.__class__} %(x)s ${net0/mac:hexhyp}")
def test_text_of_a_peer_is_shown_and_nothing_else(because):
    script = apology(because)
    assert names(script) == ["echo", "sleep", "exit"]
    echoed = next(words for words in commands(script) if words[0] == "echo")
    assert "${" not in looked_up(echoed)
    assert script.isascii()


@given(TEXT, TEXT)
def test_a_base_or_address_that_is_none_stays_one_word(base, syslog):
    assert names(autoexec(base, MAC, syslog))[-3:] == names(autoexec(BASE, MAC, "192.0.2.1"))[-3:]


def test_peer_text_keeps_256_printable_characters_and_never_a_setting():
    assert scripts.peer_text("a\x1b[2J\u202eb") == "a?[2J?b"
    assert len(scripts.peer_text("x" * 1000)) == 256
    assert scripts.peer_text("$$${x}") == "{x}"


def test_the_script_address_fits_a_dhcp_file_field():
    assert len(script_url("http://255.255.255.255:65535", MAC)) < 128


def test_without_a_mac_the_machine_fills_in_its_own():
    assert "mac=${netX/mac:hexhyp}&" in script_url(BASE)


def test_the_caller_is_read_from_query_and_user_agent():
    query = (("mac", "52-54-00-12-34-56"), ("arch", "x86_64"), ("platform", "efi"), ("arch", "arm64"))
    assert caller(query, "iPXE/1.0.0+git-20190125.36a4c85-5.1") == Caller(
        "x86_64", "efi", "1.0.0+git-20190125.36a4c85-5.1"
    )


@given(TEXT, TEXT, TEXT)
def test_a_caller_that_lies_is_cut_to_what_ipxe_can_say(arch, platform, agent):
    said = str(caller((("arch", arch), ("platform", platform)), "iPXE/" + agent))
    assert said.isascii()
    assert said.isprintable()
    assert len(said) <= 64 * 3 + 7


def test_a_caller_reads_like_the_journal_wants_it():
    assert str(Caller("x86_64", "efi", "2.0.0")) == "iPXE 2.0.0 efi x86_64"


def test_an_arm64_kernel_does_not_suit_a_pc():
    assert mismatch(("arm64",), Caller("i386", "pcbios")) == "the kernel is for arm64, this machine is a BIOS PC"
    assert (
        mismatch(("arm64",), Caller("x86_64", "efi")) == "the kernel is for arm64, this machine is x86_64 EFI firmware"
    )


def test_a_64_bit_kernel_suits_a_bios_build_of_ipxe():
    assert mismatch(("x86_64",), Caller("i386", "pcbios")) == ""


def test_nothing_is_said_about_unknown_kernels_and_callers():
    assert mismatch((), Caller("x86_64", "efi")) == ""
    assert mismatch(("arm64",), Caller()) == ""


def test_control_characters_in_an_operators_text_are_named():
    assert "control character '\\n'" in scripts.check_text("a\nb", "the command line")
    assert scripts.check_text("console=ttyS0 ip=${ip} a${net0/mac:hexhyp}", "the command line") == ""


def test_an_open_setting_in_an_operators_text_is_named():
    for text in ("${ip", "${a b}", "${${x}"):
        assert "is no iPXE setting" in scripts.check_text(text, "the message")


def test_files_of_a_machine_without_a_mac_have_urls_too():
    assert boot_url(BASE, "", "initrd/0") == f"{BASE}/boot/initrd/0"
