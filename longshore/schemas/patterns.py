r"""Every pattern that a document field must match, in the dialect that Python, Rust and ECMA-262 share.

Digits are `[0-9]` (Python's `\d` takes other scripts' digits too). pydantic's Rust engine reads `$` as the very
end of the text, so `v1.2.3\n` does not pass; the JSON Schemas hold the same texts, and a test compares them.
"""

from __future__ import annotations

NAME = r"^[a-z0-9-]+$"
WORKER_ID = r"^worker-[a-z0-9-]+$"
# As SemVer has it: no leading zeros, so that one version has one spelling; nine digits fit every tool's integers.
SEMVER = r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})$"
PYTHON_VERSION = r"^[0-9]{1,3}\.[0-9]{1,3}$"
# Nine digits of Gi are 10^18 bytes, the last power that 64 bits hold.
MEMORY = r"^[0-9]{1,9}(Mi|Gi)$"
REGION = r"^[a-z]{2}-[a-z]+-[0-9]+$"
SHA256 = r"^[0-9a-f]{64}$"

# A tag vX.Y.Z or a commit id of 7 to 40 digits; never a branch (PRD §3.1).
GIT_REF = r"^(v(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})|[0-9a-f]{7,40})$"

# PEP 508 name, optional extras, `==`, PEP 440 version (epoch, pre, post, dev, local); nothing else (DESIGN §7).
DEPENDENCY = (
    r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._,-]+\])?"
    r"==([0-9]+!)?[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?(\+[A-Za-z0-9]+([._-][A-Za-z0-9]+)*)?$"
)

# Debian policy §5.6.1 and what RPM's names add to it: capitals, `_`. Never a leading `-` (an option) nor a trailing one
# (apt removes `name-`), nor `=`, `/`, `:` or `*`, which ask for a version, a release, an architecture, a search.
SYSTEM_PACKAGE = r"^[A-Za-z0-9]([A-Za-z0-9+._-]{0,126}[A-Za-z0-9+])?$"

MODULE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
# Visible ASCII only: what white space is differs between the three engines.
URI = r"^[a-z][a-z0-9+.-]*:[!-~]+$"
EMAIL = r"^[!-?A-~]+@[!-?A-~]+\.[!-?A-~]+$"
DATE_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$"
