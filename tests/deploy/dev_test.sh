# shellcheck shell=bash disable=SC2154
# deploy/dev.sh and tests/run.sh. Sourced by run.sh, which has the helpers.

dev="$root/deploy/dev.sh"

# A cargo whose build gives a `throughline` that tells how it was called, then does what THEN says.
fake_cargo() {
  mkdir "$dir/target"
  cat >"$dir/target/throughline" <<'PROGRAM'
#!/usr/bin/env bash
printf '%s\n' "cwd=$PWD" "server=${NATS_SERVER_BIN:-}" "pid=$$"
printf 'arg=%s\n' "$@"
eval "${THEN:-}"
PROGRAM
  chmod +x "$dir/target/throughline"
  fake cargo <<CARGO
echo "cargo \$*" in "\$PWD" >>"$dir/cargo.calls"
[ -z "\${BUILD_FAILS:-}" ] || { echo "error: it does not compile" >&2; exit 101; }
echo '{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null,"fresh":true}'
echo '{"reason":"compiler-artifact","target":{"name":"throughline"},"executable":"$dir/target/throughline","fresh":true}'
echo '{"reason":"build-finished","success":true}'
CARGO
  fake_server "$dir/server/nats-server" 2.15.1
  export NATS_SERVER_BIN="$dir/server/nats-server"
}

test_dev_runs_from_anywhere_and_passes_everything_on() {
  bare_machine
  fake_cargo
  mkdir "$dir/else where"
  cd "$dir/else where" || return
  THEN='exit 7' try "$dev" --once "Where is my order?" --config 'a b.toml'
  equal "$code" 7 "$err"
  contains "$out" "cwd=$(pwd -P)"
  contains "$out" "server=$dir/server/nats-server"
  contains "$out" $'arg=dev\narg=--once\narg=Where is my order?\narg=--config\narg=a b.toml'
  contains "$(cat "$dir/cargo.calls")" "in $root"
  contains "$(cat "$dir/cargo.calls")" "--locked"
}

test_dev_becomes_the_program_so_that_signals_reach_it() {
  local pid status=0
  bare_machine
  fake_cargo
  # It waits for the signal, but not for ever. Opening a fifo waits until the program is there to write.
  local mkfifo line
  mkfifo="$(PATH="$real_path" type -P mkfifo)" || ignore "no mkfifo"
  "$mkfifo" "$dir/out"
  THEN='trap "exit 42" TERM; echo ready; for _ in {1..500}; do sleep 0.02; done' "$dev" >"$dir/out" 2>/dev/null &
  pid=$!
  while read -r line; do
    case "$line" in
      pid=*) equal "$line" "pid=$pid" ;;
      ready) kill -TERM "$pid" ;;
    esac
  done <"$dir/out"
  wait "$pid" || status=$?
  equal "$status" 42
}

test_dev_shows_why_the_build_failed() {
  bare_machine
  fake_cargo
  BUILD_FAILS=1 try "$dev"
  equal "$code:$out" "101:"
  contains "$err" "it does not compile"
}

test_dev_without_cargo_says_so() {
  bare_machine
  try "$dev"
  equal "$code:$out" "69:"
  contains "$err" "cargo was not found"
}

test_dev_finds_the_cargo_of_rustup() {
  bare_machine
  fake_cargo
  mkdir -p "$HOME/.cargo/bin"
  mv "$bin/cargo" "$HOME/.cargo/bin/cargo"
  try "$dev"
  equal "$code" 0 "$err"
}

test_dev_needs_no_server_of_its_own_when_told_of_one() {
  bare_machine
  no_installed_server
  fake_cargo
  unset NATS_SERVER_BIN
  try "$dev"
  equal "$code" 69
  try "$dev" --nats-url nats://127.0.0.1:4222
  equal "$code" 0 "$err"
  try "$dev" --nats-url=nats://127.0.0.1:4222
  equal "$code" 0 "$err"
}

test_run_explains_itself_and_refuses_what_it_does_not_know() {
  bare_machine
  try "$root/tests/run.sh" --help
  equal "$code" 0 "$err"
  contains "$out" "advisories"
  try "$root/tests/run.sh" flow floww
  equal "$code:$out" "2:"
  contains "$err" "no tier called 'floww'"
}

