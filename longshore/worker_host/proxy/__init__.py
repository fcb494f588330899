"""The local Envoy: its process, its bootstrap, its counters, and the one way in which traffic moves (`traffic`)."""
