"""Clients to plans: the loader, the shape of the offer, the reason; and when to be silent."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.policy.client import ARCHITECTURES, classify
from bootwire.policy.decide import LOADERS, History, Offerings, Plan, decide
from bootwire.policy.target import Menu, Silence
from dhcp_samples import NAMES, changed, messages

ALL = Offerings(loaders=frozenset(name for names in LOADERS.values() for name in names))
FRESH = History()


def plan(name: str, history: History = FRESH, offerings: Offerings = ALL, **options: bytes | None) -> Plan:
    found = decide(classify(changed(name, **options)), offerings, history)
    assert isinstance(found, Plan), found
    return found


def silence(name: str, history: History = FRESH, offerings: Offerings = ALL, **options: bytes | None) -> str:
    found = decide(classify(changed(name, **options)), offerings, history)
    assert isinstance(found, Silence), found
    return found.because


# --- firmware ---------------------------------------------------------------------------------------------------

FIRMWARE = {
    0: "bios/undionly.kpxe", 2: "i386/snponly.efi", 4: "bios/undionly.kpxe", 5: "bios/undionly.kpxe",
    6: "i386/snponly.efi", 7: "x86_64/snponly.efi", 8: "x86_64/snponly.efi", 9: "x86_64/snponly.efi",
    10: "arm32/snponly.efi", 11: "arm64/snponly.efi", 15: "i386/snponly.efi", 16: "x86_64/snponly.efi",
    17: "x86_64/snponly.efi", 18: "arm32/snponly.efi", 19: "arm64/snponly.efi", 20: "bios/undionly.kpxe",
    25: "riscv32/snponly.efi", 26: "riscv32/snponly.efi", 27: "riscv64/snponly.efi", 28: "riscv64/snponly.efi",
    39: "loong64/snponly.efi", 40: "loong64/snponly.efi",
}  # fmt: skip


@pytest.mark.parametrize("number", FIRMWARE)
def test_every_architecture_gets_its_loader_over_tftp(number):
    found = plan("edk2-x64-discover", o93=number.to_bytes(2, "big"))
    assert (found.loader, found.over) == (FIRMWARE[number], "tftp")
    assert found.recipe == ("direct" if FIRMWARE[number].startswith("bios") else "binl")


@pytest.mark.parametrize("number", FIRMWARE)
def test_every_architecture_gets_its_loader_by_url_where_it_takes_one(number):
    found = plan("edk2-http-x64-discover", o93=number.to_bytes(2, "big"))
    assert (found.recipe, found.loader, found.over) == ("http-boot", FIRMWARE[number], "http")


@pytest.mark.parametrize("number", sorted(set(range(48)) - set(FIRMWARE)))
def test_every_other_architecture_is_met_with_a_reasoned_silence(number):
    assert len(silence("edk2-x64-discover", o93=number.to_bytes(2, "big"))) > 20


def test_of_several_architectures_the_first_with_a_loader_counts():
    some = Offerings(loaders=frozenset({"x86_64/ipxe.efi"}))
    assert plan("edk2-x64-discover", offerings=some, o93=b"\0\x0b\0\7").loader == "x86_64/ipxe.efi"


def test_without_a_loader_the_silence_names_the_command():
    assert "bootwire assets fetch" in silence("edk2-x64-discover", offerings=Offerings())


def test_uefi_climbs_the_ladder_of_shapes():
    recipes = [plan("edk2-x64-discover", History(retry=retry)).recipe for retry in range(5)]
    assert recipes == ["binl", "direct", "menu", "menu", "menu"]


def test_bios_climbs_its_own_ladder():
    recipes = [plan("intel-bios-discover", History(retry=retry)).recipe for retry in range(3)]
    assert recipes == ["direct", "binl", "binl"]


def test_http_boot_has_one_shape():
    recipes = {plan("edk2-http-x64-discover", History(retry=retry, worked="menu")).recipe for retry in range(4)}
    assert recipes == {"http-boot"}


def test_what_worked_comes_first_and_the_rest_follows():
    recipes = [plan("edk2-x64-discover", History(retry=retry, worked="menu")).recipe for retry in range(3)]
    assert recipes == ["menu", "binl", "direct"]


def test_a_shape_that_is_none_of_its_ladder_is_not_believed():
    assert plan("intel-bios-discover", History(worked="menu")).recipe == "direct"


def test_a_dhcp_server_that_claims_pxe_is_outranked_by_a_direct_offer():
    assert plan("edk2-x64-discover", History(rival_vendor=True)).recipe == "direct"


def test_a_loader_that_never_started_is_replaced_and_told():
    found = plan("edk2-x64-discover", History(dead=("x86_64/snponly.efi",)))
    assert found.loader == "x86_64/ipxe.efi"
    assert "Secure Boot" in found.warnings[0][1]


def test_when_every_loader_died_the_first_is_tried_again():
    assert plan("edk2-x64-discover", History(dead=LOADERS["x86_64"])).loader == "x86_64/snponly.efi"


def test_a_kernel_for_other_processors_is_only_warned_about():
    offerings = Offerings(loaders=ALL.loaders, suits=frozenset({"arm64"}))
    found = plan("edk2-x64-discover", offerings=offerings)
    assert found.warnings[0][0] == "the kernel is for arm64, but this machine is UEFI x64"


@pytest.mark.parametrize("suits", [frozenset(), frozenset({"x86_64", "bios"})])
def test_a_kernel_that_fits_or_is_not_known_is_not_warned_about(suits):
    assert plan("edk2-x64-discover", offerings=Offerings(loaders=ALL.loaders, suits=suits)).warnings == ()


# --- iPXE -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ipxe-bios-discover", "ipxe-efi-x64-discover"])
@pytest.mark.parametrize("retry", [0, 1, 2, 7])
def test_ipxe_gets_its_script_at_once_and_always_in_the_same_shape(name, retry):
    found = plan(name, History(retry=retry, worked="menu", rival_vendor=True))
    assert (found.recipe, found.loader, found.over) == ("ipxe", "", "http")


def test_ipxe_needs_no_loader_to_be_at_hand():
    assert plan("ipxe-bios-discover", offerings=Offerings()).loader == ""


def test_ipxe_that_says_no_features_is_trusted():
    assert plan("ipxe-bios-discover", o175=None).loader == ""


def test_ipxe_without_an_architecture_is_judged_by_what_it_can_boot():
    assert plan("ipxe-bios-discover", o93=None).loader == ""


def features(*codes: int) -> bytes:
    return b"".join(bytes((code, 1, 1)) for code in codes)


@pytest.mark.parametrize(
    ("name", "able", "loader", "over"),
    [
        ("ipxe-bios-discover", (0x13,), "bios/undionly.kpxe", "http"),
        ("ipxe-bios-discover", (0x18,), "bios/undionly.kpxe", "tftp"),
        ("ipxe-bios-discover", (0x13, 0x24), "bios/undionly.kpxe", "http"),
        ("ipxe-efi-x64-discover", (0x13, 0x18), "x86_64/snponly.efi", "http"),
        ("ipxe-efi-x64-discover", (0x24,), "x86_64/snponly.efi", "tftp"),
    ],
)
def test_ipxe_without_what_the_boot_needs_is_chained_to_a_full_one(name, able, loader, over):
    found = plan(name, o175=features(*able))
    assert (found.recipe, found.loader, found.over) == ("ipxe", loader, over)


def test_the_same_loader_is_never_given_twice_in_one_boot():
    served: tuple[str, ...] = ()
    for expected in ("bios/undionly.kpxe", "bios/ipxe.pxe"):
        found = plan("ipxe-crippled-discover", History(served=served))
        assert found.loader == expected
        served += (found.loader,)
    assert "circles" in silence("ipxe-crippled-discover", History(served=served))


def test_a_crippled_ipxe_without_a_full_loader_at_hand_meets_silence():
    assert "bootwire assets fetch" in silence("ipxe-crippled-discover", offerings=Offerings())


# --- none of ours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("u-boot-arm64-discover", "U-Boot"),
        ("u-boot-efi-arm64-discover", "U-Boot"),
        ("freebsd-loader-discover", "FreeBSD"),
        ("raspberry-pi3-discover", "--files"),
        ("bsdp-inform", "Apple"),
        ("dhclient-discover", "network boot"),
        ("bootp-request", "BOOTP"),
    ],
)
def test_silence_says_why(name, word):
    assert word in silence(name)


def test_a_raspberry_pi_is_answered_where_its_files_are_published():
    assert plan("raspberry-pi3-discover", offerings=Offerings(raspberry=True)).recipe == "raspberry"


# --- all of it --------------------------------------------------------------------------------------------------

histories = st.builds(
    History,
    retry=st.integers(0, 9),
    served=st.lists(st.sampled_from(sorted(ALL.loaders)), max_size=3).map(tuple),
    dead=st.lists(st.sampled_from(sorted(ALL.loaders)), max_size=3).map(tuple),
    worked=st.sampled_from([None, "direct", "binl", "menu"]),
    rival_vendor=st.booleans(),
)
offerings = st.builds(Offerings, loaders=st.frozensets(st.sampled_from(sorted(ALL.loaders))), raspberry=st.booleans())


@given(messages(), histories, offerings)
def test_every_answer_to_anything_has_a_reason(message, history, offered):
    assert decide(classify(message), offered, history).because.isprintable()


@given(st.sampled_from(NAMES), histories, offerings, st.integers(0, 0xFFFF))
def test_every_answer_to_a_real_client_offers_only_what_there_is(name, history, offered, number):
    found = decide(classify(changed(name, o93=number.to_bytes(2, "big"))), offered, history)
    assert found.because
    if isinstance(found, Plan):
        assert found.loader == "" or found.loader in offered.loaders
        assert found.recipe != "ipxe" or found.loader not in history.served


def test_every_platform_that_a_number_stands_for_has_loaders():
    assert {platform for platform, _ in ARCHITECTURES.values()} - {""} == set(LOADERS)


def test_the_same_values_give_the_same_answer():
    for name, retry in itertools.product(NAMES, range(3)):
        first, second = (decide(classify(changed(name)), ALL, History(retry)) for _ in range(2))
        assert first == second


# --- boot programs --------------------------------------------------------------------------------------------------

HELLO = Offerings(
    loaders=ALL.loaders, programs=frozenset({"programs/bios/hello.pxe", "programs/x86_64/hello.efi"}), program="hello"
)


@pytest.mark.parametrize(
    ("name", "recipe", "program"),
    [
        ("intel-bios-discover", "direct", "programs/bios/hello.pxe"),
        ("ipxe-bios-discover", "ipxe", "programs/bios/hello.pxe"),
        ("edk2-x64-discover", "binl", "programs/x86_64/hello.efi"),
    ],
)
def test_a_boot_program_comes_before_any_loader(name, recipe, program):
    found = plan(name, offerings=HELLO)
    assert (found.recipe, found.loader, found.over) == (recipe, program, "tftp")
    assert "hello comes first" in found.because


@pytest.mark.parametrize("name", ["intel-bios-discover", "ipxe-bios-discover", "edk2-x64-discover"])
def test_after_a_boot_program_comes_what_every_machine_gets(name):
    assert plan(name, History(programmed=True), HELLO) == plan(name)


def test_firmware_that_a_program_was_not_built_for_boots_without_and_that_is_said():
    found = plan("edk2-x64-discover", offerings=HELLO, o93=b"\0\x0b")
    assert found.loader == "arm64/snponly.efi"
    assert "hello is not there" in found.warnings[0][0]


# --- PXELINUX and menus ------------------------------------------------------------------------------------------

LPX = "bios/lpxelinux.0"


def bios_offered(**more: object) -> Plan:
    loaders = frozenset((*LOADERS["bios"], LPX, "x86_64/syslinux.efi", *LOADERS["x86_64"]))
    found = decide(classify(changed("intel-bios-discover")), Offerings(loaders, **more), History())  # type: ignore[arg-type]
    assert isinstance(found, Plan)
    return found


@pytest.mark.parametrize(
    ("more", "loader"),
    [
        ({"loader": "pxelinux"}, LPX),
        ({"loader": "ipxe"}, "bios/undionly.kpxe"),
        ({"sizes": {LPX: 75_000, "bios/undionly.kpxe": 95_000}}, LPX),
        ({"sizes": {LPX: 95_000, "bios/undionly.kpxe": 75_000}}, "bios/undionly.kpxe"),
        ({}, "bios/undionly.kpxe"),  # nobody knows their sizes
    ],
)
def test_what_brings_a_kernel_to_a_bios_rom(more: dict[str, object], loader: str) -> None:
    assert bios_offered(**more).loader == loader


def test_a_known_bad_pair_is_given_only_where_it_is_asked_for() -> None:
    loaders = frozenset(("x86_64/syslinux.efi", *LOADERS["x86_64"]))
    sizes = {"x86_64/syslinux.efi": 1, "x86_64/snponly.efi": 300_000}
    client = classify(changed("edk2-x64-discover"))
    auto = decide(client, Offerings(loaders, sizes=sizes), History())
    asked = decide(client, Offerings(loaders, sizes=sizes, loader="pxelinux"), History())
    assert isinstance(auto, Plan)
    assert isinstance(asked, Plan)
    assert (auto.loader, asked.loader) == ("x86_64/snponly.efi", "x86_64/syslinux.efi")


def test_pxelinux_that_is_not_there_is_a_warning_and_ipxe() -> None:
    client = classify(changed("edk2-arm64-discover"))
    found = decide(client, Offerings(frozenset(LOADERS["arm64"]), loader="pxelinux"), History())
    assert isinstance(found, Plan)
    assert found.loader == "arm64/snponly.efi"
    assert "no PXELINUX with HTTP for UEFI arm64" in found.warnings[0][0]


@pytest.mark.parametrize(
    ("name", "seconds", "recipe"),
    [
        ("intel-bios-discover", 0, "menu"), ("edk2-x64-discover", 10, "menu"), ("ipxe-bios-discover", 10, "menu"),
        ("ipxe-bios-discover", 0, "ipxe"), ("edk2-http-x64-discover", 10, "http-boot"),
    ],
)  # fmt: skip
def test_who_is_offered_a_menu(name: str, seconds: int, recipe: str) -> None:
    menu = Menu((("a", "A"), ("", "Disk")), seconds=seconds)
    loaders = frozenset(name for names in LOADERS.values() for name in names)
    found = decide(classify(changed(name)), Offerings(loaders, menu=menu), History())
    assert isinstance(found, Plan)
    assert found.recipe == recipe
