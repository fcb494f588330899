"""One vocabulary: every code that the source raises is in the table, and every code of the table can be raised."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from longshore.schemas.failures import FAILURES

PACKAGE = Path(__file__).parents[2] / "longshore"
TABLE = PACKAGE / "schemas" / "failures.py"
CODE = re.compile(r"[A-Z]{2,}(_[A-Z]+)+")

# What takes a code as its first argument or as `code`.
RAISERS = {"LongshoreError", "Failure", "Issue", "Finding", "YamlFault", "finding", "_issue", "_refused"}


def trees() -> Iterator[ast.AST]:
    return (ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py") if file != TABLE)


def texts(tree: ast.AST) -> Iterator[str]:
    return (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))


def raised(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in RAISERS:
            given = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
            yield from (text for value in given for text in texts(value) if CODE.fullmatch(text))


def test_every_code_that_is_raised_is_in_the_table():
    """A code without a remedy would leave an operator alone."""
    assert {code for tree in trees() for code in raised(tree)} - FAILURES.keys() == set()


def test_every_code_of_the_table_can_be_raised():
    """The reference lists nothing that nobody will ever see."""
    told = {word for tree in trees() for text in texts(tree) for word in re.findall(r"[A-Z_]+", text)}
    assert FAILURES.keys() - told == set()
