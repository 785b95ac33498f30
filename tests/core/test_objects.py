"""Signatures of requests to an S3 store, with Amazon's own client as the judge."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from deliveries.objects import Away, Bucket

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
BUCKET = Bucket("https://s3.eu-central-1.example", "bodies", "eu-central-1", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG")


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("path", ["/bodies/a/b", "/bodies/0198-x/%C3%A4%20b~_.-"])
def test_a_request_is_signed_as_amazons_client_signs_it(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    octets = b"octets" if method == "PUT" else b""
    host = "s3.eu-central-1.example"
    ours = BUCKET.headers(method, host, path, octets, NOW)
    request = AWSRequest(
        method, f"https://{host}{path}", data=octets, headers={"x-amz-content-sha256": ours["x-amz-content-sha256"]}
    )
    request.context["timestamp"] = "20260304T050607Z"
    theirs = S3SigV4Auth(Credentials(BUCKET.access_key, BUCKET.secret_key), "s3", BUCKET.region)
    request.headers["X-Amz-Date"] = "20260304T050607Z"
    canonical = theirs.canonical_request(request)
    signature = theirs.signature(theirs.string_to_sign(request, canonical), request)
    assert ours["authorization"].endswith(f"Signature={signature}")


def test_a_store_that_cannot_be_reached_is_away_in_words() -> None:
    with pytest.raises(Away, match=r"127\.0\.0\.1:1 cannot be asked"):
        Bucket("http://127.0.0.1:1", "b", "x", "a", "s").get("key")
