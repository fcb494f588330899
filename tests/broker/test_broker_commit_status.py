"""A commit's status, as each host's REST reference wants it asked for, on a real HTTP server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from http_endpoint import Answer, Asked, Endpoint, endpoint
from pydantic import SecretStr

from longshore.broker.commit_status import CommitStatuses, WebUI
from longshore.broker.hosts import Repository, StatusHost
from longshore.broker.settings import BrokerSettings
from longshore.schemas.failures import LongshoreError
from longshore.schemas.telling import CommitState, StatusRequest

SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
LINK = "https://temporal.example/namespaces/default/workflows/registry-commit%3Aops%3A" + SHA
TOKEN = "a-token-of-the-tests"


@pytest.fixture
def host() -> Iterator[Endpoint]:
    with endpoint() as server:
        yield server


def statuses(kind: StatusHost, api: str, path: str = "acme/ops", *, ui: str | None = None) -> CommitStatuses:
    repository = Repository(api, path, "main")
    return CommitStatuses(kind, repository, SecretStr(TOKEN), WebUI(ui, "default"))


def request(state: CommitState = CommitState.FAILURE, description: str = "x" * 400) -> StatusRequest:
    return StatusRequest(registry="ops", sha=SHA, state=state, description=description)


def cut(length: int) -> str:
    return "x" * (length - 1) + "…"


CASES: dict[StatusHost, tuple[str, str, int, dict[str, str], dict[str, Any]]] = {
    # kind: (base of the API, path, code of success, headers, body)
    StatusHost.GITHUB: (
        "",
        f"/repos/acme/ops/statuses/{SHA}",
        201,
        {
            "authorization": f"Bearer {TOKEN}",
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
        },
        {"state": "failure", "context": "longshore/ops", "description": cut(140), "target_url": LINK},
    ),
    StatusHost.GITLAB: (
        "/api/v4",
        f"/api/v4/projects/acme%2Fops/statuses/{SHA}",
        201,
        {"private-token": TOKEN},
        {
            "state": "failed",
            "name": "longshore/ops",
            "ref": "main",
            "description": cut(255),
            "target_url": LINK,
        },
    ),
    StatusHost.BITBUCKET: (
        "/2.0",
        f"/2.0/repositories/acme/ops/commit/{SHA}/statuses/build",
        201,
        {"authorization": f"Bearer {TOKEN}"},
        {
            "key": "longshore/ops",
            "state": "FAILED",
            "name": "longshore/ops",
            "description": cut(255),
            "url": LINK,
        },
    ),
    StatusHost.BITBUCKET_DC: (
        "/rest/api/latest",
        f"/rest/api/latest/projects/acme/repos/ops/commits/{SHA}/builds",
        204,
        {"authorization": f"Bearer {TOKEN}", "x-atlassian-token": "no-check"},
        {
            "key": "longshore/ops",
            "state": "FAILED",
            "name": "longshore/ops",
            "description": cut(255),
            "url": LINK,
        },
    ),
    StatusHost.GITEA: (
        "/api/v1",
        f"/api/v1/repos/acme/ops/statuses/{SHA}",
        201,
        {"authorization": f"token {TOKEN}"},
        {"state": "failure", "context": "longshore/ops", "description": cut(255), "target_url": LINK},
    ),
}


@pytest.mark.parametrize("kind", CASES)
async def test_each_host_is_asked_in_its_own_words(host: Endpoint, kind: StatusHost) -> None:
    """Path, authentication, state, limits and names are those of its reference."""
    base, path, code, headers, body = CASES[kind]
    host.answer = lambda _: Answer(code, "" if code == 204 else "{}")
    await statuses(kind, host.url + base, ui="https://temporal.example/").show(request())
    (asked,) = host.asked
    assert (asked.method, asked.path, asked.body) == ("POST", path, body)
    assert asked.headers["content-type"] == "application/json"
    assert headers.items() <= asked.headers.items()


STATES = {
    StatusHost.GITHUB: ["pending", "success", "failure"],
    StatusHost.GITLAB: ["running", "success", "failed"],
    StatusHost.BITBUCKET: ["INPROGRESS", "SUCCESSFUL", "FAILED"],
    StatusHost.BITBUCKET_DC: ["INPROGRESS", "SUCCESSFUL", "FAILED"],
    StatusHost.GITEA: ["pending", "success", "failure"],
}


@pytest.mark.parametrize("kind", STATES)
async def test_the_states_in_each_hosts_words(host: Endpoint, kind: StatusHost) -> None:
    """What is being worked on, what is done, what failed; always under one name, so that each replaces the last."""
    for state in CommitState:
        await statuses(kind, host.url).show(request(state, "short"))
    assert [asked.body["state"] for asked in host.asked] == STATES[kind]
    assert {asked.body.get("context") or asked.body["name"] for asked in host.asked} == {"longshore/ops"}
    assert {asked.body["description"] for asked in host.asked} == {"short"}


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (StatusHost.BITBUCKET, f"https://bitbucket.org/acme/ops/commits/{SHA}"),
        (StatusHost.BITBUCKET_DC, f"/projects/acme/repos/ops/commits/{SHA}"),
        (StatusHost.GITHUB, None),
        (StatusHost.GITLAB, None),
        (StatusHost.GITEA, None),
    ],
)
async def test_without_a_web_ui_the_commit_itself_is_linked_where_a_link_is_wanted(
    host: Endpoint, kind: StatusHost, link: str | None
) -> None:
    """Bitbucket refuses a status without a URL; the others do without."""
    await statuses(kind, f"{host.url}/rest/api/latest").show(request())
    body = host.asked[0].body
    assert body.get("url", body.get("target_url")) == (f"{host.url}{link}" if link and link[0] == "/" else link)


async def test_a_long_registry_name_has_a_short_key_at_bitbucket(host: Endpoint) -> None:
    """Its keys have at most 40 characters; the same registry always has the same one."""
    long = request().model_copy(update={"registry": "a-registry-with-a-rather-long-name-of-its-own"})
    for _ in range(2):
        await statuses(StatusHost.BITBUCKET, host.url).show(long)
    first, second = (asked.body for asked in host.asked)
    assert first == second
    assert len(first["key"]) == 40
    assert first["name"] == f"longshore/{long.registry}"


async def test_gitlab_refuses_the_state_that_a_commit_has_already(host: Endpoint) -> None:
    """An activity that is tried again has shown it; any other transition that is refused is told."""
    said = 'Cannot transition status via :run from :running (Reason(s): Status cannot transition via \\"run\\")'
    host.answer = lambda _: Answer(400, f'{{"message": "{said}"}}')
    await statuses(StatusHost.GITLAB, host.url).show(request(CommitState.PENDING))
    with pytest.raises(LongshoreError, match="STATUS_REFUSED") as refused:
        await statuses(StatusHost.GITLAB, host.url).show(request(CommitState.SUCCESS))
    assert "Cannot transition" in str(refused.value)


GITHUB_BAD = '{"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"}'
GITHUB_LONG = '{"message": "Validation Failed", "errors": [{"field": "description"}], "status": "422"}'


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(401, GITHUB_BAD), "AUTH_FAILED"),
        (Answer(403, '{"message": "Resource not accessible by personal access token"}'), "AUTH_FAILED"),
        (Answer(404, '{"message": "Not Found"}'), "REPOSITORY_NOT_FOUND"),
        (Answer(422, GITHUB_LONG), "STATUS_REFUSED"),
        (Answer(301, '{"message": "Moved Permanently"}', {"Location": "/repositories/1"}), "STATUS_REFUSED"),
        (Answer(403, "{}", {"x-ratelimit-remaining": "0"}), "GIT_UNREACHABLE"),
        (Answer(403, "{}", {"retry-after": "60"}), "GIT_UNREACHABLE"),
        (Answer(429, "slow down"), "GIT_UNREACHABLE"),
        (Answer(502, "<html>bad gateway</html>"), "GIT_UNREACHABLE"),
    ],
)
async def test_a_refusal_says_whether_it_is_worth_another_try(host: Endpoint, answer: Answer, code: str) -> None:
    """What only a person can mend is final, what passes is tried again; the host's own words are passed on."""
    host.answer = lambda _: answer
    with pytest.raises(LongshoreError) as refused:
        await statuses(StatusHost.GITHUB, host.url).show(request())
    assert refused.value.code == code
    assert refused.value.failure.kind.retriable is (code == "GIT_UNREACHABLE")
    assert str(answer.code) in str(refused.value)
    assert TOKEN not in str(refused.value)


