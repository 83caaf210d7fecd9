"""Who may do what on the management port.

Reading is free on this machine's own loopback; everything else needs the token that lies in the state directory. A
change needs it from everywhere, in the Authorization header: the cookie of a browser that signed in is for reading. So
a page of another site can neither read (its Origin is not ours, and a name of its own that leads here is no loopback
name) nor change anything (no form and no link makes that header).
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

TOKEN_FILE = "web-token"
COOKIE = "bootwire"
SIGN_IN = "/sign-in"
_OPEN = (SIGN_IN, "/static/", "/healthz")
_READS = ("GET", "HEAD")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with "no-referrer" a form's Origin would be null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "bootwire",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def token(folder: Path) -> str:
    """The token in this state directory, made at the first call (256 bits, mode 0600). Raises OSError."""
    path = folder / TOKEN_FILE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        found = path.read_text().strip()
        if not found:
            raise OSError(f"{path} is empty: delete it") from None
        return found
    text = secrets.token_urlsafe(32)
    with os.fdopen(made, "w") as file:
        file.write(text + "\n")
    return text


def guard(secret: str) -> Middleware:
    """The middleware that keeps all of the above, for every route there is."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        because = "" if request.path.startswith(_OPEN) else _refusal(request, secret)
        response: web.StreamResponse
        if because:
            response = _refuse(request, because)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = error
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
        if isinstance(response, web.HTTPException):
            raise response
        return response

    return check


async def sign_in(request: web.Request, secret: str) -> web.StreamResponse:
    """POST /sign-in with the token: a cookie for this browser, good until it is closed."""
    if _from_elsewhere(request):
        raise web.HTTPForbidden(text="a page of another site may not sign in here")
    form = await request.post()
    given = form.get("token", "")
    if not isinstance(given, str) or not _same(given.strip(), secret):
        raise web.HTTPSeeOther(f"{SIGN_IN}?wrong=1")
    response = web.HTTPSeeOther("/")
    response.set_cookie(COOKIE, secret, httponly=True, samesite="Strict", path="/", secure=request.secure)
    raise response


def has_token(request: web.Request, secret: str) -> bool:
    """Whether the request brings the token: in its header, or to read in the cookie of a browser that signed in."""
    given = request.headers.get("Authorization", "")
    if given.startswith("Bearer "):
        return _same(given.removeprefix("Bearer ").strip(), secret)
    return request.method in _READS and _same(request.cookies.get(COOKIE, ""), secret)


def _refusal(request: web.Request, secret: str) -> str:
    """Why this request may not be answered, "" if it may."""
    if _from_elsewhere(request):
        return "a page of another site asks"
    if has_token(request, secret):
        return ""
    if request.method not in _READS:
        return "changes need the token"
    if _is_loopback(request.remote or "") and _is_loopback_name(request.host):
        return ""
    return "from another machine, the token is needed"


def _refuse(request: web.Request, because: str) -> web.HTTPException:
    if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        return web.HTTPSeeOther(SIGN_IN)
    where = f"it is in the state directory, file {TOKEN_FILE}: send it as `Authorization: Bearer TOKEN`"
    return web.HTTPUnauthorized(text=f"{because}; {where}\n", headers={"WWW-Authenticate": 'Bearer realm="bootwire"'})


def _from_elsewhere(request: web.Request) -> bool:
    """A browser says that another site's page is behind this request (Fetch Metadata; Origin where it is old)."""
    site = request.headers.get("Sec-Fetch-Site", "")
    if site:
        return site not in ("same-origin", "none") and not (
            request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        )
    origin = request.headers.get("Origin", "")
    return bool(origin) and urlsplit(origin).netloc != request.host


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_loopback_name(host: str) -> bool:
    """Whether a Host header names this machine's own loopback: a foreign name that leads to 127.0.0.1 does not."""
    name = urlsplit(f"//{host}").hostname or ""
    return name == "localhost" or _is_loopback(name)


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())
