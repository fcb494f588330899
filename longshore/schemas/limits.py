"""How large a field of a document may be (FAULTS 29): far beyond what anyone writes, and small enough for every reader.

The JSON Schemas hold the same numbers; the differential tests of tests/schemas compare what the two accept.
"""

from __future__ import annotations

# A DNS label: an id becomes part of queue names, file names and routes.
ID = 63

# RFC 5321 §4.5.3.1: 64 + @ + 255 is over what a path of 256 with its brackets leaves.
EMAIL = 254

# What every proxy and object store takes.
URI = 2048

# A path of git or of a file system (PATH_MAX is 4096 in bytes, and a character may take four).
PATH = 1024

# A name that is no id: a label's value, a function, a tag, a version of a framework, a Python module.
TEXT = 256

DESCRIPTION = 4096

# Lists that people write by hand; a lock of a large ML stack has about 300 packages.
DEPENDENCIES = 1000
LIST = 100

# Labels of a device, of a selector: Kubernetes' own advice is a dozen.
LABELS = 64

# Twenty times the 500 devices that the embedded server serves (DESIGN §3); Envoy was tried with 500 models on one.
REPLICAS = 10_000
MODELS = 10_000

# The largest machines that are sold have 1,792 cores and 72 GPUs in one operating system.
CPU = 4096
GPU = 1024

# 1 PiB: the largest object that a store of ours takes has 50 TB.
BYTES = 2**50
