"""`longshore validate --format sarif`: what GitHub's code scanning needs, and what it must not get."""

from __future__ import annotations

import json
from urllib.parse import unquote

from longshore.cli.validate.report import Report
from longshore.cli.validate.sarif import as_sarif
from longshore.registry.validation.sources import Reference, Sources
from longshore.schemas.failures import FAILURES
from longshore.schemas.issues import Audience, Issue, Severity

CARD = "https://git.example.com/hello.git@v1.0.0:model-card.yaml"
MANIFEST = b"id: hello\nmodel_card_ref:\n  ref: v1.0.0 # the newest\n"
BOTH = (Audience.OPS, Audience.ML)


def in_card(place: str, line: int) -> Issue:
    return Issue(code="CARD_INVALID", file=CARD, place=place, line=line, message="it is wrong", told=BOTH)


def report(*issues: Issue, prefix: str = "") -> Report:
    files = {"models/staging/hello.yaml": MANIFEST, "models/staging/two.yaml": MANIFEST, CARD: b"a: 1\nb: 2\n"}
    references = {CARD: (Reference("models/staging/hello.yaml", 3), Reference("models/staging/two.yaml", 3))}
    return Report("registry", None, prefix, issues, Sources(files, references), "nothing")


def results(of: Report) -> list[dict]:
    (run,) = as_sarif(of)["runs"]
    return run["results"]


def test_the_document_has_what_the_standard_and_github_require():
    """One run, every result with its rule, its level and a region; every rule with its remedy."""
    ref = Issue(code="REF_UNPINNED", file="models/staging/hello.yaml", place="model_card_ref.ref", line=3, message="no")
    note = Issue(code="CHECK_SKIPPED", severity=Severity.NOTE, file="models/staging/hello.yaml", message="skipped")
    warning = in_card("b", 2).model_copy(update={"severity": Severity.WARNING})
    document = json.loads(json.dumps(as_sarif(report(ref, note, warning))))
    assert (document["version"], len(document["runs"])) == ("2.1.0", 1)
    assert document["$schema"].endswith("sarif-2.1.0.json")
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["CARD_INVALID", "CHECK_SKIPPED", "REF_UNPINNED"]
    for rule in rules:
        assert rule["help"]["text"] == rule["fullDescription"]["text"] == FAILURES[rule["id"]].remedy
        assert rule["shortDescription"]["text"]
    assert [result["level"] for result in run["results"]] == ["error", "note", "warning"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1
        assert result["partialFingerprints"]


def test_a_finding_is_marked_where_it_stands():
    """Columns count from 1, and the end is the column after the last."""
    ref = Issue(code="REF_UNPINNED", file="models/staging/hello.yaml", place="model_card_ref.ref", line=3, message="no")
    (result,) = results(report(ref))
    region = result["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 3, "startColumn": 3, "endColumn": 14}


def test_a_finding_in_a_card_stands_at_the_manifest_that_refers_to_it():
    """A host can show only files of the repository itself: the card is named in the message, other manifests beside."""
    (result,) = results(report(in_card("b", 2)))
    spot = result["locations"][0]["physicalLocation"]
    assert (spot["artifactLocation"]["uri"], spot["region"]["startLine"]) == ("models/staging/hello.yaml", 3)
    assert result["message"]["text"] == f"{CARD}, line 2, b: it is wrong"
    (other,) = result["relatedLocations"]
    assert other["physicalLocation"]["artifactLocation"]["uri"] == "models/staging/two.yaml"
    assert result["properties"] == {"place": "b", "told": ["ops", "ml"]}


def test_findings_of_one_card_stay_apart():
    """GitHub would take two of one code on one line for the same alert, but for their fingerprints."""
    hashes = [
        r["partialFingerprints"]["primaryLocationLineHash"] for r in results(report(in_card("a", 1), in_card("b", 2)))
    ]
    assert len(set(hashes)) == 2


def test_a_finding_alone_on_its_line_leaves_the_hash_to_the_host():
    """The upload action computes it from the line, and complains of one that differs from its own."""
    (result,) = results(report(in_card("b", 2)))
    assert list(result["partialFingerprints"]) == ["longshore/v1"]


def test_a_fingerprint_survives_a_moved_line_and_another_wording():
    """An alert is the same alert while its code, file and place are."""
    before, after = in_card("b", 2), in_card("b", 7).model_copy(update={"message": "it is still wrong"})
    assert results(report(before))[0]["partialFingerprints"] == results(report(after))[0]["partialFingerprints"]


def test_a_path_is_a_uri_from_the_root_of_the_repository():
    """A registry in a folder of a larger repository, and a name with characters that no URI has."""
    odd = Issue(code="STRUCTURE_INVALID", file="models/a: b#%.yml", message="rename it")
    (result,) = results(report(odd, prefix="ops/"))
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "ops/models/a%3A%20b%23%25.yml"
    assert unquote(uri) == "ops/models/a: b#%.yml"
