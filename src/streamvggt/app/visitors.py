"""Anonymous users, identified by a random cookie that scripts cannot read."""

import re
import secrets

COOKIE = "streamvggt_visitor"
VALUE = re.compile(r"[A-Za-z0-9_-]{32}")


def session_id(cookies: dict[str, str]) -> str | None:
    """Return the session id of parsed cookies, or None."""
    value = cookies.get(COOKIE)
    return value if value is not None and VALUE.fullmatch(value) else None


def visitor_in(headers: list[str]) -> str | None:
    """Return the session id of raw `Cookie` headers, the first if there are several.

    Browsers send the cookies of all applications of a host, so other cookies can have any form.
    """
    for pair in ";".join(headers).split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE and VALUE.fullmatch(value):
            return value
    return None


def new_session_cookie(is_https: bool) -> str:
    """Return a `Set-Cookie` value for the browser session. With https it is also valid in frames of other sites."""
    rules = "SameSite=None; Secure; Partitioned" if is_https else "SameSite=Lax"
    return f"{COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; {rules}"
