"""The YAML gate and the three document schemas behind it: no bytes raise, and nothing forbidden gets through."""

from __future__ import annotations

from fuzzing import instrumented, run

with instrumented():
    from longshore.registry.documents.reading import read_document
    from longshore.registry.documents.yaml import describe
    from longshore.registry.documents.yaml_gate import invisible
    from longshore.schemas.documents import DocumentKind
    from longshore.schemas.failures import FAILURES


def judge(data: bytes) -> None:
    read_document.cache_clear()
    for kind in DocumentKind:
        document = read_document(kind, data)
        assert (document.model is None) == bool(document.findings)
        for finding in document.findings:
            assert finding.code in FAILURES
            assert len(finding.message) < 2000
            assert invisible(describe(finding.place)) is None
        if document.model is not None:
            text = document.model.model_dump_json()
            assert kind.model.model_validate_json(text) == document.model
            assert b"\x00" not in data


if __name__ == "__main__":
    run(judge)
