"""Signatures of requests to object storages are those that Amazon's own library makes."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials as Theirs  # type: ignore[import-untyped]

from scalelite.core.model import Secret
from scalelite.edge.signature import Credentials, Unsigned, signed_headers

HOST = "s3.eu-central-1.amazonaws.com"


@pytest.mark.shows("recordings: S3")
@pytest.mark.parametrize("token", ["", "lent+for/a=time"], ids=["own key", "lent key"])
@pytest.mark.parametrize(
    ("method", "key", "query", "body"),
    [
        ("GET", "presentation/abc.1-2/metadata.xml", {}, b""),
        ("PUT", "notes/a b+ä&~'(1)*!.txt", {}, b"content"),
        ("GET", "", {"list-type": "2", "prefix": "video/a b~/", "continuation-token": "1/+="}, b""),
        ("POST", "video/v.m4v", {"uploads": ""}, b""),
        ("PUT", "video/v.m4v", {"partNumber": "2", "uploadId": "x-_.~y"}, b"a part"),
    ],
)
def test_signatures_are_those_of_amazons_library(
    method: str, key: str, query: dict[str, str], body: bytes, token: str
) -> None:
    path = quote(f"/bucket/{key}".rstrip("/"), safe="/~")
    ours = Unsigned(method, HOST, path, query, {"content-md5": "Zm9v"} if body else {}, body)
    theirs = AWSRequest(
        method, f"https://{HOST}{path}?{ours.raw_query}", {**ours.headers, "X-Amz-Content-SHA256": "own"}, body
    )
    theirs.context["payload_signing_enabled"] = True
    S3SigV4Auth(Theirs("AKID", "the secret", token or None), "s3", "eu-central-1").add_auth(theirs)
    at = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    headers = signed_headers(ours, Credentials("AKID", Secret("the secret"), "eu-central-1", Secret(token)), at)
    assert headers["authorization"] == theirs.headers["Authorization"]
    assert headers["x-amz-content-sha256"] == theirs.headers["X-Amz-Content-SHA256"]
