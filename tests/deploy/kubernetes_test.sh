# shellcheck shell=bash disable=SC2154
# The manifests: what kustomize makes of them is valid, and agrees with the program. Sourced by run.sh, which has the helpers.

# Renders both into $dir/all.yaml.
rendered() {
  local folder
  type -P kubectl >/dev/null || ignore "kubectl is not installed"
  for folder in deploy/nats deploy/k8s; do
    kubectl kustomize "$root/$folder" || return
    echo ---
  done >"$dir/all.yaml"
}

python_with_schemas() {
  HOME="$real_home" "$root/tests/live/python.sh" kubernetes 2>"$dir/python" ||
    ignore "no Python with kubernetes-validate: $(tail -n 1 "$dir/python")"
}

test_manifests_are_valid_and_agree_with_the_program() {
  local python
  rendered || fail "kustomize: $(cat "$dir/all.yaml")"
  python="$(python_with_schemas)" || exit
  "$python" "$here/kubernetes.py" "$root" "$dir/all.yaml" || fail "see above"
}

test_the_program_accepts_the_shipped_configurations() {
  local program="${CARGO_TARGET_DIR:-$root/target}/debug/throughline" file
  [ -x "$program" ] || ignore "the program is not built"
  for file in config/throughline.toml compose/throughline.toml compose/sandbox.toml k8s/throughline.toml; do
    try env -u NATS_URL -u DATABASE_URL "$program" --config "$root/deploy/$file" config check
    equal "$code" 0 "$file: $err"
  done
}

test_services_have_the_secrets_that_they_use_and_no_others() {
  local python
  python="$(python_with_schemas)" || exit
  "$python" "$here/compose.py" "$root" || fail "see above"
}
