"""The durable order of things; decides nothing that a plan has not decided.

The five workflows are `commits`, `fleet`, `reconciliations`, `rollouts` and `devices`; `alarms` tells of what has none.
What `fleet` drives is pure, behind a door of its own: `ledger/`, with `machine`, `hearing` (devices, rollouts),
`orders`, `causes` and `decided` (plans). So is what `rollouts` drives: `targets` and `steering`. `conventions` holds
every queue name, workflow id, search attribute, timeout, retry policy and patch id; `stories` is what the Web UI shows.
May import: `schemas`, and `activities` for their signatures.
"""
