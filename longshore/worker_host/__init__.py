"""The device daemon: commands in from Temporal, runner processes and a local Envoy out (PRD §6).

May import: `schemas`, `xds`, `telemetry`, and `activities` for their signatures.
"""