async def test_an_answer_that_quotes_our_token_is_redacted(host: Endpoint) -> None:
    """Some proxies send back what they were sent."""

    def echo(asked: Asked) -> Answer:
        return Answer(400, f"bad request: Authorization: {asked.headers['authorization']}")

    host.answer = echo
    with pytest.raises(LongshoreError) as refused:
        await statuses(StatusHost.GITHUB, host.url).show(request())
    assert TOKEN not in str(refused.value)


async def test_nobody_there_is_worth_another_try() -> None:
    """A host that is down is no reason to give up at once."""
    with endpoint() as gone:
        url = gone.url
    with pytest.raises(LongshoreError, match="GIT_UNREACHABLE"):
        await statuses(StatusHost.GITEA, url).show(request())


@pytest.mark.parametrize(
    ("kind", "registry", "api", "path"),
    [
        ("github", "https://github.com/acme/ops.git", "https://api.github.com", "acme/ops"),
        ("github", "git@github.com:acme/ops.git", "https://api.github.com", "acme/ops"),
        ("github", "https://ghe.acme.com/acme/ops", "https://ghe.acme.com/api/v3", "acme/ops"),
        ("gitlab", "https://gitlab.com/acme/ml/ops.git", "https://gitlab.com/api/v4", "acme/ml/ops"),
        ("gitlab", "ssh://git@git.acme.com:2222/acme/ops.git", "https://git.acme.com/api/v4", "acme/ops"),
        ("bitbucket", "https://olga@bitbucket.org/acme/ops.git", "https://api.bitbucket.org/2.0", "acme/ops"),
        (
            "bitbucket-dc",
            "https://git.acme.com:7990/scm/ML/ops.git",
            "https://git.acme.com:7990/rest/api/latest",
            "ML/ops",
        ),
        ("bitbucket-dc", "ssh://git@git.acme.com:7999/ML/ops.git", "https://git.acme.com/rest/api/latest", "ML/ops"),
        ("gitea", "http://127.0.0.1:3000/acme/ops", "http://127.0.0.1:3000/api/v1", "acme/ops"),
    ],
)
def test_api_and_repository_come_from_the_registrys_url(kind: str, registry: str, api: str, path: str) -> None:
    """A public host, or one's own: only what cannot be told from the URL has to be set."""
    settings = BrokerSettings(registry=registry, status_host=kind, status_token="t")
    assert settings.repository == Repository(api, path, "main")


def test_what_is_set_wins() -> None:
    """A host whose API is elsewhere, a mirror of another name."""
    settings = BrokerSettings(
        registry="/srv/git/ops.git",
        status_host="gitea",
        status_token="t",
        status_api="https://git.acme.com/forge/api/v1/",
        status_repository="ml/registry",
    )
    assert settings.repository == Repository("https://git.acme.com/forge/api/v1", "ml/registry", "main")


@pytest.mark.parametrize(
    ("registry", "given", "missing"),
    [
        ("https://github.com/acme/ops", {}, "status_token"),
        ("/srv/git/ops.git", {"status_token": "t"}, "status_api"),
        ("https://github.com/ops", {"status_token": "t"}, "status_repository"),
    ],
)
def test_a_status_that_could_never_be_shown_is_refused_at_once(
    registry: str, given: dict[str, str], missing: str
) -> None:
    """Not at the first commit."""
    with pytest.raises(ValueError, match=missing):
        BrokerSettings(registry=registry, status_host="github", **given)
