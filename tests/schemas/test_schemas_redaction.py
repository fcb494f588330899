"""What people may read of a text: no secret survives, nothing else is lost, and length costs nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.schemas.redaction import GONE, beginning, end, redacted

SECRET = "hunter2-and-more"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEhunter2-and-more\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        f"https://olga:{SECRET}@git.acme.com/x.git",
        f"SSH://{SECRET}@git.acme.com/x.git",
        f"Authorization: Bearer {SECRET}",
        f"authorization=token {SECRET}",
        f'"Authorization": "Basic {SECRET}"',
        f"curl -H 'authorization: {SECRET}'",
        f"sent bearer {SECRET} to it",
        f"password={SECRET}",
        f"password = '{SECRET} {SECRET}'",
        f'{{"api_key": "{SECRET}"}}',
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"GIT_TOKEN: {SECRET}",
        f"https://store.acme.com/model?key={SECRET}&x=1",
        f"https://acct.blob.core.windows.net/c?sv=1&sig={SECRET}",
        f"https://s3.acme.com/m?X-Amz-Signature={SECRET}",
        KEY,
        KEY.partition("\n")[2],
        KEY.rpartition("\n")[0],
        f"client_secret={SECRET}; passphrase: {SECRET}",
    ],
)
def test_a_planted_secret_is_gone(text: str) -> None:
    """Whatever its form, and also in the middle of a longer text."""
    for shown in (redacted(text), redacted(f"before\n{text}\nafter")):
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    "token",
    [
        "AKIA" + "ABCDEFGH23456789",
        "ghp_" + "a1" * 18,
        "glpat-" + "a1" * 12,
        "xoxb-" + "123456789012",
        "github_pat_" + "a1" * 20,
    ],
)
def test_a_token_is_known_by_its_shape(token: str) -> None:
    """Without any word before it."""
    assert redacted(f"used {token}, denied") == f"used {GONE}, denied"


@pytest.mark.parametrize(
    "text",
    [
        "models/production/a.yaml:5 (model_card_ref.ref): REF_UNPINNED: 'main' is neither a tag nor a commit id",
        "duplicate key: replicas",
        "max_tokens: 512, tokenizer: bert, tokenise=yes, tokens=7",
        "author: Olga Ops <olga@acme.com>",
        "s3://models/fraud/v2.0.1/model.pt is missing",
        "git@git.acme.com:ops/registry.git",
        'File "/srv/model/src/model.py", line 3, in load',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Codes, places and tracebacks are what the text is for."""
    assert redacted(text) == text


PARTS = ["token", "=", ":", " ", '"', "'", "bearer ", "authorization", "hunter2", "://", "@", "\n", "]", GONE]


@given(st.lists(st.sampled_from(PARTS)).map("".join))
def test_redacting_again_changes_nothing(text: str) -> None:
    """A text may pass more than one of the places that redact."""
    assert redacted(redacted(text)) == redacted(text)


def test_fifty_megabytes_are_cut_first() -> None:
    """The end of a traceback is kept in whole lines, the beginning of a message; both say that there was more."""
    stack = "Traceback\n" + f"token={SECRET}\n" * 3_000_000 + "MemoryError"
    shown = end(stack, 1_000)
    assert shown.endswith("MemoryError")
    assert "characters left out" in shown.splitlines()[0]
    assert len(shown) < 1_100
    assert "hunter2" not in shown
    assert len(beginning(stack, 100)) == 100
    assert beginning(stack, 100).endswith("…")


def test_a_secret_at_the_cut_is_gone_too() -> None:
    """Half a secret is no longer known as one, so it is taken out before the cut."""
    for limit in range(1, 60):
        assert "hunter" not in beginning(f"see https://olga:{SECRET}@git.acme.com/ for more", limit)
        assert "hunter" not in end(f"line\n{KEY}\nthe end", limit)
