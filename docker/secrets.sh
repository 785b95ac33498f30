#!/bin/sh
# Makes the secrets of a new installation in docker/secrets. The folder is closed to all but its owner; the files are open,
# since the parts read them as a user of their own.
# What is there already stays as it is. FIELD_KEYS and VERP_KEYS belong into the backup, apart from the database's.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
random() { head -c "$1" /dev/urandom | base64 | tr -d '\n'; }
word() { random 24 | tr '+/' '-_'; }
make() { # NAME VALUE
  [ -s "secrets/$1" ] && return
  printf '%s' "$2" >"secrets/$1"
  chmod 0444 "secrets/$1"
}
chmod 0700 secrets
make postgres_password "$(word)"
make valkey_password "$(word)"
make secret_key "$(word)$(word)"
make field_keys "$(random 32 | tr '+/' '-_')"
make verp_keys "1:$(random 32)"
make database_url "postgres://mailapi:$(cat secrets/postgres_password)@postgres:5432/mailapi"
make broker_url "redis://:$(cat secrets/valkey_password)@valkey:6379/0"
echo "docker/secrets is complete"
