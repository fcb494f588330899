"""git: caches, pinned references, what may be named and how much is fetched, signatures, pushes, local folders."""
