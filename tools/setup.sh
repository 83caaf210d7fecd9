# Sourced by ./bootwire and ./check: finds a Python, makes the virtual environment, installs Debian packages.
# Needs nothing but a POSIX shell. Says what it does on stderr before doing it; every failure names the remedy.

say() { printf '%s\n' "$*" >&2; }

die() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

# A Python of at least 3.11. The distribution's own comes first: it is the optimised build.
find_python() {
    for candidate in ${BOOTWIRE_PYTHON:-} /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# need_debian PACKAGE…: installs those that are missing. As root with apt-get; else says which command to run.
need_debian() {
    missing=
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 ||
        die "these packages are missing and there is no apt-get here:$missing" "install what your distribution calls them"
    [ "$(id -u)" = 0 ] || die "these packages are missing:$missing" "run  sudo apt-get install --no-install-recommends$missing"
    say "installing with apt:$missing"
    # Services of the packages are for the tests to start, in namespaces of their own: nothing may start by itself.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT INT TERM
        made_policy=yes
    fi
    log=$(mktemp)
    # shellcheck disable=SC2086
    if { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing ||
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; }
    } >"$log" 2>&1 </dev/null; then
        installed=yes
    else
        installed=
    fi
    if [ -n "${made_policy:-}" ]; then
        rm -f "$policy"
        trap - EXIT INT TERM
        made_policy=
    fi
    [ -n "$installed" ] || { tail -n 15 "$log" >&2; rm -f "$log"; die "apt-get could not install:$missing"; }
    rm -f "$log"
}

# make_venv DIR REQUIREMENTS: a virtual environment with exactly those packages; done again only when the list changes.
make_venv() {
    venv=$1 list=$2
    python=$(find_python) || die "no Python 3.11 or newer found" "run  sudo apt-get install python3"
    stamp=$(cat "$here/requirements.txt" "$list" | cksum | tr ' ' '-')-$("$python" -c 'import sys; print(sys.version_info[:3])' | tr -d ' ')
    [ "$(cat "$venv/stamp" 2>/dev/null)" = "$stamp" ] && [ -x "$venv/bin/python" ] && return 0
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if command -v dpkg-query >/dev/null 2>&1 && [ "$python" = /usr/bin/python3 ]; then
            need_debian python3-venv
        else
            die "$python has no venv module" "install it (Debian: sudo apt-get install python3-venv), or set BOOTWIRE_PYTHON"
        fi
    fi
    place=$(dirname "$venv")
    mkdir -p "$place" && [ -w "$place" ] ||
        die "Python packages cannot be set up in $place: $(id -un) may not write there" "use a checkout of your own"
    # Two first starts at once take turns; the second finds the work done.
    exec 9>"$venv.lock"
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
        say "setting up Python packages in $venv (once)"
        rm -rf "$venv"
        if ! { "$python" -m venv "$venv" &&
            "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$list"; } >&2; then
            rm -rf "$venv"
            die "could not install the Python packages of $list" "look at the lines above; then run the same command again"
        fi
        printf '%s\n' "$stamp" >"$venv/stamp"
        # Made by root for a checkout that is somebody's: theirs, so that they can renew it.
        [ "$(id -u)" != 0 ] || chown -R --reference="$here" "$venv" "$venv.lock"
    fi
    exec 9>&-
}
