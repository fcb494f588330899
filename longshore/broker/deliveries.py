"""One delivery of a git host's webhook, from headers and body to what it says. Pure, and nothing in it is obeyed.

What it names (commit, repository, URLs) is compared and awaited, never fetched: the poll's truth comes from the
configured URL (FAULTS R5, 9, 14).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from longshore.broker.payloads import is_deletion, pushed_heads, read_payload, repository_named
from longshore.broker.signatures import Headers, Proof, Secrets, authenticate, signature_header
from longshore.schemas.failures import LongshoreError

# GitHub caps its payloads at 25 MB and sends far less for a push; what is larger is found by the poll.
MAX_BODY = 1024 * 1024

# The push events by the header that names them; any other event is none of our business.
_PUSHES = {
    "x-github-event": {"push"},
    "x-gitea-event": {"push"},
    "x-forgejo-event": {"push"},
    "x-gitlab-event": {"Push Hook"},
    "x-event-key": {"repo:push", "repo:refs_changed"},  # Bitbucket Cloud and Data Center
}

# What stays the same when a host delivers again. GitLab's first two are the better ones: the first is signed, and its
# event id is shared by hooks that set off one another. Data Center's stands last: proxies add one of that name.
_DELIVERY_IDS = (
    "webhook-id",
    "idempotency-key",
    "x-github-delivery",
    "x-forgejo-delivery",
    "x-gitea-delivery",
    "x-gitlab-event-uuid",
    "x-request-uuid",  # Bitbucket Cloud
    "x-request-id",  # Bitbucket Data Center
)

_LENGTH = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True)
class Delivery:
    """What an authenticated delivery says."""

    proof: Proof
    id: str | None
    """The host's name for it, the same when it is delivered again."""
    event: str
    """As the host calls it; empty where none is named."""
    is_push: bool
    heads: dict[str, str | None]
    """The new head of each branch that was pushed, as `pushed_heads` has them."""
    repository: str | None
    """`ops/model-registry`, where the payload names it."""


def refuse_unread(headers: Headers, secrets: Secrets) -> None:
    """Refuse what the headers alone condemn, before one byte of the body is read (FAULTS 1, 11).

    Raises LongshoreError WEBHOOK_UNSIGNED, WEBHOOK_BAD_JSON (compressed), WEBHOOK_TOO_LARGE.
    """
    signature_header(headers, secrets)
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise LongshoreError("WEBHOOK_BAD_JSON", f"the body is encoded as {shown(encoding)}; nothing is unpacked here")
    announced = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(announced) or int(announced) > MAX_BODY:
        raise LongshoreError("WEBHOOK_TOO_LARGE", f"a delivery has at most {MAX_BODY:,} bytes")


def read_delivery(headers: Headers, body: bytes, secrets: Secrets) -> Delivery:
    """Return what the delivery says, once its signature over the raw `body` fits one of the `secrets`.

    Raises LongshoreError WEBHOOK_UNSIGNED, WEBHOOK_BAD_SIGNATURE, WEBHOOK_BAD_JSON; nothing else.
    """
    proof = authenticate(headers, body, secrets)
    payload = read_payload(body, headers.get("content-type", ""))
    events = {header: headers[header] for header in _PUSHES if header in headers}
    return Delivery(
        proof=proof,
        id=next((headers[header] for header in _DELIVERY_IDS if headers.get(header)), None),
        event=", ".join(events.values()),
        is_push=any(event in _PUSHES[header] for header, event in events.items()),
        heads=pushed_heads(payload),
        repository=repository_named(payload),
    )


def new_head(delivery: Delivery, branch: str, repository: str | None) -> str | None:
    """Return the commit to which `branch` should lead by now, where the host tells it.

    `repository` is the watched one as a `repository_path`; what cannot be compared is believed, being a hint only.
    Raises LongshoreError WEBHOOK_IGNORED where the delivery is none of our business (FAULTS 13).
    """
    if not delivery.is_push:
        raise _ignored(f"not a push: {shown(delivery.event) if delivery.event else 'no event is named'}")
    if delivery.repository and repository and not _alike(delivery.repository, repository):
        raise _ignored(f"a push to the repository {shown(delivery.repository)}, not to {repository}")
    if branch not in delivery.heads:
        named = shown(", ".join(sorted(delivery.heads))) if delivery.heads else "no branch is named"
        raise _ignored(f"not a push to {branch}: {named}")
    head = delivery.heads[branch]
    if is_deletion(head):
        raise _ignored(f"the branch {branch} was deleted")
    return head


def shown(text: str) -> str:
    """Return a sender's words as a log and an answer can bear them: escaped, and not at any length."""
    return ascii(text[:100])


def _ignored(reason: str) -> LongshoreError:
    return LongshoreError("WEBHOOK_IGNORED", reason)


def _alike(one: str, other: str) -> bool:
    """Tell whether two paths may be one repository: a host in a subfolder shows a longer one in its URLs."""
    ours, theirs = one.split("/"), other.split("/")
    common = min(len(ours), len(theirs))
    return ours[-common:] == theirs[-common:]
