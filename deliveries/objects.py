"""A bucket of an S3-compatible store: put, get and delete one object. Nothing else of S3 is needed here.

Requests go to the configured endpoint alone, path-style (`ENDPOINT/BUCKET/KEY`), and are signed with AWS Signature
Version 4 ("Signature Version 4 signing process", AWS General Reference): canonical request, string to sign, a key
derived from date, region and service, HMAC-SHA256. Each request has a connection of its own, so that any thread may
ask. 404 is an answer; everything else that is not 2xx, and every failure of the connection, is Away.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

#: a connection, and each read and write on it
_TIMEOUT_S = 20.0
#: of an error's text that is told
_MOST_TOLD = 200
_ALGORITHM = "AWS4-HMAC-SHA256"


class Away(Exception):
    """The store did not do it: it cannot be reached, or refused. To be asked again later."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """`endpoint` is a URL without a path: https://s3.eu-central-1.amazonaws.com, http://127.0.0.1:9000."""

    endpoint: str
    name: str
    region: str
    access_key: str
    secret_key: str

    def put(self, key: str, octets: bytes) -> None:
        status, answer = self._ask("PUT", key, octets)
        if status // 100 != 2:
            raise Away(_told("PUT", status, answer))

    def get(self, key: str) -> bytes | None:
        """None where there is no such object."""
        status, answer = self._ask("GET", key)
        if status == 404 and b"NoSuchBucket" not in answer:
            return None
        if status != 200:
            raise Away(_told("GET", status, answer))
        return answer

    def delete(self, key: str) -> None:
        """Also where it was not there."""
        status, answer = self._ask("DELETE", key)
        if status // 100 != 2 and status != 404:
            raise Away(_told("DELETE", status, answer))

    def _ask(self, method: str, key: str, octets: bytes = b"") -> tuple[int, bytes]:
        parts = urlsplit(self.endpoint)
        path = quote(f"/{self.name}/{key}", safe="/-_.~")
        host = parts.netloc
        signed = self.headers(method, host, path, octets, datetime.now(UTC))
        if parts.scheme == "https":
            line: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, timeout=_TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            line = http.client.HTTPConnection(host, timeout=_TIMEOUT_S)
        try:
            line.request(method, path, body=octets if method == "PUT" else None, headers=signed)
            answer = line.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as e:
            raise Away(f"{host} cannot be asked: {e or type(e).__name__}") from None
        finally:
            line.close()

    def headers(self, method: str, host: str, path: str, octets: bytes, now: datetime) -> dict[str, str]:
        """The header fields of a signed request without a query."""
        stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
        content = hashlib.sha256(octets).hexdigest()
        fields = {"host": host, "x-amz-content-sha256": content, "x-amz-date": stamp}
        names = ";".join(fields)
        canonical = "\n".join([method, path, "", *(f"{n}:{v}" for n, v in fields.items()), "", names, content])
        scope = f"{day}/{self.region}/s3/aws4_request"
        to_sign = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = _mac(key, part)
        signature = _mac(key, to_sign).hex()
        credential = f"{self.access_key}/{scope}"
        authorization = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        return {**fields, "authorization": authorization}


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _told(method: str, status: int, answer: bytes) -> str:
    return f"{method} was answered {status}: {answer[:_MOST_TOLD].decode('utf-8', 'replace')}"
