"""Records as HTTP requests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit, urlunsplit

from edge_vad.errors import OutputError
from edge_vad.record import Record
from edge_vad.sinks.base import Sink

log = logging.getLogger(__name__)
TIMEOUT_S = 10.0
AGAIN = (408, 429)  # of the 4xx: the same request may be taken later
COMPLAIN_S = 60.0


class Webhook(Sink):
    """``webhook:https://HOST/PATH[#secret=$VARIABLE]``: one POST of application/json for each record.

    Any 2xx is an acknowledgement. A 4xx other than 408 and 429 says that the receiver will never take this record: it is
    logged, counted and not sent again. Everything else, redirects too, is tried again. ``X-Edge-Vad-Id`` tells records
    apart that come twice; with a secret, ``X-Edge-Vad-Signature`` is ``sha256=`` and the HMAC-SHA256 of the body.
    """

    remote: ClassVar[bool] = True

    def __init__(self, location: str) -> None:
        url = _split(location)
        self._shown = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
        self._url = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path or "/", url.query, ""))
        self._secret = _secret(url.fragment, self._shown).encode()
        self._authorization = _basic(url.netloc.rpartition("@")[0])
        context = ssl.create_default_context() if url.scheme == "https" else None
        handlers = [urllib.request.HTTPSHandler(context=context)] if context else []
        self._opener = urllib.request.build_opener(_NoRedirects, *handlers)
        self._complained = -COMPLAIN_S
        self.n_refused = 0

    def write(self, record: Record) -> None:
        body = record.line().encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "edge-vad",
            "X-Edge-Vad-Id": f"{record.boot}/{record.seq}",
        }
        if self._secret:
            headers["X-Edge-Vad-Signature"] = "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        if self._authorization:
            headers["Authorization"] = self._authorization
        status = self._post(urllib.request.Request(self._url, body, headers, method="POST"))
        if 400 <= status < 500 and status not in AGAIN:
            self._refused(status)
        elif not 200 <= status < 300:
            advice = "; redirects are not followed, name the final address" if 300 <= status < 400 else ""
            raise OutputError(f"webhook {self._shown}: answers {status}{advice}")

    def _post(self, request: urllib.request.Request) -> int:
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except urllib.error.URLError as error:
            reason = getattr(error.reason, "strerror", None) or error.reason
            raise OutputError(f"webhook {self._shown}: cannot be reached: {reason}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise OutputError(f"webhook {self._shown}: no answer: {type(error).__name__}") from error

    def _refused(self, status: int) -> None:
        self.n_refused += 1
        if time.monotonic() - self._complained >= COMPLAIN_S:
            self._complained = time.monotonic()
            log.warning("webhook %s: refuses records with %d; %d so far", self._shown, status, self.n_refused)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A record and its signature go to the host that was named, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _split(location: str) -> Any:
    """The parts of the address; OutputError, which shows nothing of it, when it is none."""
    try:
        url = urlsplit(location)
        good = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        good = False
    if not good or not re.fullmatch(r"[\x21-\x7e]+", location):
        raise OutputError("webhook: expected http://HOST/PATH or https://HOST/PATH, without blanks; see the sinks' page")
    return url


def _secret(fragment: str, shown: str) -> str:
    """The value of ``secret=``; of a variable when it begins with ``$``."""
    if not fragment:
        return ""
    key, _, text = fragment.partition("=")
    if key != "secret" or not text:
        raise OutputError(f"webhook {shown}: behind the # only secret=$VARIABLE is known")
    if not text.startswith("$"):
        return unquote(text)
    if not os.environ.get(text[1:]):
        raise OutputError(f"webhook {shown}: the variable {text[1:]} for its secret is not set")
    return os.environ[text[1:]]


def _basic(credentials: str) -> str:
    if not credentials:
        return ""
    return "Basic " + base64.b64encode(unquote(credentials).encode()).decode("ascii")
