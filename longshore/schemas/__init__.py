"""The vocabulary: everything that crosses a process or workflow boundary, and nothing that acts.

Here live the JSON Schemas and the compatibility matrix (`documents/`), the frozen pydantic models of the
documents that people write (`cards`, `deployments`, `workers`) and of the messages that our processes
exchange (`commands`, `devices`, `plans`, `fleet`, `rollouts`, `reconciliations`, `commits`, `orders`), how the
ledger moves by them (`ledger`, `drift`, `held`), quantities such as `16Gi`, and the one failure table.

Pure: no I/O beyond reading its own package data, no clock, no randomness, no temporalio.
May import: pydantic, jsonschema, ruamel.
"""
