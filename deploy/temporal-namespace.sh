#!/bin/sh
# Creates the namespace where it is missing. `restart: on-failure` repeats this until the server is ready for it.
set -eu

temporal operator cluster health
temporal operator namespace describe --namespace longshore ||
  temporal operator namespace create --namespace longshore --retention 30d
