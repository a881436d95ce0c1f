"""A visitor is a cookie with a random value that scripts cannot read."""

import re
import secrets

COOKIE = "streamvggt_visitor"
VALUE = re.compile(r"[A-Za-z0-9_-]{32}")


def session_id(cookies: dict[str, str]) -> str | None:
    """Return the visitor of parsed cookies, None without one."""
    value = cookies.get(COOKIE)
    return value if value is not None and VALUE.fullmatch(value) else None


def visitor_in(headers: list[str]) -> str | None:
    """Return the visitor of raw `Cookie` headers, whatever else they contain; the first of several.

    Browsers send the cookies of all programs on a host, so other cookies need not have any particular form.
    """
    for pair in ";".join(headers).split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE and VALUE.fullmatch(value):
            return value
    return None


def new_session_cookie(is_https: bool) -> str:
    """Return a `Set-Cookie` value for the browser session; behind https also valid in another site's frame."""
    rules = "SameSite=None; Secure; Partitioned" if is_https else "SameSite=Lax"
    return f"{COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; {rules}"
