"""What Envoy is told: routing table → resources → snapshot → conversation → cache → server.

Everything up to the conversation is pure (sans I/O); the cache lets others wait for an Envoy, and `server` binds all
of it to grpc.aio. `docs/xds.md` tells how traffic moves; the head of `server` has a complete example.
May import: `schemas`, and besides the xDS protobufs and grpc only structlog.
"""
