"""A commit → its verdict: the six steps of PRD §5.1. `loading` fetches; the rest judges what was fetched."""
