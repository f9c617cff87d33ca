"""Who may see the page: everybody on this machine, or whoever has the token."""

from __future__ import annotations

import hashlib
import hmac
import re

LOOPBACK = ("127.0.0.1", "::1", "localhost")
COOKIE_S = 30 * 24 * 3600
_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")


class Access:
    """The rules of one page."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._loopback = host in LOOPBACK
        self._token = token.encode()
        # Not the token itself: a cookie is written to disk, and opens this page only.
        self._cookie = hmac.new(self._token, b"edge-vad status page", hashlib.sha256).hexdigest()
        self._cookie_name = f"edge-vad-{port}"  # cookies know hosts, not ports

    def host_allowed(self, host: str | None) -> bool:
        """On the loopback the Host header must name it: a website whose name leads here must not read the page."""
        return not self._loopback or bool(_HOST.fullmatch((host or "").lower()))

    def is_token(self, text: str) -> bool:
        """Whether this is the token."""
        return bool(self._token) and hmac.compare_digest(text.encode("utf-8", "replace"), self._token)

    def allowed(self, authorization: str | None, cookies: str | None) -> bool:
        """Whether a request's headers show that its sender has the token, where one is needed."""
        if not self._token:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(token.strip()):
            return True
        pairs = (pair.strip().partition("=") for pair in (cookies or "").split(";"))
        found = [value for name, _, value in pairs if name == self._cookie_name]
        return any(hmac.compare_digest(value.encode("utf-8", "replace"), self._cookie.encode()) for value in found)

    def cookie(self) -> str:
        """The Set-Cookie header that remembers the token."""
        return f"{self._cookie_name}={self._cookie}; Path=/; Max-Age={COOKIE_S}; HttpOnly; SameSite=Strict"
