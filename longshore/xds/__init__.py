"""What Envoy is told: routing table → resources → snapshot → conversation → cache → server.

Everything up to the conversation is pure (sans I/O); `server` binds it to grpc.aio.
May import: `schemas`.
"""
