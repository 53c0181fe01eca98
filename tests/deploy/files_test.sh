# shellcheck shell=bash disable=SC2154
# The configuration that is shipped, and the scripts as text. Sourced by run.sh, which has the helpers.

conf="$root/deploy/nats/nats-server.conf"

test_the_server_accepts_its_configuration() {
  [ -n "${NATS_SERVER_BIN:-}" ] || ignore "NATS_SERVER_BIN is not set (tests/run.sh sets it)"
  try "$NATS_SERVER_BIN" -t -c "$conf"
  equal "$code" 0 "$err"
}

test_the_server_does_what_its_configuration_says() {
  local pid varz=""
  [ -n "${NATS_SERVER_BIN:-}" ] || ignore "NATS_SERVER_BIN is not set (tests/run.sh sets it)"
  type -P python3 >/dev/null || ignore "no python3 to read the monitoring page"
  # The same file but for what two servers on one machine cannot share; the server says which ports it got.
  sed -E "s|^listen: .*|listen: 127.0.0.1:-1|; s|^http: .*|http: 127.0.0.1:-1|; s|/var/lib/throughline/nats|$dir/store|" "$conf" >"$dir/nats.conf"
  printf 'ports_file_dir: "%s"\n' "$dir" >>"$dir/nats.conf"
  "$NATS_SERVER_BIN" -c "$dir/nats.conf" >"$dir/server.log" 2>&1 &
  pid=$!
  # shellcheck disable=SC2064
  trap "kill $pid 2>/dev/null; wait $pid 2>/dev/null" EXIT
  varz="$(python3 - "$dir" <<'PYTHON'
import glob, json, sys, time, urllib.request

LIMIT_S = 20
deadline = time.monotonic() + LIMIT_S
while time.monotonic() < deadline:
    try:
        ports = json.load(open(glob.glob(sys.argv[1] + "/*.ports")[0]))
        varz = json.load(urllib.request.urlopen(ports["monitoring"][0] + "/varz", timeout=LIMIT_S))
        break
    except (IndexError, ValueError, OSError):
        time.sleep(0.02)
else:
    sys.exit(f"the server did not answer within {LIMIT_S} s")
store = varz["jetstream"]["config"]
print(varz["host"], varz["http_host"], varz["max_payload"], store.get("sync_always"), store["max_memory"] // 2**20, store["max_storage"] // 2**30)
PYTHON
)" || fail "$varz $(cat "$dir/server.log")"
  equal "$varz" "127.0.0.1 127.0.0.1 1048576 True 256 50" "$(cat "$dir/server.log")"
}

scripts() {
  printf '%s\n' "$root"/.ci/run "$root"/deploy/*.sh "$root"/tests/*.sh "$root"/tests/{live,deploy,compose}/*.sh
}

test_scripts_pass_shellcheck() {
  type -P shellcheck >/dev/null || ignore "shellcheck is not installed"
  scripts | (cd "$root" && xargs shellcheck -x)
}

test_scripts_can_be_run() {
  local script
  while IFS= read -r script; do
    # What is sourced has no first line of its own.
    head -n 1 "$script" | grep -q '^#!' || continue
    [ -x "$script" ] || fail "$script should be executable"
    grep -qE '^set -(e?)uo pipefail$' "$script" || fail "$script should stop at mistakes"
  done < <(scripts)
}

test_the_list_of_parts_names_every_crate_with_licence_and_checksum() {
  local said
  PATH="$real_path" type -P cargo >/dev/null || ignore "no cargo"
  PATH="$real_path" python3 -c "import tomllib" 2>/dev/null || ignore "no Python 3.11"
  PATH="$real_path" HOME="$real_home" "$root/deploy/sbom.sh" --offline >"$dir/sbom.json" 2>"$dir/stderr" ||
    ignore "cargo has not all crates here: $(tail -n 1 "$dir/stderr")"
  said="$(PATH="$real_path" python3 - "$dir/sbom.json" <<'PYTHON'
import json, sys

document = json.load(open(sys.argv[1]))
parts = document["components"]
names = {part["name"] for part in parts}
refs = {part["bom-ref"] for part in parts} | {document["metadata"]["component"]["bom-ref"]}
lack = [part["name"] for part in parts if "licenses" not in part or ("hashes" not in part and not part["name"].startswith("throughline"))]
lost = [to for one in document["dependencies"] for to in one["dependsOn"] if to not in refs]
print(document["bomFormat"], {"tokio", "sqlx", "async-nats", "throughline-actors"} <= names, "testcontainers" in names, lack, lost)
PYTHON
)"
  # testcontainers is for tests only.
  equal "$said" "CycloneDX True False [] []" "$said"
}
