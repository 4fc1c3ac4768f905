# Shared by the scripts: what installs packages and keeps .venv.  Sourced from the root.

say() { printf '%s\n' "$*" >&2; }
die() { say "$0: $*"; exit 2; }

# need_packages NAME…: install the Debian packages that are missing.
need_packages() {
    local missing=() name
    command -v dpkg-query >/dev/null || die "needs Debian's package tools; install by hand: $*"
    for name in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed ||
            missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || die "missing packages; run as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local log; log=$(mktemp)
    if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "could not install ${missing[*]} (whole log: $log)"
    fi
    rm -f "$log"
}

# make_venv [EXTRA…]: .venv at the root with this project, editable, and the named extras.
# Reinstalls only when something that the result depends on has changed.
make_venv() {
    [ -x .venv/bin/python ] || python3 -m venv .venv
    local extras="" state stamp
    [ $# -gt 0 ] && extras="[$(IFS=,; echo "$*")]"
    state=$({ cat pyproject.toml setup.py scripts/build_core.py ./*/core/*.[ch]
              python3 --version; } | sha256sum | cut -d' ' -f1)
    stamp=.venv/built # the state that was built, then each set of extras installed for it
    if [ "$(head -n 1 "$stamp" 2>/dev/null)" != "$state" ]; then
        rm -f "$stamp"
    elif grep -qxF -- "extras $extras" "$stamp"; then
        return
    fi
    say "building meshswitch$extras in .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras"
    [ -f "$stamp" ] || echo "$state" >"$stamp"
    echo "extras $extras" >>"$stamp"
}
