"""The device daemon: commands in from Temporal, runner processes and a local Envoy out (PRD §6).

`daemon` puts the parts together and has their order of starting and stopping; `agent` is the side that faces Temporal,
`host` what it calls. Behind the doors: `commands` (what is done), `proxy` (Envoy), `runners` (one process per model
version), `stores` (code, environments, artifacts). `journal` is what outlives them all.

May import: `schemas`, `xds`, `telemetry`, `activities` for their signatures, and `workflows.conventions` for the name
of its task queue.
"""
