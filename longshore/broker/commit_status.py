"""A commit's status on the git host: one POST, and what its refusal means."""

from __future__ import annotations

from http import HTTPStatus
from typing import NoReturn
from urllib.parse import quote

import httpx2
from pydantic import SecretStr

from longshore.broker.hosts import HOSTS, Repository, Status, StatusHost
from longshore.schemas.failures import LongshoreError
from longshore.schemas.redaction import beginning
from longshore.schemas.telling import StatusRequest
from longshore.workflows.conventions import commit_workflow_id

TIMEOUT_SECONDS = 10.0

_REFUSED: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "AUTH_FAILED",
    HTTPStatus.FORBIDDEN: "AUTH_FAILED",
    HTTPStatus.NOT_FOUND: "REPOSITORY_NOT_FOUND",
    HTTPStatus.GONE: "REPOSITORY_NOT_FOUND",
}
_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class WebUI:
    """Links into the Temporal Web UI, where its address is known."""

    def __init__(self, base: str | None, namespace: str) -> None:
        self._base = base.rstrip("/") if base else None
        self._namespace = namespace

    def commit(self, registry: str, sha: str) -> str | None:
        if self._base is None:
            return None
        workflow = quote(commit_workflow_id(registry, sha), safe="")
        return f"{self._base}/namespaces/{quote(self._namespace, safe='')}/workflows/{workflow}"


class CommitStatuses:
    def __init__(self, kind: StatusHost, repository: Repository | None, token: SecretStr | None, web_ui: WebUI) -> None:
        self._kind = kind
        self._repository = repository
        self._token = token
        self._web_ui = web_ui

    async def show(self, request: StatusRequest) -> None:
        """Show the status; the same again changes nothing.

        Raises LongshoreError GIT_UNREACHABLE (worth another try), or AUTH_FAILED, REPOSITORY_NOT_FOUND, STATUS_REFUSED.
        """
        host, repository, token = HOSTS.get(self._kind), self._repository, self._token
        if host is None or repository is None or token is None:
            raise LongshoreError("STATUS_REFUSED", "status_host, status_api or status_token is no longer set")
        status = Status(
            sha=request.sha,
            state=request.state,
            context=f"longshore/{request.registry}",
            description=request.description,
            link=self._web_ui.commit(request.registry, request.sha),
        )
        post = host.request(repository, status, token.get_secret_value())
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
                answer = await client.post(post.url, headers=dict(post.headers), json=dict(post.body))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise LongshoreError("GIT_UNREACHABLE", f"{self._kind}: {type(error).__name__}: {error}") from error
        if not answer.is_success and not host.has_it_already(answer.status_code, answer.text, status):
            self._refuse(answer, repository)

    def _refuse(self, answer: httpx2.Response, repository: Repository) -> NoReturn:
        code = answer.status_code
        # GitHub says 403 to those who ask too often, too.
        throttled = "retry-after" in answer.headers or answer.headers.get("x-ratelimit-remaining") == "0"
        if code >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _LATER or (code == HTTPStatus.FORBIDDEN and throttled):
            kind = "GIT_UNREACHABLE"
        else:
            kind = _REFUSED.get(code, "STATUS_REFUSED")
        said = beginning(" ".join(answer.text.split()), 200)
        raise LongshoreError(kind, f"{self._kind} answers {code} for {repository.path}: {said}")
