"""How each git host takes a commit's status: its path, its words and its limits. Pure; who sends is `commit_status`.

Sources: the REST references of GitHub ("Commit statuses"), GitLab ("Commits", external statuses), Bitbucket Cloud
("Commit statuses"), Bitbucket Data Center ("Builds", 7.14 or newer) and Gitea or Forgejo (`repoCreateStatus`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

from longshore.broker.urls import located
from longshore.schemas.redaction import beginning
from longshore.schemas.telling import CommitState


class StatusHost(StrEnum):
    NONE = "none"
    GITHUB = "github"
    GITLAB = "gitlab"
    BITBUCKET = "bitbucket"
    BITBUCKET_DC = "bitbucket-dc"
    GITEA = "gitea"


@dataclass(frozen=True)
class Repository:
    """The registry, as the host's API knows it."""

    api: str
    """Base URL, without a slash at its end."""
    path: str
    """`owner/name`, or `group/subgroup/name`."""
    branch: str

    @property
    def quoted(self) -> str:
        return quote(self.path)


@dataclass(frozen=True)
class Status:
    sha: str
    state: CommitState
    context: str
    """What tells our status from those of others: `longshore/<registry>`."""
    description: str
    link: str | None
    """Where to read more; None where no Web UI has been named."""


@dataclass(frozen=True)
class HostRequest:
    """One POST."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


class Host(Protocol):
    def request(self, repository: Repository, status: Status, token: str) -> HostRequest: ...

    def has_it_already(self, code: int, answer: str, status: Status) -> bool:
        """Tell whether an error means that the commit has this state."""


class GitHub:
    def request(self, repository: Repository, status: Status, token: str) -> HostRequest:
        return HostRequest(
            f"{repository.api}/repos/{repository.quoted}/statuses/{status.sha}",
            {
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            # 422 for a longer description.
            {**_state_and_context(status), "description": beginning(status.description, 140)},
        )

    def has_it_already(self, code: int, answer: str, status: Status) -> bool:  # noqa: ARG002 (of the protocol)
        return False


class GitLab:
    _STATES = {CommitState.PENDING: "running", CommitState.SUCCESS: "success", CommitState.FAILURE: "failed"}

    def request(self, repository: Repository, status: Status, token: str) -> HostRequest:
        body = {
            "state": self._STATES[status.state],
            "name": beginning(status.context, 255),
            "ref": repository.branch,
            "description": beginning(status.description, 255),
        }
        if status.link is not None and len(status.link) <= 255:  # noqa: PLR2004 (GitLab's limit)
            body["target_url"] = status.link
        url = f"{repository.api}/projects/{quote(repository.path, safe='')}/statuses/{status.sha}"
        return HostRequest(url, {"PRIVATE-TOKEN": token}, body)

    def has_it_already(self, code: int, answer: str, status: Status) -> bool:
        # A state machine: the state that it has is the one transition that it refuses.
        return (
            code == HTTPStatus.BAD_REQUEST
            and "Cannot transition status via :" in answer
            and f"from :{self._STATES[status.state]}" in answer
        )


class _Bitbucket:
    """Cloud and Data Center take the same words, and both want a link."""

    _STATES = {CommitState.PENDING: "INPROGRESS", CommitState.SUCCESS: "SUCCESSFUL", CommitState.FAILURE: "FAILED"}

    def _body(self, status: Status, link: str) -> dict[str, str]:
        key = status.context
        if len(key) > 40:  # noqa: PLR2004 (Cloud's limit)
            key = hashlib.sha256(key.encode()).hexdigest()[:40]
        return {
            "key": key,
            "state": self._STATES[status.state],
            "name": beginning(status.context, 255),
            "description": beginning(status.description, 255),
            "url": link,
        }

    def has_it_already(self, code: int, answer: str, status: Status) -> bool:  # noqa: ARG002 (of the protocol)
        return False


class BitbucketCloud(_Bitbucket):
    def request(self, repository: Repository, status: Status, token: str) -> HostRequest:
        link = status.link or f"https://bitbucket.org/{repository.quoted}/commits/{status.sha}"
        url = f"{repository.api}/repositories/{repository.quoted}/commit/{status.sha}/statuses/build"
        return HostRequest(url, {"Authorization": f"Bearer {token}"}, self._body(status, link))


class BitbucketDataCenter(_Bitbucket):
    def request(self, repository: Repository, status: Status, token: str) -> HostRequest:
        project, _, name = repository.path.partition("/")
        commit = f"projects/{quote(project)}/repos/{quote(name)}/commits/{status.sha}"
        web = repository.api.partition("/rest/")[0]
        link = status.link if status.link and len(status.link) <= 450 else f"{web}/{commit}"  # noqa: PLR2004 (its limit)
        headers = {"Authorization": f"Bearer {token}", "X-Atlassian-Token": "no-check"}
        return HostRequest(f"{repository.api}/{commit}/builds", headers, self._body(status, link))


class Gitea:
    def request(self, repository: Repository, status: Status, token: str) -> HostRequest:
        return HostRequest(
            f"{repository.api}/repos/{repository.quoted}/statuses/{status.sha}",
            {"Authorization": f"token {token}", "Accept": "application/json"},
            {**_state_and_context(status), "description": beginning(status.description, 255)},
        )

    def has_it_already(self, code: int, answer: str, status: Status) -> bool:  # noqa: ARG002 (of the protocol)
        return False


HOSTS: Mapping[StatusHost, Host] = {
    StatusHost.GITHUB: GitHub(),
    StatusHost.GITLAB: GitLab(),
    StatusHost.BITBUCKET: BitbucketCloud(),
    StatusHost.BITBUCKET_DC: BitbucketDataCenter(),
    StatusHost.GITEA: Gitea(),
}

_PUBLIC = {
    StatusHost.GITHUB: ("github.com", "https://api.github.com"),
    StatusHost.BITBUCKET: ("bitbucket.org", "https://api.bitbucket.org/2.0"),
}
_API_PATHS = {
    StatusHost.GITHUB: "/api/v3",
    StatusHost.GITLAB: "/api/v4",
    StatusHost.BITBUCKET: "/2.0",
    StatusHost.BITBUCKET_DC: "/rest/api/latest",
    StatusHost.GITEA: "/api/v1",
}


def default_api(kind: StatusHost, registry: str) -> str | None:
    """Return where the host of the registry's URL has its API; None where the URL names no host."""
    there = located(registry)
    if there is None:
        return None
    name, api = _PUBLIC.get(kind, ("", ""))
    if there.host == name:
        return api
    return f"{'http' if there.scheme == 'http' else 'https'}://{there.host}{_API_PATHS.get(kind, '')}"


def default_path(kind: StatusHost, registry: str) -> str | None:
    """Return `owner/name` of the registry's URL; None where it has no such path."""
    there = located(registry)
    if there is None:
        return None
    path = there.path.rpartition("scm/")[2] if kind is StatusHost.BITBUCKET_DC else there.path
    return path if "/" in path else None


def _state_and_context(status: Status) -> dict[str, str]:
    body = {"state": str(status.state), "context": status.context}
    return body if status.link is None else {**body, "target_url": status.link}
