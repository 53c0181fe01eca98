#!/usr/bin/env bash
# Makes what a deployment must not share with any other, in a folder that git ignores: the NATS users' keys, a private
# certificate authority with a certificate for the servers, and a database password. What is there already is kept.
#
#   ./deploy/secrets.sh [FOLDER] [HOST...]      by default deploy/secrets, for the hosts below
#
#   publisher.nk worker.nk reader.nk admin.nk system.nk    seeds of the NATS users (nats.nkey = "file:...")
#   users.conf                                             their public keys, for the servers
#   tls/ca.pem tls/server.pem tls/server.key               for the servers; clients need ca.pem only (nats.tls_ca_file)
#   ca.key                                                 signs further certificates; keep it off the servers
#   postgres.password                                      of the database user `throughline`
#
# Needs openssl and Python 3. Exit codes: 0 done, 1 failed, 69 a needed program is missing.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$root/deploy/lib.sh"

ROLES=(publisher worker reader admin system)
# Where the servers of deploy/compose.yaml and of deploy/k8s are reached.
HOSTS=(localhost 127.0.0.1 nats-1 nats-2 nats-3 nats "*.nats-headless")
# After this the servers need a new certificate: run this script again with server.pem removed.
CERTIFICATE_DAYS=825

folder="${1:-$root/deploy/secrets}"
[ $# -le 1 ] || HOSTS=("${@:2}")

for program in openssl python3; do
  if ! command -v "$program" >/dev/null 2>&1; then
    say "$program was not found; install it and start again"
    exit "$EX_UNAVAILABLE"
  fi
done

umask 077
mkdir -p "$folder/tls"
cd "$folder"

# nkey FILE: makes the key pair of a NATS user, with its seed in FILE, and prints nothing. The public key is in FILE.pub.
nkey() {
  local key
  key="$(openssl genpkey -algorithm ed25519 -outform DER | openssl base64 -A)"
  # An nkey is base32 of a prefix, 32 bytes, and their CRC-16 (github.com/nats-io/nkeys). In the DER encoding of an
  # Ed25519 key the last 32 bytes are the key.
  { printf '%s\n' "$key"; printf '%s' "$key" | openssl base64 -d -A | openssl pkey -inform DER -pubout -outform DER | openssl base64 -A; } |
    python3 -c '
import base64, binascii, sys

USER, SEED = 20 << 3, 18 << 3

def encode(prefix, key):
    raw = prefix + key
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")

private, public = (base64.b64decode(line)[-32:] for line in sys.stdin)
with open(sys.argv[1], "w") as file:
    print(encode(bytes([SEED | USER >> 5, (USER & 31) << 3]), private), file=file)
with open(sys.argv[1] + ".pub", "w") as file:
    print(encode(bytes([USER]), public), file=file)
' "$1"
}

for role in "${ROLES[@]}"; do
  [ -s "$role.nk" ] && [ -s "$role.nk.pub" ] || nkey "$role.nk"
done
{
  echo "# Public keys of the users in accounts.conf. Made by deploy/secrets.sh."
  for role in "${ROLES[@]}"; do
    printf '%s: %s\n' "$(printf '%s' "$role" | tr '[:lower:]' '[:upper:]')" "$(cat "$role.nk.pub")"
  done
} >users.conf

if [ ! -s ca.key ]; then
  rm -f tls/ca.pem tls/server.pem
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=Throughline private CA" -out tls/ca.pem
fi
if [ ! -s tls/server.pem ]; then
  names=""
  for host in "${HOSTS[@]}"; do
    case "$host" in *[!0-9.]*) names="$names,DNS:$host" ;; *) names="$names,IP:$host" ;; esac
  done
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out tls/server.key
  # The servers are each other's clients, too.
  openssl req -new -key tls/server.key -subj "/CN=nats" |
    openssl x509 -req -sha256 -days "$CERTIFICATE_DAYS" -CA tls/ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n' "${names#,}") \
      -out tls/server.pem 2>/dev/null
fi
[ -s postgres.password ] || openssl rand -hex 24 >postgres.password

# Containers read these by bind mounts as users that are not ours. The folder itself stays closed to everybody else here.
chmod 755 tls
chmod 644 ./*.nk users.conf postgres.password tls/*
say "made in $PWD"
