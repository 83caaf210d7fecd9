"""The command line: arguments in, exit status out (0 done, 1 failed, 2 wrong usage or configuration).

Heavy imports wait until a command needs them, so that `bootwire --help` answers at once.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import click

from bootwire import __version__

if TYPE_CHECKING:
    from bootwire.app import Settings


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Everything each command does: docs/reference/commands.md",
)
@click.version_option(__version__, prog_name="bootwire")
def main() -> None:
    """Network booting that simply works, beside the DHCP server you already have.

    \b
    Start     sudo bootwire boot vmlinuz initrd.gz --cmdline 'console=ttyS0'
    See       sudo bootwire demo        real firmware boots through it, here, now
    Prepare   bootwire assets fetch     boot loader files, without root
    """


def server_options(command: Callable[..., int]) -> Callable[..., None]:
    """The options every server has, gathered into one Settings value."""

    options = [
        click.option(
            "-i", "--interface", "interfaces", multiple=True, envvar="BOOTWIRE_INTERFACE", metavar="NAME",
            help="Serve on this interface only; repeatable.  [default: every one with an IPv4 address]",
        ),
        click.option(
            "--http-port", type=click.IntRange(1, 65535), envvar="BOOTWIRE_HTTP_PORT", metavar="PORT",
            help="HTTP port.  [default: 80, or 8080 where 80 is taken]",
        ),
        click.option(
            "--mode", type=click.Choice(["proxy", "off"]), default="proxy", envvar="BOOTWIRE_MODE", show_default=True,
            help="How it takes part in DHCP.",
        ),
        click.option(
            "--files", envvar="BOOTWIRE_FILES", metavar="DIR",
            help="Publish a directory read-only: TFTP root, and /files/ over HTTP.",
        ),
        click.option(
            "--state-dir", envvar="BOOTWIRE_STATE_DIR", metavar="DIR",
            help="Where boot loader files are kept.  [default: /var/lib/bootwire, or the user's data directory]",
        ),
        click.option(
            "--loaders", envvar="BOOTWIRE_LOADERS", metavar="DIR", help="Boot loader files to use before any other."
        ),
        click.option(
            "--no-fetch", is_flag=True, envvar="BOOTWIRE_NO_FETCH",
            help="Do not fetch missing boot loader files from the package mirror.",
        ),
        click.option("--pcap", envvar="BOOTWIRE_PCAP", metavar="FILE", help="Record what the server sees and sends."),
        click.option("--json", "as_json", is_flag=True, envvar="BOOTWIRE_JSON", help="Facts as JSON lines on stdout."),
        click.option("-v", "--verbose", count=True, envvar="BOOTWIRE_VERBOSE", help="Every fact, not only milestones."),
    ]  # fmt: skip

    @functools.wraps(command)
    def with_settings(
        *,
        interfaces: tuple[str, ...],
        http_port: int | None,
        mode: Literal["proxy", "off"],
        files: str | None,
        state_dir: str | None,
        loaders: str | None,
        no_fetch: bool,
        pcap: str | None,
        as_json: bool,
        verbose: int,
        **rest: Any,
    ) -> None:
        from bootwire.app import Settings

        settings = Settings(
            interfaces, http_port, mode, files, state_dir, loaders, not no_fetch, pcap, as_json, verbose
        )
        finish(lambda: command(settings, **rest))

    wrapped: Callable[..., None] = with_settings
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def finish(run: Callable[[], int]) -> None:
    """End the process with the status of `run`; a StartError is one clear message and its status."""
    from bootwire.app import StartError

    try:
        status = run()
    except StartError as error:
        click.echo(f"error: {error}", err=True)
        status = error.status
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


@main.command()
@click.argument("kernel")
@click.argument("initrd", nargs=-1)
@click.option("--cmdline", default="", envvar="BOOTWIRE_CMDLINE", metavar="TEXT", help="Kernel command line.")
@click.option("--message", default="", envvar="BOOTWIRE_MESSAGE", metavar="TEXT", help="Shown on the machine's screen.")
@server_options
def boot(settings: Settings, kernel: str, initrd: tuple[str, ...], cmdline: str, message: str) -> int:
    """Every machine that netboots gets this KERNEL, with these INITRDs in order.

    KERNEL and INITRD are files or http(s) URLs.
    """
    from bootwire.app import Static
    from bootwire.app import boot as run

    return run(settings, Static(kernel, initrd, cmdline, message))


@main.command()
@click.option(
    "--firmware", multiple=True, metavar="KIND",
    help="Which machine to boot, repeatable: bios, bios-e1000, uefi, uefi-http, uefi-ipxe, uefi-arm64."
    "  [default: bios and uefi]",
)  # fmt: skip
@click.option(
    "--dhcp-server", type=click.Choice(["dnsmasq", "udhcpd", "kea"]), default="dnsmasq", show_default=True,
    help="The DHCP server that nobody touches.",
)  # fmt: skip
@click.option("--state-dir", envvar="BOOTWIRE_STATE_DIR", metavar="DIR", help="Where fetched files are kept.")
def demo(firmware: tuple[str, ...], dhcp_server: str, state_dir: str | None) -> None:
    """Real firmware boots through Bootwire, here and now, on a private network.

    Virtual machines with real firmware boot a small Linux, beside a DHCP server without any PXE setting. The host's
    network is never touched, and nothing is left behind but what was installed and fetched. Needs root.
    """
    from bootwire.app import Progress, StartError, command
    from bootwire.lab.demo import KINDS, run
    from bootwire.lab.network import LabError
    from bootwire.serve.loaders import state_directory

    def checked() -> int:
        if unknown := [kind for kind in firmware if kind not in KINDS]:
            raise StartError(f"no firmware is called {unknown[0]}\n  try  {', '.join(KINDS)}", 2)
        if os.geteuid() != 0:
            again = shlex.join([*shlex.split(command()), *sys.argv[1:]])
            raise StartError(f"a private network with virtual machines needs root\n  run  sudo {again}")
        try:
            return run(firmware, dhcp_server, state_directory(state_dir), Progress())
        except LabError as error:
            raise StartError(str(error)) from None

    finish(checked)


@main.group()
def assets() -> None:
    """Boot loader files: where from, versions, digests. Needs no root."""


STATE_OPTION = click.option("--state-dir", envvar="BOOTWIRE_STATE_DIR", metavar="DIR", help="Where files are kept.")
GIVEN_OPTION = click.option("--loaders", envvar="BOOTWIRE_LOADERS", metavar="DIR", help="Look here before any other.")
JSON_OPTION = click.option("--json", "as_json", is_flag=True, envvar="BOOTWIRE_JSON", help="One JSON object on stdout.")


@assets.command("list")
@STATE_OPTION
@GIVEN_OPTION
@JSON_OPTION
def assets_list(state_dir: str | None, loaders: str | None, as_json: bool) -> None:
    """What would be served, what each file is and can do, and where it comes from."""
    from bootwire.serve.loaders import run_list, state_directory

    finish(lambda: run_list(click.echo, state_directory(state_dir), loaders, as_json))


@assets.command("fetch")
@STATE_OPTION
@JSON_OPTION
@click.option("--mirror", envvar="BOOTWIRE_MIRROR", metavar="URL", help="Package mirror.  [default: as apt is set up]")
def assets_fetch(state_dir: str | None, as_json: bool, mirror: str | None) -> None:
    """Fetch the newest boot loaders from this machine's package mirror, each step verified."""
    from bootwire.app import Progress
    from bootwire.serve.loaders import run_fetch, state_directory

    finish(lambda: run_fetch(click.echo, state_directory(state_dir), mirror, as_json, Progress()))


@assets.command("verify")
@STATE_OPTION
@GIVEN_OPTION
@JSON_OPTION
def assets_verify(state_dir: str | None, loaders: str | None, as_json: bool) -> None:
    """Read every file again and compare it with its digest."""
    from bootwire.serve.loaders import run_verify, state_directory

    finish(lambda: run_verify(click.echo, state_directory(state_dir), loaders, as_json))
