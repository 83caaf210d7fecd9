"""The command line: arguments in, exit status out (0 done, 1 failed, 2 wrong usage or configuration).

Heavy imports wait until a command needs them, so that `bootwire --help` answers at once.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import click

from bootwire import __version__

if TYPE_CHECKING:
    from bootwire.app import Settings
    from bootwire.policy.target import Menu
    from bootwire.preboot.online import Card
    from bootwire.programs.parameters import Fallback
    from bootwire.serve.images import Settings as ImageSettings


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Everything each command does: docs/reference/commands.md",
)
@click.version_option(__version__, prog_name="bootwire")
def main() -> None:
    """Network booting that simply works, beside the DHCP server you already have.

    \b
    Start     sudo bootwire boot vmlinuz initrd.gz --cmdline 'console=ttyS0'
    Fleet     sudo bootwire serve fleet.toml    each machine its own
    Look      bootwire watch            live; in a browser: http://127.0.0.1:8067/
    Explain   bootwire explain FILE     a capture: what is wrong, what to change
    See       sudo bootwire demo        real firmware boots through it, here, now
    Prepare   bootwire assets fetch     boot loader files, without root
    """


STATE_OPTION = click.option("--state-dir", envvar="BOOTWIRE_STATE_DIR", metavar="DIR", help="Where files are kept.")
GIVEN_OPTION = click.option(
    "--loaders", envvar="BOOTWIRE_LOADERS", metavar="DIR", type=click.Path(exists=True),
    help="Look here before any other.",
)  # fmt: skip
JSON_OPTION = click.option("--json", "as_json", is_flag=True, envvar="BOOTWIRE_JSON", help="One JSON object on stdout.")


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
            "--loaders", envvar="BOOTWIRE_LOADERS", metavar="DIR", type=click.Path(exists=True),
            help="Boot loader files to use before any other.",
        ),
        click.option(
            "--no-fetch", is_flag=True, envvar="BOOTWIRE_NO_FETCH",
            help="Do not fetch missing boot loader files from the package mirror.",
        ),
        click.option(
            "--tftp-single-port", is_flag=True, envvar="BOOTWIRE_TFTP_SINGLE_PORT",
            help="TFTP transfers leave from port 69 itself, for NAT and containers.",
        ),
        click.option(
            "--program", default="", envvar="BOOTWIRE_PROGRAM", metavar="NAME|FILE",
            help="Boot program that machines run before any loader: hello, ask, or a file of your own.",
        ),
        click.option(
            "--program-next", default="", envvar="BOOTWIRE_PROGRAM_NEXT", metavar="NAME",
            help="What it goes on with, as TFTP has it.  [default: the best loader at hand]",
        ),
        click.option(
            "--program-fallback", default="next-device", show_default=True, envvar="BOOTWIRE_PROGRAM_FALLBACK",
            type=click.Choice(["next-program", "next-device", "local-disk", "reboot", "hold"]),
            help="What it does where it cannot go on.",
        ),
        click.option(
            "--program-tries", type=click.IntRange(1, 16), default=5, show_default=True, metavar="N",
            envvar="BOOTWIRE_PROGRAM_TRIES", help="How often it asks, waiting twice as long each time.",
        ),
        click.option("--bootinfo", is_flag=True, envvar="BOOTWIRE_BOOTINFO", help="Answer bootinfo, on UDP port 6969."),
        click.option(
            "--bootinfo-answer", envvar="BOOTWIRE_BOOTINFO_ANSWER", metavar="ACTION",
            help="Tell every machine this by bootinfo, as for `order`.  [default: its memory file system]",
        ),
        click.option(
            "--bootinfo-keys", envvar="BOOTWIRE_BOOTINFO_KEYS", metavar="FILE",
            help="Keys of machines that seal their questions: `MAC HEX` a line, or `* HEX`.",
        ),
        click.option(
            "--bootinfo-demand-keys", is_flag=True, envvar="BOOTWIRE_BOOTINFO_DEMAND_KEYS",
            help="Tell machines without a seal nothing.",
        ),
        click.option(
            "--web", envvar="BOOTWIRE_WEB", metavar="ADDRESS:PORT",
            help="Where the web page and the management API are; off for none.  [default: 127.0.0.1:8067]",
        ),
        click.option(
            "--loader", type=click.Choice(["auto", "ipxe", "pxelinux"]), default="auto", show_default=True,
            envvar="BOOTWIRE_LOADER", help="What brings kernels to firmware that cannot fetch them itself.",
        ),
        click.option(
            "--menu", default="", envvar="BOOTWIRE_MENU", metavar="TEXT",
            help="PXE firmware shows a boot menu (network, local disk) with this prompt.",
        ),
        click.option(
            "--menu-seconds", type=click.IntRange(0, 255), default=0, show_default=True,
            envvar="BOOTWIRE_MENU_SECONDS", help="How long it waits; 0: nobody notices, 255: for ever.",
        ),
        click.option(
            "--discovery", type=click.Choice(["unicast", "broadcast", "multicast"]), default="unicast",
            show_default=True, envvar="BOOTWIRE_DISCOVERY", help="How the menu's boot server is looked for.",
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
        tftp_single_port: bool,
        program: str,
        program_next: str,
        program_fallback: Fallback,
        program_tries: int,
        bootinfo: bool,
        bootinfo_answer: str | None,
        bootinfo_keys: str | None,
        bootinfo_demand_keys: bool,
        web: str | None,
        loader: Literal["auto", "ipxe", "pxelinux"],
        menu: str,
        menu_seconds: int,
        discovery: Literal["unicast", "broadcast", "multicast"],
        pcap: str | None,
        as_json: bool,
        verbose: int,
        **rest: Any,
    ) -> None:
        from bootwire.app import Settings
        from bootwire.serve.bootinfo_service import chosen
        from bootwire.serve.programs import ProgramSettings

        def run() -> int:
            settings = Settings(
                interfaces,
                http_port,
                mode,
                files,
                state_dir,
                loaders,
                not no_fetch,
                tftp_single_port,
                pcap,
                as_json,
                verbose,
                chosen(bootinfo, bootinfo_answer, bootinfo_keys, bootinfo_demand_keys),
                ProgramSettings(program, program_next, program_fallback, program_tries),
                web,
                loader,
                _menu(menu, menu_seconds, discovery),
            )
            return command(settings, **rest)

        finish(run)

    wrapped: Callable[..., None] = with_settings
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _menu(prompt: str, seconds: int, discovery: Literal["unicast", "broadcast", "multicast"]) -> Menu | None:
    """The boot menu that firmware shows; None where none was asked for."""
    from bootwire.policy.target import LOCAL, Menu
    from bootwire.serve.mode import StartError

    if not prompt:
        if seconds or discovery != "unicast":
            option = "--menu-seconds" if seconds else "--discovery"
            raise StartError(f"{option} is about a menu, and there is none\n  try  --menu TEXT", 2)
        return None
    return Menu((("network", "Network boot"), (LOCAL, "Boot from local disk")), prompt, seconds, discovery)


def finish(run: Callable[[], int]) -> None:
    """End the process with the status of `run`; a StartError is one clear message and its status."""
    from bootwire.serve.mode import StartError

    try:
        status = run()
    except StartError as error:
        click.echo(f"error: {error}", err=True)
        status = error.status
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


CACHE_OPTIONS = [
    click.option(
        "--cache-dir", envvar="BOOTWIRE_CACHE_DIR", metavar="DIR", help="Where.  [default: in the state directory]"
    ),
    click.option(
        "--cache-size", type=click.FloatRange(0.001), default=20.0, show_default=True, envvar="BOOTWIRE_CACHE_SIZE",
        metavar="GB", help="How much; what was not used for longest goes first.",
    ),
    click.option(
        "--upstream-proxy", default="", envvar="BOOTWIRE_UPSTREAM_PROXY", metavar="URL",
        help="HTTP proxy for images.  [default: http_proxy and its kin]",
    ),
    click.option(
        "--upstream-ca", default="", envvar="BOOTWIRE_UPSTREAM_CA", metavar="FILE",
        help="Certificates to trust for images, beside the system's.",
    ),
]  # fmt: skip


def image_options(command: Callable[..., int]) -> Callable[..., int]:
    """The options about images of other servers, gathered into one value. Below `server_options`."""

    options = [
        click.option(
            "--cache/--no-cache", default=False, envvar="BOOTWIRE_CACHE",
            help="Keep a copy of every image of another server; those with a digest are kept anyway.",
        ),
        *CACHE_OPTIONS,
        click.option(
            "--offline", is_flag=True, envvar="BOOTWIRE_OFFLINE", help="Never ask another server: the cache must do."
        ),
        click.option(
            "--allow-upstream", multiple=True, envvar="BOOTWIRE_ALLOW_UPSTREAM", metavar="HOST[:PORT]",
            help="A boot service's answers may name this host although it is this machine or link-local; repeatable.",
        ),
    ]  # fmt: skip

    @functools.wraps(command)
    def with_images(
        settings: Settings,
        *,
        cache: bool,
        cache_dir: str | None,
        cache_size: float,
        offline: bool,
        upstream_proxy: str,
        upstream_ca: str,
        allow_upstream: tuple[str, ...],
        **rest: Any,
    ) -> int:
        from pathlib import Path

        from bootwire.serve.images import Settings as ImageSettings
        from bootwire.serve.loaders import state_directory
        from bootwire.serve.upstreams import Settings as UpstreamSettings

        images = ImageSettings(
            state_directory(settings.state_dir),
            Path(cache_dir) if cache_dir else None,
            int(cache_size * 1e9),
            cache,
            offline,
            UpstreamSettings(upstream_proxy, upstream_ca, allow_upstream),
        )
        return command(settings, images, **rest)

    wrapped: Callable[..., int] = with_images
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@main.command()
@click.argument("kernel")
@click.argument("initrd", nargs=-1)
@click.option("--cmdline", default="", envvar="BOOTWIRE_CMDLINE", metavar="TEXT", help="Kernel command line.")
@click.option("--message", default="", envvar="BOOTWIRE_MESSAGE", metavar="TEXT", help="Shown on the machine's screen.")
@server_options
@image_options
def boot(
    settings: Settings, images: ImageSettings, kernel: str, initrd: tuple[str, ...], cmdline: str, message: str
) -> int:
    """Every machine that netboots gets this KERNEL, with these INITRDs in order.

    KERNEL and INITRD are files or http(s) URLs; one that ends in #sha256=HEX is served with these octets or not at all.
    """
    from bootwire.app import Static
    from bootwire.app import boot as run

    return run(settings, Static(kernel, initrd, cmdline, message), images)


@main.command()
@click.argument("url")
@click.option(
    "--api-request-timeout", "timeout", default="5s", show_default=True, envvar="BOOTWIRE_API_REQUEST_TIMEOUT",
    metavar="SECONDS", help="How long one answer may take; 500ms, 5s and 1m are understood, too.",
)  # fmt: skip
@click.option("--api-plain", is_flag=True, envvar="BOOTWIRE_API_PLAIN", help="Tell the service the MAC address alone.")
@click.option(
    "--no-file-urls", is_flag=True, envvar="BOOTWIRE_NO_FILE_URLS", help="Answers may not name files of this machine."
)
@server_options
@image_options
def api(settings: Settings, images: ImageSettings, url: str, timeout: str, api_plain: bool, no_file_urls: bool) -> int:
    """An HTTP service decides what each machine boots (Pixiecore's API, and more).

    Asked is URL/v1/boot/MAC; what it may answer: docs/reference/boot-api.md.
    """
    from bootwire.app import serve
    from bootwire.serve.api import ApiMode, Service, seconds
    from bootwire.serve.images import open_images

    mode = ApiMode(Service(url, seconds(timeout), api_plain, not no_file_urls), open_images(images, trusted=False))
    return serve(settings, mode)


def _server_of(context: click.Context, parameter: click.Parameter, path: str) -> str:
    """What [server] of a fleet file says becomes the defaults of the options of the same names."""
    import tomllib

    import msgspec

    from bootwire.config import ServerEntry

    try:
        with open(path, "rb") as file:
            said = tomllib.load(file).get("server", {})
        msgspec.convert(said, ServerEntry)
    except (OSError, ValueError, RecursionError):
        return path  # told in full when it is read as a fleet file
    names = {"interface": "interfaces"}
    defaults = {names.get(key, key.replace("-", "_")): value for key, value in said.items()}
    if isinstance(one := defaults.get("interfaces"), str):
        defaults["interfaces"] = [one]
    context.default_map = defaults
    return path


@main.command()
@click.argument("config", callback=_server_of, is_eager=True)
@server_options
@image_options
def serve(settings: Settings, images: ImageSettings, config: str) -> int:
    """A fleet: CONFIG says what each machine boots (docs/reference/fleet-file.md).

    A changed file is taken up at once, also on SIGHUP; a broken one keeps the old one in force and says so.
    """
    from bootwire.app import serve as run
    from bootwire.serve.fleet import FleetMode
    from bootwire.serve.images import open_images

    return run(settings, FleetMode(config, open_images(images, trusted=True), look=not images.offline))


WEB_OPTION = click.option(
    "--web", default="127.0.0.1:8067", show_default=True, envvar="BOOTWIRE_WEB", metavar="ADDRESS:PORT",
    help="Where the server's management port is.",
)  # fmt: skip


@main.command()
@STATE_OPTION
@WEB_OPTION
@JSON_OPTION
def machines(state_dir: str | None, web: str, as_json: bool) -> None:
    """What machines there are: their last boot, what they may install, what they are."""
    from bootwire.serve.loaders import state_directory
    from bootwire.serve.machines import run

    finish(lambda: run(click.echo, state_directory(state_dir), web, as_json))


@main.command()
@click.option("-n", "--count", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@STATE_OPTION
@WEB_OPTION
@JSON_OPTION
def boots(count: int, state_dir: str | None, web: str, as_json: bool) -> None:
    """The last boots, newest first, and what became of each."""
    from bootwire.serve.loaders import state_directory
    from bootwire.serve.machines import run_boots

    finish(lambda: run_boots(click.echo, state_directory(state_dir), web, count, as_json))


@main.command()
@click.argument("machine")
@click.option("--profile", default="", metavar="NAME", help="What it installs.  [default: what it is decided to boot]")
@click.option("--tries", default=3, show_default=True, type=click.IntRange(1, 100), help="In how many boots at most.")
@click.option("--within", default="24h", show_default=True, metavar="TIME", help="Until when: 30m, 2h, 7d.")
@STATE_OPTION
@WEB_OPTION
@JSON_OPTION
def arm(machine: str, profile: str, tries: int, within: str, state_dir: str | None, web: str, as_json: bool) -> None:
    """Let MACHINE (its MAC) install once. Nothing is installed on a machine that is not armed."""
    from bootwire.serve.loaders import state_directory
    from bootwire.serve.machines import run_order
    from bootwire.serve.managing import seconds

    def run() -> int:
        order = {"profile": profile, "tries": tries, "within": seconds(within)}
        return run_order(click.echo, state_directory(state_dir), web, machine, "arm", order, as_json)

    finish(run)


@main.command()
@click.argument("machine")
@STATE_OPTION
@WEB_OPTION
@JSON_OPTION
def disarm(machine: str, state_dir: str | None, web: str, as_json: bool) -> None:
    """Take the arming of MACHINE back."""
    from bootwire.serve.loaders import state_directory
    from bootwire.serve.machines import run_order

    finish(lambda: run_order(click.echo, state_directory(state_dir), web, machine, "disarm", {}, as_json))


def _servers_of(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        if "://" not in one:
            _server_of(context, parameter, one)
    return given


def _cache_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(CACHE_OPTIONS):
        command = option(command)
    return command


@main.command()
@click.argument("what", nargs=-1, required=True, callback=_servers_of, is_eager=True, metavar="CONFIG|URL …")
@STATE_OPTION
@_cache_options
@JSON_OPTION
def prefetch(
    what: tuple[str, ...], state_dir: str | None, cache_dir: str | None, cache_size: float, upstream_proxy: str,
    upstream_ca: str, as_json: bool,
) -> None:  # fmt: skip
    """Fetch images into the cache before any machine asks: all of a fleet file's, or those at URLs.

    A URL may end in #sha256=HEX. What is there already is asked after, not fetched again.
    """
    from pathlib import Path

    from bootwire.serve.images import Settings as ImageSettings
    from bootwire.serve.loaders import state_directory
    from bootwire.serve.prefetch import run
    from bootwire.serve.upstreams import Settings as UpstreamSettings

    folder, upstream = Path(cache_dir) if cache_dir else None, UpstreamSettings(upstream_proxy, upstream_ca)
    images = ImageSettings(state_directory(state_dir), folder, int(cache_size * 1e9), upstream=upstream)
    progress = _Percentage() if sys.stderr.isatty() else None
    shown = None if progress is None else lambda _, octets, whole: progress(octets, whole)
    finish(lambda: run(click.echo, what, images, as_json, shown))


@main.command()
@click.argument("config")
@JSON_OPTION
def check(config: str, as_json: bool) -> None:
    """Everything that is wrong with a fleet file, each with its line and what to do; 0 if nothing is."""
    import json

    from bootwire.serve.fleet import Loaded, load, problems_text

    def run() -> int:
        found = load(config)
        good = isinstance(found, Loaded)
        if as_json:
            problems = [] if isinstance(found, Loaded) else found.problems
            lines = [{"file": p.file, "line": p.line, "what": p.what, "fix": p.fix} for p in problems]
            warnings = list(found.warnings) if isinstance(found, Loaded) else []
            click.echo(json.dumps({"v": 1, "good": good, "problems": lines, "warnings": warnings}))
        elif isinstance(found, Loaded):
            click.echo("\n".join((f"{config}: {found.summary}", *(f"warning: {what}" for what in found.warnings))))
        else:
            click.echo(f"error: {problems_text(found.problems)}", err=True)
        return 0 if good else 2

    finish(run)


@main.command()
@click.option("--config", required=True, metavar="FILE", help="The fleet file.")
@click.option("--mac", required=True, help="MAC address of the machine.")
@click.option("--arch", default="x86_64", show_default=True, help="Its processor: bios, i386, x86_64, arm64 …")
@click.option(
    "--firmware", type=click.Choice(["bios", "uefi", "uefi-http"]), help="  [default: uefi, or bios with --arch bios]"
)
@click.option("--uuid", default="", help="Its UUID.")
@click.option("--serial", default="", help="SMBIOS: serial number.")
@click.option("--manufacturer", default="", help="SMBIOS: manufacturer.")
@click.option("--product", default="", help="SMBIOS: product.")
@click.option("--vendor-class", default="", help="DHCP option 60.  [default: as its firmware sends it]")
@click.option("--user-class", default="", help="DHCP option 77.")
@click.option("--address", default="", help="Our IPv4 address on its network.  [default: 192.0.2.1]")
@click.option("--interface", default="", help="Our interface that hears it.")
@click.option("--relay", default="", help="Address of the relay it is behind.")
@click.option("--circuit-id", default="", help="Option 82: circuit id.")
@click.option("--remote-id", default="", help="Option 82: remote id.")
@STATE_OPTION
@JSON_OPTION
def decide(
    config: str, mac: str, arch: str, firmware: str | None, address: str, relay: str, state_dir: str | None,
    as_json: bool, **said: str,
) -> None:  # fmt: skip
    """What a machine would get, and why: the rule, the exact offer, the exact script. Without a network."""
    from bootwire.serve.deciding import run

    finish(lambda: run(click.echo, config, mac, arch, firmware, address, relay, state_dir, as_json, said))


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


@main.command()
@click.argument("source", default="http://127.0.0.1:8067")
@click.option(
    "--token-file", envvar="BOOTWIRE_TOKEN_FILE", metavar="FILE", default="",
    help="A copy of the server's web-token, to watch another machine's server.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Every machine in one line, as it is now, and the end.")
def watch(source: str, token_file: str, once: bool) -> None:
    """What happens, live: machines, stages, progress, speed, verdicts.

    SOURCE is a running server's page, or JSON lines of one (bootwire boot … --json): a file, or - for standard input.
    At a terminal: arrows choose a machine, Enter opens its boot, / filters, q quits. Elsewhere: a line for each change.
    """
    from bootwire.serve.mode import StartError
    from bootwire.watch import WatchError, open_source, run

    def checked() -> int:
        try:
            return run(open_source(source, token_file), once=once)
        except WatchError as error:
            raise StartError(str(error)) from None

    finish(checked)


@main.command()
@click.argument("file", default="")
@click.option("-i", "--interface", default="", metavar="NAME", help="Listen here instead of reading a file.")
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(0.1), help="How long to listen; Ctrl-C ends it."
)
@click.option("--machine", default="", metavar="MAC", help="Only this one, or those whose MAC begins so.")
@click.option("-v", "--verbose", is_flag=True, help="Every DHCP option by name, and where each finding is known from.")
@JSON_OPTION
def explain(file: str, interface: str, seconds: float, machine: str, verbose: bool, as_json: bool) -> None:
    """What happened in a capture (pcap, pcapng, - for stdin): who asked, who answered, what is wrong, what to change.

    Exit status: 0 nothing is wrong, 3 warnings, 4 errors.
    """
    from bootwire.serve.explaining import run

    finish(lambda: run(click.echo, file, interface, seconds, machine, as_json, verbose))


@main.command()
@click.argument("one")
@click.argument("other")
@click.option("--page", envvar="BOOTWIRE_PAGE", metavar="URL", default="http://127.0.0.1:8067", show_default=True,
              help="The running server to ask.")  # fmt: skip
@click.option(
    "--token-file", envvar="BOOTWIRE_TOKEN_FILE", metavar="FILE", default="",
    help="A copy of the server's web-token, to ask another machine's server.",
)  # fmt: skip
@STATE_OPTION
@JSON_OPTION
def diff(one: str, other: str, page: str, token_file: str, state_dir: str | None, as_json: bool) -> None:
    """What differs between two boots: stages, options, files, sizes, times, verdict.

    ONE and OTHER are each a boot's number, a machine's MAC (its last boot; MAC~1 is the one before), or a file of JSON
    lines (its last boot; FILE:MAC the last one of a machine). A running server is asked, else its state directory.
    Exit status 0: they went the same way; 1: they did not.
    """
    from bootwire.compare import run

    finish(lambda: run(one, other, page, token_file, state_dir, as_json))


def card_options(command: Callable[..., int]) -> Callable[..., None]:
    """The options of commands that may use a network card of their own, gathered into one Card value or None."""

    options = [
        click.option(
            "--nic", envvar="BOOTWIRE_NIC", metavar="NAME",
            help="Use our own TCP/IP on this interface, or on a new TAP device (tap:NAME). Needs root."
            "  [default: the machine's own]",
        ),
        click.option("--address", metavar="ADDRESS/BITS", default="", help="Our address.  [default: ask DHCP]"),
        click.option("--gateway", metavar="ADDRESS", default="", help="Default router, with --address."),
        click.option("--dns", multiple=True, metavar="ADDRESS", help="Name server; repeatable."),
        click.option("--mac", metavar="MAC", default="", help="Our MAC address.  [default: random]"),
        click.option("--vlan", metavar="ID", default=0, type=click.IntRange(0, 4094), help="Be on this 802.1Q VLAN."),
        click.option("--pcap", metavar="FILE", default="", help="Record all that passes our card."),
    ]  # fmt: skip

    @functools.wraps(command)
    def with_card(
        *,
        nic: str | None,
        address: str,
        gateway: str,
        dns: tuple[str, ...],
        mac: str,
        vlan: int,
        pcap: str,
        **rest: Any,
    ) -> None:
        def run() -> int:
            card = _card(nic, mac, address, gateway, dns, pcap, vlan)
            return _explained(lambda: command(card, **rest), card)

        finish(run)

    wrapped: Callable[..., None] = with_card
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _card(
    nic: str | None, mac: str, address: str, gateway: str, dns: tuple[str, ...], pcap: str, vlan: int
) -> Card | None:
    """The card that the options describe, None without --nic. Raises StartError (status 2): no such, or no sense."""
    from bootwire.preboot.online import Card, wrong
    from bootwire.serve.mode import StartError

    given = {"--address": address, "--gateway": gateway, "--dns": dns, "--mac": mac, "--vlan": vlan, "--pcap": pcap}
    if not nic:
        if alone := [option for option, value in given.items() if value]:
            raise StartError(f"{alone[0]} is about a network card of our own\n  try  --nic eth0", 2)
        return None
    card = Card(nic, mac, address, gateway, dns, pcap, vlan)
    if why := wrong(card):
        raise StartError(why, 2)
    return card


def _explained(run: Callable[[], int], card: Card | None) -> int:
    """Network errors as one line and status 1, wrong input as status 2."""
    from bootwire.serve.mode import StartError

    try:
        return run()
    except OSError as error:
        if isinstance(error, PermissionError) and error.filename in (None, "/dev/net/tun"):
            from bootwire.app import command

            what = "a network card of our own needs root (CAP_NET_RAW, CAP_NET_ADMIN)" if card else str(error.strerror)
            raise StartError(f"{what}\n  run  sudo {command()} {shlex.join(sys.argv[1:])}") from None
        if error.filename is not None:
            raise StartError(f"{os.fsdecode(error.filename)}: {error.strerror}") from None
        raise StartError(str(error) if error.errno is None else error.strerror or str(error)) from None
    except ValueError as error:
        raise StartError(str(error), 2) from None


@main.command()
@click.argument("host")
@click.option("-c", "--count", default=4, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--size", default=56, show_default=True, type=click.IntRange(0, 60_000), help="Octets of data in each.")
@card_options
def ping(card: Card | None, host: str, count: int, size: int) -> int:
    """Ask a host whether it is there, from this machine or from a network card of our own."""
    from bootwire.preboot.online import Online
    from bootwire.preboot.ping import KernelCard, OurCard, run

    if card is None:
        return run(KernelCard(), host, count, size, click.echo)
    with Online(card) as online:
        return run(OurCard(online), host, count, size, click.echo)


@main.command()
@click.argument("name")
@card_options
def resolve(card: Card | None, name: str) -> int:
    """The addresses of a name, one a line."""
    from bootwire.preboot.online import Online
    from bootwire.preboot.transport import KernelTransport

    if card is None:
        found = KernelTransport().resolve(name)
    else:
        with Online(card) as online:
            found = online.transport().resolve(name)
    for address in found:
        click.echo(address)
    return 0


@main.command()
@click.argument("url")
@click.option("-o", "--output", metavar="FILE", help="Where to put it; - is stdout.  [default: the URL's last part]")
@click.option("--digest", metavar="sha256:HEX", default="", help="Refuse a file of another digest.")
@card_options
def fetch(card: Card | None, url: str, output: str | None, digest: str) -> int:
    """Fetch a file by http, https, tftp or ftp; it is there whole, or not at all.

    Proxies are taken from http_proxy, https_proxy and no_proxy. With --nic everything goes over our own TCP/IP.
    """
    from bootwire.preboot.fetch import Fetched, Fetcher, Options, parse
    from bootwire.preboot.online import Online
    from bootwire.preboot.proxies import Proxies
    from bootwire.preboot.transport import KernelTransport, Transport
    from bootwire.serve.mode import StartError

    target = output or parse(url).target.partition("?")[0].rpartition("/")[2]
    if not target or target in (".", ".."):
        raise StartError(f"{url} names no file\n  try  --output FILE", 2)

    def go(transport: Transport) -> int:
        with Fetcher(transport, Options(proxies=Proxies.from_environment(os.environ))) as fetcher:
            progress = _Percentage() if sys.stderr.isatty() else None
            got: Fetched
            if target == "-":
                got = fetcher.fetch(url, sys.stdout.buffer.write, digest=digest, progress=progress)
                sys.stdout.buffer.flush()
            else:
                got = fetcher.save(url, target, digest=digest, progress=progress)
        rate = got.octets * 8e-6 / max(got.seconds, 1e-9)
        click.echo(f"{got.octets} octets in {got.seconds:.2f} s, {rate:.0f} Mbit/s, sha256 {got.sha256}", err=True)
        return 0

    if card is None:
        return go(KernelTransport())
    with Online(card) as online:
        return go(online.transport())


@main.command()
@click.argument("url")
@card_options
def ls(card: Card | None, url: str) -> int:
    """What is in a directory of a web server: size, moment (UTC) and name, one a line."""
    from bootwire.preboot.console import listed
    from bootwire.preboot.fetch import Fetcher, Options
    from bootwire.preboot.httpfs import HttpFs
    from bootwire.preboot.online import Online
    from bootwire.preboot.proxies import Proxies
    from bootwire.preboot.transport import KernelTransport, Transport

    def go(transport: Transport) -> int:
        with Fetcher(transport, Options(proxies=Proxies.from_environment(os.environ))) as fetcher:
            for line in listed(HttpFs(fetcher, url).ls()):
                click.echo(line)
        return 0

    if card is None:
        return go(KernelTransport())
    with Online(card) as online:
        return go(online.transport())


@main.command()
@click.argument("server", required=False)
@click.option("--wait", is_flag=True, help="Where the answer is to wait, wait for the order.")
@click.option("--keep-asking", is_flag=True, help="Until somebody answers, instead of 62 seconds.")
@click.option("--fallback", metavar="ACTION", help="What to do without an answer, as for `order`.")
@click.option("--host-key", default="", metavar="TEXT", help="Say who we are, as bootinfoclient -k does.")
@click.option("--keys", metavar="FILE", help="Seal questions and believe only sealed answers: a file as the server's.")
@click.option("--identity", metavar="NAME", help="Whose key to use.  [default: the first of the file]")
@JSON_OPTION
@card_options
def ask(card: Card | None, server: str | None, as_json: bool, **chosen: Any) -> int:
    """Ask a server by bootinfo what this machine shall do, and print that.

    SERVER may be left out with --nic: DHCP tells which one it is.
    """
    from bootwire.preboot.ask import command
    from bootwire.preboot.online import Online
    from bootwire.preboot.transport import KernelTransport

    def tell(line: str) -> None:
        click.echo(line, err=True)

    if card is None:
        return command(KernelTransport(), server or "", as_json, click.echo, tell, **chosen)
    with Online(card) as online:
        told = server or (online.network.boot_server or online.network.server if online.network else "")
        return command(online.transport(), told, as_json, click.echo, tell, **chosen)


@main.command()
@click.argument("machine", required=False)
@click.argument("action", nargs=-1)
@click.option("--cmdline", default="", metavar="TEXT", help="Command line to go with the action.")
@click.option("--list", "listing", is_flag=True, help="Which machines wait.")
@STATE_OPTION
@JSON_OPTION
def order(
    machine: str | None, action: tuple[str, ...], cmdline: str, listing: bool, state_dir: str | None, as_json: bool
) -> None:
    """Send a waiting machine an order by bootinfo, through the server that runs here.

    MACHINE is a MAC, an address, or all. ACTION is one of: auto (ask again), reboot, restart, wait,
    partition N, disk N partition N, system-id N, memory PATH-OR-URL, multiboot ADDRESS:FILE.
    """
    from bootwire.serve.bootinfo_service import run_list, run_order
    from bootwire.serve.loaders import state_directory

    state = state_directory(state_dir)
    if listing:
        finish(lambda: run_list(click.echo, state, as_json))
    finish(lambda: run_order(click.echo, state, machine or "", " ".join(action), cmdline, as_json))


@main.command()
@click.argument("script", nargs=-1, type=click.Path())
@click.option("-c", "--command", "commands", multiple=True, metavar="TEXT", help="Do this and leave; repeatable.")
@card_options
def console(card: Card | None, script: tuple[str, ...], commands: tuple[str, ...]) -> int:
    """The loader's prompt: look round a network, fetch, load a kernel and let it run.

    Does what -c and the SCRIPT files say, or what comes on standard input. At a terminal it is a prompt with history
    and completion; type help there.
    """
    from pathlib import Path

    from bootwire.preboot.console import Console
    from bootwire.preboot.online import Online

    def go(online: Online | None) -> int:
        shell = Console(
            online,
            say=click.echo,
            write=None if sys.stdout.isatty() else sys.stdout.buffer.write,
            progress=lambda: _Percentage() if sys.stderr.isatty() else None,
        )
        try:
            if not commands and not script and sys.stdin.isatty():
                shell.interact()
                return 0
            lines = [line for text in commands for line in text.splitlines()]
            for path in script:
                lines += Path(path).read_text().splitlines()
            return 0 if shell.script(lines if commands or script else sys.stdin) else 1
        finally:
            sys.stdout.flush()
            shell.close()

    if card is None:
        return go(None)
    with Online(card, threaded=True) as online:
        return go(online)


@main.command("boot-client")
@click.argument("kernel", default="")
@click.argument("initrd", nargs=-1)
@click.option("--cmdline", default="", metavar="TEXT", help="Kernel command line.")
@click.option(
    "--as", "firmware", default="uefi", show_default=True, metavar="KIND",
    help="Without a KERNEL: the firmware to be. bios, uefi, uefi-http, ipxe, u-boot, raspberry-4, raspberry-3.",
)  # fmt: skip
@click.option(
    "--then", "way", type=click.Choice(["show", "save", "qemu", "kexec"]), default="show", show_default=True,
    help="What becomes of the kernel: told, written to a directory, started in QEMU, or on this machine.",
)  # fmt: skip
@click.option("-o", "--output", metavar="DIR", default="", help="Where save writes to.")
@card_options
def boot_client(
    card: Card | None, kernel: str, initrd: tuple[str, ...], cmdline: str, firmware: str, way: str, output: str
) -> int:
    """Boot from the network, as a machine would: fetch a kernel and its INITRDs, and start them.

    KERNEL and INITRD are URLs. Without them the network decides: with --nic this is a machine with the given firmware,
    from power-on, and what its DHCP and boot servers give it is what starts.
    """
    from dataclasses import replace

    from bootwire.preboot.console import Console
    from bootwire.preboot.online import Online
    from bootwire.serve.mode import StartError

    if (way == "save") != bool(output):
        raise StartError("--then save writes to a directory\n  try  --then save --output DIR", 2)
    if not kernel and card is None:
        raise StartError("a machine that asks the network needs a card\n  try  --nic eth0, or name a KERNEL", 2)
    if not kernel and card is not None and (cmdline or card.address):
        raise StartError("without a KERNEL the network tells the command line and the address", 2)
    lines = [f"load {kind} {shlex.quote(url)}" for kind, url in (("kernel", kernel), *(("initrd", i) for i in initrd))]
    lines = [*lines, f"set {shlex.quote('cmdline=' + cmdline)}"] if kernel else [f"poweron {shlex.quote(firmware)}"]
    lines.append(f"boot {way} {shlex.quote(output) if output else ''}")

    def go(online: Online | None) -> int:
        shell = Console(
            online, say=click.echo, progress=lambda: _Percentage() if sys.stderr.isatty() else None
        )  # fmt: skip
        try:
            return 0 if shell.script(lines) else 1
        finally:
            shell.close()

    if card is None:
        return go(None)
    with Online(replace(card, bare=not kernel), threaded=True) as online:
        return go(online)


@main.command()
@click.option(
    "--as", "firmware", multiple=True, metavar="KIND",
    help="A firmware to be; repeatable. bios, uefi, uefi-http, ipxe, u-boot, raspberry-4, raspberry-3."
    "  [default: the first four]",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Where each finding is known from.")
@click.option("--html", "page", metavar="FILE", default="", help="The report as one HTML page, too.")
@JSON_OPTION
@card_options
def doctor(card: Card | None, firmware: tuple[str, ...], verbose: bool, page: str, as_json: bool) -> int:
    """Be a machine of each firmware in turn on this network, and say what is wrong with it.

    Takes an address for each. Exit status: 0 nothing is wrong, 3 warnings, 4 errors.
    """
    from bootwire.serve.doctor import run
    from bootwire.serve.mode import StartError

    if card is None:
        raise StartError("the doctor needs a card on the network\n  try  --nic eth0", 2)
    if card.address:
        raise StartError("the doctor asks the network for its addresses: leave out --address", 2)
    if page and not os.path.isdir(os.path.dirname(page) or "."):
        raise StartError(f"cannot write {page}: there is no such folder", 2)
    return run(click.echo, card, firmware, as_json, verbose, page)


class _Percentage:
    """Progress of a long transfer on one line of a terminal, at most five times a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, octets: int, size: int | None) -> None:
        now = time.monotonic()
        if now < self._next and octets != size:
            return
        self._next = now + 0.2
        share = f"{octets * 100 // size:3} %" if size else "     "
        click.echo(f"\r{share}  {octets / 1e6:9.1f} MB", nl=octets == size, err=True)
