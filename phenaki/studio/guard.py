"""Who may ask the studio: loopback or a password, its own pages, each browser by its cookie."""

import base64
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from phenaki.errors import UserError

HEADERS = {
    # The page fetches from nowhere else, and no other page may show or use it.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
OWN = "x-studio"  # header of every request that changes something: other sites cannot send it
USER = "studio"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(host: str, password: str | None) -> None:
    """Raises `UserError` unless `host` is loopback or there is a password."""
    if not is_loopback(host) and not password:
        raise UserError(
            f"--host={host}: other machines reach the studio there; give a password, too, "
            "by --password or STUDIO_PASSWORD, or leave --host out for 127.0.0.1."
        )
    if password is not None and len(password) < 8:
        raise UserError("the password must have at least 8 characters.")


class Guard(NamedTuple):
    """What a request needs.

    Attributes:
        host: that the studio listens on.
        port: the same.
        password: None where none is needed.
    """

    host: str
    port: int
    password: str | None

    @property
    def cookie(self) -> str:
        """Its name: browsers share cookies between the ports of a machine."""
        return f"studio-{self.port}"

    def refusal(self, method: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """(status, why) of a request that is refused."""
        name = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if is_loopback(self.host) and not is_loopback(name):
            # Another site whose name was pointed at this machine.
            return 421, "the studio answers to 127.0.0.1 and localhost only."
        if self.password is not None and not self._knows(headers.get("authorization", "")):
            return 401, "the studio needs its user name and password."
        if method not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2] != headers.get("host"):
                return 403, "another site may not use the studio."
            if OWN not in headers:
                return 403, f"the header {OWN} is missing."
        return None

    def _knows(self, given: str) -> bool:
        kind, _, code = given.partition(" ")
        try:
            text = base64.b64decode(code, validate=True) if kind.lower() == "basic" else b""
        except ValueError:
            return False
        right = f"{USER}:{self.password}".encode()
        return hmac.compare_digest(text, right)


def new_token() -> str:
    """A cookie that cannot be guessed."""
    return secrets.token_urlsafe(24)


def owner_of(token: str) -> str:
    """The name of its owner's folders, from which the cookie cannot be found."""
    return hashlib.sha256(token.encode()).hexdigest()[:24]
