#!/usr/bin/env bash
# Builds server-cpu and demo on plain Debian and asks them what a cluster would: a base by debootstrap, buildah, podman with runc.
# As root, after `make demo ONCE=1`; needs `apt install buildah podman runc crun debootstrap curl file`. Everything lies in
# $WORK (default: a folder in /var/tmp, kept for the next time). pip's settings reach the build as build arguments, from PIP_*.
set -euo pipefail
cd "$(dirname "$0")/.."
WORK=${WORK:-/var/tmp/limner-image-test}
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
mkdir -p "$WORK"
printf '[containers]\ndefault_ulimits = []\n' >"$WORK/containers.conf" # raising them needs more rights than the rest
export CONTAINERS_CONF="$WORK/containers.conf"
store=(--root "$WORK/store" --runroot "$WORK/run" --storage-driver "${STORAGE_DRIVER:-overlay}")
podman() { command podman "${store[@]}" --cgroup-manager cgroupfs --runtime runc "$@"; }
buildah() { command buildah "${store[@]}" "$@"; }
hardened=(--read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges --cpus 2)
volumes=(--tmpfs /tmp:mode=1777 --tmpfs /run/limner:mode=1777 --tmpfs /home/limner/.cache:mode=1777)
started=()
trap '((${#started[@]})) && podman rm --force "${started[@]}" >/dev/null 2>&1 || true' EXIT

say() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
millis() { date +%s%3N; }

start() { # NAME ARGUMENTS...: a container in the background
  local name=$1
  shift
  started+=("$name")
  podman run --detach --name "$name" --network none "$@" >/dev/null
}

ask() { # NAME PATH ARGUMENTS...: curl beside a container, which has no network but its own loopback
  local pid place=$2
  pid=$(podman inspect --format '{{.State.Pid}}' "$1")
  shift 2
  nsenter --target "$pid" --net curl --fail --silent --show-error "$@" "http://127.0.0.1:8000$place"
}

ready() { # NAME: wait until it serves, at most a minute, and say how long that took
  local began
  began=$(millis)
  until ask "$1" /readyz --output /dev/null 2>/dev/null; do
    (($(millis) - began < 60000)) || { podman logs "$1"; fail "$1 is not ready after a minute"; }
    sleep 0.1
  done
  echo "ready after $(($(millis) - began)) ms"
}

stop() { # NAME: SIGTERM, as the kubelet would; exit 0, all said as JSON
  local began code
  began=$(millis)
  podman stop --time 35 "$1" >/dev/null
  code=$(podman inspect --format '{{.State.ExitCode}}' "$1")
  echo "stopped after $(($(millis) - began)) ms, exit $code"
  [ "$code" = 0 ] || fail "$1 ended with $code"
}

refused() { # WHAT ARGUMENTS...: it does not serve, exits 1 and says why in one line
  local what=$1 code=0
  shift
  podman run --rm --network none "${hardened[@]}" "$@" >"$WORK/stdout" 2>"$WORK/stderr" || code=$?
  echo "$what: exit $code"
  cat "$WORK/stderr"
  [ "$code" = 1 ] && [ "$(wc -l <"$WORK/stderr")" = 1 ] && [ ! -s "$WORK/stdout" ] || fail "$what: not one line and exit 1"
  grep -q '"event": "cannot serve"' "$WORK/stderr" || fail "$what: no line of the log"
}

say "tools"
buildah --version
podman --version
runc --version | head -1

