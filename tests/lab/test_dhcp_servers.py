"""The DHCP servers that nobody touched: their settings say nothing of booting."""

from pathlib import Path

import pytest

from bootwire.lab.dhcp_servers import DHCP_SERVERS, Pool
from bootwire.lab.network import LabError

POOL = Pool("10.77.0.0", 24, "255.255.255.0", "10.77.0.100", "10.77.0.199", "10.77.0.1")
OTHER = Pool("10.77.1.0", 24, "255.255.255.0", "10.77.1.100", "10.77.1.199", "10.77.1.1")
WORDS = ("pxe", "boot", "tftp", "next-server", "siaddr", "sname", "vendor", "66", "67", "option:60")


@pytest.mark.parametrize("name", DHCP_SERVERS)
def test_no_setting_is_about_booting(name: str, tmp_path: Path) -> None:
    argv = DHCP_SERVERS[name].argv([POOL], tmp_path)
    settings = " ".join([*argv, *(file.read_text() for file in tmp_path.iterdir())]).replace(str(tmp_path), "")
    assert POOL.first in settings
    assert [word for word in WORDS if word in settings.lower()] == []


@pytest.mark.parametrize("name", ["dnsmasq", "kea"])
def test_subnets_behind_relays_are_served_too(name: str, tmp_path: Path) -> None:
    argv = DHCP_SERVERS[name].argv([POOL, OTHER], tmp_path)
    settings = " ".join([*argv, *(file.read_text() for file in tmp_path.iterdir())])
    assert OTHER.first in settings
    assert OTHER.router in settings


def test_udhcpd_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="one subnet"):
        DHCP_SERVERS["udhcpd"].argv([POOL, OTHER], tmp_path)
