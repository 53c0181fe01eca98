# shellcheck shell=bash
# The images that deploy/compose.yaml and deploy/Dockerfile name, made of what this machine has, for machines that reach no
# image registry. Sourced by run.sh.
#
# An image that is there already is the real one and is used. What is made here has a label and is removed afterwards, so
# that nobody mistakes it for the real one.

STAND_IN_LABEL=throughline.stand-in

# copy_program ROOT FILE...: the files, at their paths, with the libraries that they need.
copy_program() {
  local into="$1" file
  shift
  for file in "$@"; do
    mkdir -p "$into$(dirname "$file")"
    cp -L "$file" "$into$file"
    ldd "$file" 2>/dev/null | grep -oE '/[^ ]+' | while IFS= read -r library; do
      mkdir -p "$into$(dirname "$library")"
      [ -e "$into$library" ] || cp -L "$library" "$into$library"
    done
  done
}

# Prints the path of a statically linked busybox.
static_busybox() {
  local kept
  kept="$(cache_dir)/busybox-$(platform)/busybox"
  if [ ! -x "$kept" ]; then
    (
      scratch="$(cache_scratch)"
      trap 'rm -rf "$scratch"' EXIT
      cd "$scratch" && chmod 755 .
      apt-get download busybox-static >/dev/null 2>&1 ||
        { apt-get update >/dev/null 2>&1 && apt-get download busybox-static >/dev/null 2>&1; } ||
        { say "busybox-static could not be had from Debian's packages"; exit "$EX_UNAVAILABLE"; }
      dpkg-deb -x busybox-static_*.deb tree
      mkdir -p "$(dirname "$kept")"
      mv tree/bin/busybox "$kept"
    ) || return
  fi
  printf '%s\n' "$kept"
}

# import_image NAME ROOT CHANGE...: unless there is one of this name.
import_image() {
  local name="$1" tree="$2" change changes=()
  shift 2
  for change in "LABEL $STAND_IN_LABEL=1" "$@"; do changes+=(--change "$change"); done
  tar -C "$tree" -c . | docker import "${changes[@]}" - "$name" >/dev/null
  say "made a stand-in for $name"
}

missing_image() { ! docker image inspect "$1" >/dev/null 2>&1; }

# Where the Dockerfile compiles: `cargo build` checks that everything is there that the compiler read, and hands out the
# program that was built outside.
rust_image() {
  local tree="$1/rust" program="$2"
  mkdir -p "$tree/bin" "$tree/prebuilt" "$tree/tmp"
  cp "$(static_busybox)" "$tree/bin/busybox"
  for tool in sh cp mkdir cat test ls; do ln -s busybox "$tree/bin/$tool"; done
  strip -o "$tree/prebuilt/throughline" "$program"
  # The program's dependency file names every file of ours that went into it.
  tr ' ' '\n' <"$program.d" | sed -nE "s|^$root/||p" | grep -v '^target/' | sort -u >"$tree/prebuilt/sources"
  [ -s "$tree/prebuilt/sources" ] || { say "$program.d names no file in $root; build the program here"; return 1; }
  printf '#!/bin/sh\nexit 0\n' >"$tree/bin/cc"
  cat >"$tree/bin/cargo" <<'CARGO'
#!/bin/sh
set -eu
test "$*" = "build --release --locked --bin throughline" || { echo "unexpected: cargo $*"; exit 2; }
while read -r file; do
  test -f "$file" || { echo "not in the build context: $file"; exit 1; }
done </prebuilt/sources
for file in Cargo.toml Cargo.lock actors/Cargo.toml schemas/Cargo.toml tests/flow/main.rs tests/wire/main.rs tests/live/main.rs; do
  test -f "$file" || { echo "not in the build context: $file"; exit 1; }
done
for file in .git target deploy/secrets; do
  test ! -e "$file" || { echo "should not be in the build context: $file"; exit 1; }
done
mkdir -p target/release
cp /prebuilt/throughline target/release/throughline
CARGO
  chmod +x "$tree/bin/cc" "$tree/bin/cargo"
  import_image "$3" "$tree" "ENV PATH=/bin" 'CMD ["/bin/sh"]'
}