if ! podman image exists localhost/limner-base; then
  say "base: debootstrap bookworm"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$WORK/base" >"$WORK/debootstrap.log"
  rm -rf "$WORK"/base/var/cache/apt/* "$WORK"/base/var/lib/apt/lists/* "$WORK"/base/usr/share/{doc,locale,man}/*
  tar -C "$WORK/base" -c . | podman import --quiet - localhost/limner-base >/dev/null
  rm -rf "$WORK/base"
fi

say "build server-cpu and demo"
arguments=(--build-arg BASE=localhost/limner-base)
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT; do
  [ -n "${!name:-}" ] && arguments+=(--build-arg "$name=${!name}")
done
for place in "${PIP_CERT:-}" ${PIP_FIND_LINKS:-}; do # what lies on this machine is lent to the build
  [ -e "$place" ] && arguments+=(--volume "$place:$place:ro")
done
for target in "server-cpu:$VERSION" demo:dev models:"$VERSION"; do
  buildah bud --layers --runtime runc --network host "${arguments[@]}" --target "${target%:*}" \
    --tag "limner/$target" . >"$WORK/build-${target%:*}.log" 2>&1 || { tail -20 "$WORK/build-${target%:*}.log"; fail "build $target"; }
done

say "sizes"
podman images --sort size --filter dangling=false --format '{{.Repository}}:{{.Tag}} {{.Size}}' | sed 's#^localhost/##'
echo "layers of demo, from the top: $(podman history --format '{{.Size}}' limner/demo:dev | grep -v '^0 B$' | paste -sd ',')"
podman save --quiet limner/demo:dev | gzip -1 | wc -c | awk '{printf "demo, compressed: %.0f MB\n", $1 / 1e6}'

say "who it runs as"
podman image inspect --format 'user {{.User}}, entry {{.Config.Entrypoint}} {{.Config.Cmd}}' limner/demo:dev
podman image inspect --format '{{range $name, $value := .Labels}}{{$name}}={{$value}}{{"\n"}}{{end}}' limner/demo:dev | grep opencontainers
podman run --rm --network none --entrypoint python limner/server-cpu:"$VERSION" -c \
  'import importlib.util as i; assert not [n for n in ("torch", "onnx", "matplotlib", "pytest") if i.find_spec(n)]; print("no torch")'

say "demo: read-only root, no capabilities, no new privileges, 2 CPUs, 1 GiB, a worker for each core"
start demo "${hardened[@]}" "${volumes[@]}" --memory 1g --memory-swap 1g \
  --env LIMNER_WORKERS=auto --env LIMNER_METRICS_FOLDER=/run/limner limner/demo:dev
ready demo
for _ in $(seq 300); do # /readyz is the first worker's
  ask demo /metrics | grep -q '^limner_workers 2' && break
  sleep 0.2
done
podman exec demo grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/1/status
{ podman exec demo python -c 'open("/app/x", "w")' 2>&1 || true; } | tail -1
ask demo '/generate?label=3&n=16&seed=7' --output "$WORK/threes.png"
for page in / /js/limner-client.js /playground/playground.js; do ask demo "$page" --output /dev/null; done
file "$WORK/threes.png" 2>/dev/null | sed "s#$WORK/##" || true
ask demo /metrics | grep -E '^limner_(workers|images_total|compute_seconds_sum)'
echo "memory: $(podman stats --no-stream --format '{{.MemUsage}}' demo)"

say "SIGTERM while 4 large answers are made"
for seed in 1 2 3 4; do
  ask demo "/generate?n=8192&format=npy&seed=$seed" -o "$WORK/$seed.npy" -w '%{http_code} with %{size_download} bytes\n' \
    >"$WORK/$seed.txt" &
done
for _ in $(seq 100); do # four, and who asks for the metrics
  ask demo /metrics | grep -q '^limner_in_flight_requests 5' && break
done
stop demo
wait
sort "$WORK"/[1-4].txt | uniq -c
[ "$(sort -u "$WORK"/[1-4].txt)" = "200 with $((128 + 8192 * 28 * 28)) bytes" ] || fail "an answer was cut"
podman logs demo 2>&1 | grep -o '"event": "[a-z]*"' | sort | uniq -c

say "SIGTERM while it starts, as process 1"
start early "${hardened[@]}" "${volumes[@]}" --memory 1g --memory-swap 1g limner/demo:dev
sleep 1
stop early

say "the same bundle from a volume"
start cpu "${hardened[@]}" "${volumes[@]}" --memory 256m --memory-swap 256m \
  --volume "$PWD/models:/models:ro" limner/server-cpu:"$VERSION"
ready cpu
ask cpu '/generate?label=3&n=16&seed=7' --output "$WORK/again.png"
cmp "$WORK/threes.png" "$WORK/again.png" && echo "the same picture, byte for byte"
echo "memory: $(podman stats --no-stream --format '{{.MemUsage}}' cpu)"
stop cpu

say "what cannot serve says why in one line"
refused "no models" "${volumes[@]}" limner/server-cpu:"$VERSION"
refused "empty models" "${volumes[@]}" --tmpfs /models limner/server-cpu:"$VERSION"
refused "read-only cache" --env LIMNER_WORKERS=2 --env LIMNER_METRICS_FOLDER=/run limner/demo:dev
refused "64 MiB of memory" "${volumes[@]}" --memory 64m --memory-swap 64m limner/demo:dev
refused "links of a Service named limner" "${volumes[@]}" --env LIMNER_PORT=tcp://10.0.0.1:8000 limner/demo:dev

say "done"
