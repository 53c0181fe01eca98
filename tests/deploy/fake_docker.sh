# shellcheck shell=bash
# A Docker engine with one image, whose nats-server is version 2.15.1. Each call is written down.
echo "$*" >>"$HOME/docker.calls"
case "$1" in
  version) ;;
  create) echo 0123abc ;;
  cp)
    [ "$2" = 0123abc:/usr/local/bin/nats-server ] || exit 1
    printf '#!/usr/bin/env bash\necho "nats-server: v2.15.1"\n' >"$3"
    ;;
  rm) ;;
  *) exit 1 ;;
esac