# glibc, libgcc, certificates, the user nonroot, and nothing else.
distroless_image() {
  local tree="$1/distroless" program="$2"
  mkdir -p "$tree/etc/ssl/certs" "$tree/home/nonroot" "$tree/tmp" "$tree/$root"
  chmod 1777 "$tree/tmp"
  copy_program "$tree" "$program"
  rm -f "$tree$program"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$tree/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$tree/etc/group"
  printf 'hosts: files dns\n' >"$tree/etc/nsswitch.conf"
  [ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
  chown -R 65532:65532 "$tree/home/nonroot"
  import_image "$3" "$tree" "USER 65532:65532" "WORKDIR /home/nonroot" "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
}

# nats-server and a shell with wget.
nats_image() {
  local tree="$1/nats"
  mkdir -p "$tree/bin" "$tree/usr/local/bin" "$tree/data" "$tree/etc/nats" "$tree/tmp"
  cp "$(static_busybox)" "$tree/bin/busybox"
  for tool in sh wget; do ln -s busybox "$tree/bin/$tool"; done
  cp "$NATS_SERVER_BIN" "$tree/usr/local/bin/nats-server"
  import_image "$2" "$tree" "ENV PATH=/usr/local/bin:/bin" 'CMD ["nats-server"]'
}

# The stand-in that the live tests have, under the official name and with the official one's way of telling a password.
postgres_image() {
  local made
  made="$(THROUGHLINE_PULL_LIMIT_S=1 "$root/tests/live/images.sh" postgres)" || return
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$1" - >/dev/null <<DOCKERFILE || return
FROM $made
LABEL $STAND_IN_LABEL=1
ENTRYPOINT ["/bin/sh", "-c", "if [ -n \"\$POSTGRES_PASSWORD_FILE\" ]; then IFS= read -r POSTGRES_PASSWORD <\"\$POSTGRES_PASSWORD_FILE\" || :; export POSTGRES_PASSWORD; fi; exec /usr/local/bin/docker-entrypoint.sh \"\$@\"", "--"]
CMD ["postgres"]
DOCKERFILE
  say "made a stand-in for $1"
}

# make_images SCRATCH PROGRAM: whatever is missing. The names are read out of the shipped files.
make_images() {
  local scratch="$1" program="$2" rust runtime nats database
  rust="$(sed -nE 's/^ARG RUST_IMAGE=//p' "$root/deploy/Dockerfile")"
  runtime="$(sed -nE 's/^ARG RUNTIME_IMAGE=//p' "$root/deploy/Dockerfile")"
  nats="$(sed -nE 's/^ *image: (nats:.*)$/\1/p' "$root/deploy/compose.yaml")"
  database="$(sed -nE 's/^ *image: (postgres:.*)$/\1/p' "$root/deploy/compose.yaml")"
  # Always: what it would compile is what is tested.
  rust_image "$scratch" "$program" "$rust"
  ! missing_image "$runtime" || distroless_image "$scratch" "$program" "$runtime"
  ! missing_image "$nats" || nats_image "$scratch" "$nats"
  ! missing_image "$database" || postgres_image "$database"
}

remove_stand_ins() {
  local image
  # A build that failed leaves the container that it failed in. Containers have the labels of their images.
  docker ps --all --quiet --filter "label=$STAND_IN_LABEL" | while IFS= read -r image; do
    docker rm --force "$image" >/dev/null 2>&1 || true
  done
  # What was built on one goes first: the engine lists the newest first, steps in between included.
  docker images --all --quiet --filter "label=$STAND_IN_LABEL" | while IFS= read -r image; do
    docker rmi --force "$image" >/dev/null 2>&1 || true
  done
}
