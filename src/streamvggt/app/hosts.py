"""Allowed host names, so that a foreign site cannot use the page through a user's browser.

After DNS rebinding to this machine a foreign site sends its own name as `Host`. A script of another site sends its own
`Origin`. Neither is allowed.
"""

import re
from collections.abc import Iterable

LOOPBACK = ("localhost", "127.0.0.1", "::1")
NETLOC = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>\d{1,5}))?", re.I)
ORIGIN = re.compile(r"(https?)://(.+)", re.I)
DEFAULT_PORTS = {"http": 80, "https": 443}

Netloc = tuple[str, int | None]


class Hosts:
    """Allowed hosts and origins.

    Without a list: the names of this machine, the listening address, and the local address of the connection.

    Args:
        listening: Address the server listens on.
        allowed: Further names, as `example.org` or `example.org:8080`. A name without a port allows any port in `Host`
            and the default ports of http and https in `Origin`.

    Raises:
        ValueError: If an entry of `allowed` is not a host name.
    """

    def __init__(self, listening: str, allowed: Iterable[str] = ()):
        self._own = {*LOOPBACK, listening.strip("[]").lower()}
        self._listed: set[Netloc] = set()
        for text in allowed:
            self.allow(text)

    def allow(self, text: str) -> None:
        """Add a name to the list."""
        netloc = parse_netloc(text)
        if netloc is None:
            raise ValueError(
                f"--allow-host: expected a host name with or without a port, got {text!r}. Write it as example.org."
            )
        self._listed.add(netloc)

    def serves(self, host: str, arrived_at: str | None = None) -> bool:
        """Whether a request with this `Host` header is accepted.

        Args:
            host: The header.
            arrived_at: Local address of the connection. No DNS name equals it.
        """
        netloc = parse_netloc(host)
        if netloc is None:
            return False
        return (
            netloc[0] in self._own
            or netloc[0] == arrived_at
            or not self._listed.isdisjoint({netloc, (netloc[0], None)})
        )

    def trusts(self, origin: str, host: str) -> bool:
        """Whether scripts of this `Origin` may send requests: the page itself, or an allowed host."""
        match = ORIGIN.fullmatch(origin)
        ours, theirs = parse_netloc(host), parse_netloc(match[2]) if match else None
        if ours is None or theirs is None:
            return False
        default = DEFAULT_PORTS[match[1].lower()]
        name, port = theirs[0], theirs[1] or default
        if (name, port) == (ours[0], ours[1] or default):
            return True
        return (name, port) in self._listed or (port == default and (name, None) in self._listed)


def parse_netloc(text: str) -> Netloc | None:
    """Return name in lower case and port, if given, or None if the text is no host."""
    match = NETLOC.fullmatch(text)
    if match is None:
        return None
    return (match["address"] or match["name"]).lower(), int(match["port"]) if match["port"] else None