test_run_counts_and_reports_what_failed() {
  bare_machine
  fake cargo <<'CARGO'
case "$*" in
  *--no-run*) ;;
  *"--test flow"*) echo "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s" ;;
  *"--test wire"*) echo "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"; exit 101 ;;
esac
CARGO
  fake_server "$bin/nats-server" 2.15.1
  try "$root/tests/run.sh" flow
  equal "$code:$(tail -n 1 <<<"$out")" "0:3 passed, 0 failed, 1 skipped" "$err"
  try "$root/tests/run.sh" flow wire
  equal "$code:$(tail -n 1 <<<"$out")" "1:5 passed, 1 failed, 1 skipped" "$err"
  contains "$out" "FAILED"
  # A crash reports no test at all and is a failure all the same.
  fake cargo <<<'case "$*" in *--no-run*) ;; *) exit 134 ;; esac'
  try "$root/tests/run.sh" flow
  equal "$code:$(tail -n 1 <<<"$out")" "1:0 passed, 1 failed, 0 skipped" "$err"
}

test_run_leaves_out_live_without_a_server_but_not_in_ci() {
  bare_machine
  no_installed_server
  fake cargo <<<'exit 0'
  # A copy, in which these tests are not: they would start themselves again.
  mkdir -p "$dir/repo/tests/deploy"
  cp -R "$root/deploy" "$dir/repo/"
  cp -R "$root"/tests/*.sh "$root/tests/live" "$dir/repo/tests/"
  printf '#!/usr/bin/env bash\n' >"$dir/repo/tests/deploy/run.sh"
  chmod +x "$dir/repo/tests/deploy/run.sh"
  unset CI THROUGHLINE_CORPORA
  try "$dir/repo/tests/run.sh"
  equal "$code" 0 "$err"
  contains "$out" "left out: no nats-server"
  contains "$out" "left out: no cargo-deny"
  contains "$out" "left out: tests on the corpora"
  CI=true try "$dir/repo/tests/run.sh"
  equal "$code" 1
  contains "$out" "FAILED: cannot run: no nats-server"
  try "$dir/repo/tests/run.sh" deny
  equal "$code" 1
  contains "$out" "FAILED: cannot run: no cargo-deny"
}

test_run_runs_live_in_containers_without_a_local_server_and_says_what_was_left_out() {
  bare_machine
  no_installed_server
  fake cargo <<'CARGO'
case "$*" in
  *"--test live"*)
    echo "image=$THROUGHLINE_NATS_IMAGE"
    printf 'one::test: no tmpfs\nanother::test: no tmpfs\n' >>"$THROUGHLINE_TEST_LEFT_OUT"
    echo "test result: ok. 2 passed; 0 failed; 0 ignored" ;;
esac
CARGO
  unset CI
  THROUGHLINE_NATS_IMAGE=some/nats:1 try "$root/tests/run.sh" live
  # Twice: what needs the machine to itself runs behind the rest.
  equal "$code:$(tail -n 1 <<<"$out")" "0:4 passed, 0 failed, 0 skipped" "$err"
  contains "$out" "container of some/nats:1"
  contains "$out" "image=some/nats:1"
  contains "$out" "left out of live: another::test, one::test: no tmpfs"
  # Told to use local programs, of which there are none.
  THROUGHLINE_TEST_SERVERS=local THROUGHLINE_NATS_IMAGE=some/nats:1 try "$root/tests/run.sh" live
  equal "$code" 1
  contains "$out" "FAILED: cannot run: no nats-server"
}

test_the_python_of_the_live_tests_says_why_it_cannot_be_had() {
  bare_machine
  try "$root/tests/live/python.sh"
  equal "$code:$out" "69:"
  contains "$err" "Python 3.8 or newer is not installed"
  real_pip
  try "$root/tests/live/python.sh"
  equal "$code:$out" "69:"
  contains "$err" "pip:"
  equal "$(left_in "$HOME/.cache/throughline")" ""
}
