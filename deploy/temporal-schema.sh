#!/bin/sh
# Creates Temporal's two databases where they are missing, and brings their schemas to this release.
set -eu

for pair in temporal:temporal temporal_visibility:visibility; do
  database=${pair%%:*}
  schema=${pair##*:}
  on_database() {
    temporal-sql-tool --plugin postgres12 --ep postgresql -p 5432 -u temporal --db "$database" "$@"
  }
  on_database create
  on_database setup-schema -v 0.0
  on_database update-schema -d "/etc/temporal/schema/postgresql/v12/$schema/versioned"
done
