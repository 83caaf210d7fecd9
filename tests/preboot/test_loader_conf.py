"""loader.conf: variables, modules, and what is left alone and told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bootwire.preboot.handoff.loader_conf import Configuration, Wanted


def read(*texts: str) -> Configuration:
    configuration = Configuration()
    for text in texts:
        configuration.read(text, "loader.conf")
    return configuration


def test_variables_quoted_and_numeric_with_comments() -> None:
    found = read('# first\nconsole="comconsole,vidconsole" # both\nautoboot_delay=3\n  hw.x = "a b"\nn=-1\n')
    assert found.variables["console"] == "comconsole,vidconsole"
    assert found.variables["autoboot_delay"] == "3"
    assert found.variables["hw.x"] == "a b"
    assert found.variables["n"] == "-1"
    assert not found.notes


def test_later_files_win() -> None:
    assert read('a="1"', 'a="2"').variables["a"] == "2"


def test_variables_are_expanded() -> None:
    found = read('kernel="k2"\nmodule_path="/boot/${kernel};${module_path}"\nx="$kernel/y"')
    assert found.module_path() == ["/boot/k2", "/boot/kernel", "/boot/modules"]
    assert found.variables["x"] == "k2/y"


def test_modules_with_name_type_and_flags_in_order() -> None:
    found = read(
        'zfs_load="YES"\nmfsroot_load="yes"\nmfsroot_type="mfs_root"\nmfsroot_name="/boot/mfsroot"\n'
        'if_x_load="NO"\nif-y_load="YES"\nif-y_flags="debug=1"\n'
    )
    assert list(found.modules()) == [
        Wanted("zfs"), Wanted("/boot/mfsroot", "mfs_root"), Wanted("if-y", "", "debug=1"),
    ]  # fmt: skip


def test_a_later_no_takes_a_module_back() -> None:
    assert list(read('zfs_load="YES"', 'zfs_load="NO"').modules()) == []


def test_blacklisted_modules_are_left_out_and_told() -> None:
    found = read('drm_load="YES"\nmodule_blacklist="drm drm2"')
    assert list(found.modules()) == []
    assert found.notes == ["drm is in module_blacklist"]


def test_loader_commands_are_told_not_run() -> None:
    found = read('exec="echo hi"\nx_before="y"\n')
    assert len(found.notes) == 2
    assert all("not run" in note for note in found.notes)
    assert "exec" not in found.variables


def test_what_is_not_understood_is_told_with_its_line() -> None:
    assert read("\nthis is no assignment\n").notes == ["loader.conf:2: not understood: this is no assignment"]


@given(st.text('ab_load="#$\\\\{}\n .1', max_size=100))
def test_any_text_can_be_read(text: str) -> None:
    list(read(text).modules())
