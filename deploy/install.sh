#!/bin/sh
# Installs xray-watcher as a service on Debian 12 or 13, from the checkout that this file lies in.
# Every step is printed, and may be repeated: what is there already is kept or brought up to date.
set -eu
umask 022 # the service's user must be able to read the program

usage() {
    cat <<'END'
usage: sudo sh deploy/install.sh [OPTIONS]

  --extras LIST     parts beside the watcher, with commas between; "" for none; default: those that
                    are installed, else web
  --root FOLDER     inbox and results; default: what the configuration says, else /srv/xray
  --weights FILE    a checkpoint to import, for servers without internet: of the set that the
                    configuration names, which is densenet121-res224-chex if you change nothing
  --sha256 HASH     of that file, if it is not the published one
  --prefix FOLDER   where the program goes; default: where it is, else /opt/xray-watcher
  --python PROGRAM  a Python 3.11 or newer; default: that of the installed program, else the newest
  --no-start        neither enable nor start the services
  --dry-run         print the steps and change nothing
  --uninstall       remove the program and the services; keep images, records, ledger and settings
  --purge           with --uninstall: remove settings, ledger and weights too; images are never touched
  -h, --help        print this

Packages come from pip's index: name a mirror in /etc/pip.conf, or `sudo PIP_INDEX_URL=... sh ...`.
Those that do not have the hashes of deploy/locks are refused.
DESTDIR=FOLDER stages the files below that folder, for building a package: nothing is installed
from the index, no user is made, nothing is started.
END
}

# -- what is wanted -------------------------------------------------------------------------

SOURCE=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
DESTDIR=${DESTDIR:-}
EXTRAS=''
HAS_EXTRAS=no
PREFIX=''
ROOT=''
PYTHON=''
WEIGHTS=''
SHA256=''
DRY=no
START=yes
ACTION=install
PURGE=no
MISSES_WEIGHTS=no

USER_NAME=xray-watcher
GROUP_NAME=xray
CONFIG_FOLDER=/etc/xray-watcher
CONFIG=$CONFIG_FOLDER/config.toml
STATE=/var/lib/xray-watcher
CACHE=/var/cache/xray-watcher
LOCAL=/usr/local
LOCK=/run/xray-watcher-install.lock
UNITS='xray-watcher xray-watcher-web'
TOKENS=$STATE/tokens
TEST_IMAGE=phantom-003-pneumothorax.png # the fourth that `xray-watcher phantoms` draws
TEST_LABEL=Pneumothorax
NEEDED_GB=12 # PyTorch for x86_64 comes with the libraries of CUDA

fail() {
    printf '\ninstall.sh: %s\n' "$*" >&2
    exit 1
}

wrong() {
    printf 'install.sh: %s\n\n' "$*" >&2
    usage >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --extras | --root | --weights | --sha256 | --prefix | --python)
        [ $# -ge 2 ] || wrong "$1 needs a value."
        case $1 in
        --extras)
            EXTRAS=$2
            HAS_EXTRAS=yes
            ;;
        --root) ROOT=$2 ;;
        --weights) WEIGHTS=$2 ;;
        --sha256) SHA256=$2 ;;
        --prefix) PREFIX=$2 ;;
        --python) PYTHON=$2 ;;
        esac
        shift
        ;;
    --no-start) START=no ;;
    --dry-run) DRY=yes ;;
    --uninstall) ACTION=uninstall ;;
    --purge) PURGE=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) wrong "$1 is not an option." ;;
    esac
    shift
done

from_here() { # from_here PATH: as it is called from elsewhere
    case $1 in '' | /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac
}
DESTDIR=$(from_here "$DESTDIR")
WEIGHTS=$(from_here "$WEIGHTS")
case $PYTHON in */*) PYTHON=$(from_here "$PYTHON") ;; esac
cd / # Python looks for modules where it is started, and somebody else may write there

is_plain_path() { # goes into unit files, where spaces and % have a meaning
    case $1 in
    *[!A-Za-z0-9/._-]* | *..* | *//* | */) return 1 ;;
    /?*) return 0 ;;
    *) return 1 ;;
    esac
}

# What an earlier run was told is so until it is told otherwise.
if [ -r "$DESTDIR$CONFIG" ]; then
    configured=$(sed -n "s/^ *root *= *[\"']\([^\"']*\)[\"'].*/\1/p" "$DESTDIR$CONFIG" | head -n 1)
    [ -z "$configured" ] || [ "${ROOT:-$configured}" = "$configured" ] ||
        wrong "--root: $CONFIG says root = \"$configured\". Change it there, and run this again."
    ROOT=${configured:-$ROOT}
fi
ROOT=${ROOT:-/srv/xray}
unit=$DESTDIR$LOCAL/lib/systemd/system/xray-watcher.service
if [ -z "$PREFIX" ] && [ -r "$unit" ]; then
    PREFIX=$(sed -n 's|^ExecStart=\(.*\)/venv/bin/xray-watcher run.*|\1|p' "$unit")
fi
PREFIX=${PREFIX:-/opt/xray-watcher}
if [ "$HAS_EXTRAS" = no ]; then
    EXTRAS=$(cat "$DESTDIR$PREFIX/share/extras" 2>/dev/null || echo web)
fi
is_plain_path "$ROOT" || wrong "--root must be an absolute path of letters, digits, / . _ and -: $ROOT"
is_plain_path "$PREFIX" || wrong "--prefix must be an absolute path of letters, digits, / . _ and -: $PREFIX"
case $EXTRAS in *[!a-z0-9,-]*) wrong "--extras is a list such as web,onnx: $EXTRAS" ;; esac
PARTS=$(printf '%s' "$EXTRAS" | tr , ' ')
for part in $PARTS; do # each has its file in deploy/locks
    case $ACTION-$part in
    uninstall-* | install-web | install-onnx) ;;
    *) wrong "--extras: there are web and onnx, and no $part." ;;
    esac
done
[ -z "$WEIGHTS" ] || [ -r "$WEIGHTS" ] || wrong "--weights: $WEIGHTS cannot be read."
[ "$PURGE" = no ] || [ "$ACTION" = uninstall ] || wrong "--purge goes with --uninstall."

PROGRAM=$PREFIX/venv/bin/xray-watcher

# -- how it is done -------------------------------------------------------------------------

step() { printf '\n== %s\n' "$*"; }
say() { printf '   %s\n' "$*"; }

run() { # print a command, and carry it out unless this is a dry run
    printf '   $ %s\n' "$*"
    [ "$DRY" = yes ] || "$@"
}

run_quietly() { # the same, and what it prints is shown only if it fails
    printf '   $ %s\n' "$*"
    [ "$DRY" = no ] || return 0
    told=$(mktemp)
    status=0
    "$@" >"$told" 2>&1 || status=$?
    [ "$status" -eq 0 ] || cat "$told"
    rm -f "$told"
    return "$status"
}

as_service() { # in a session of its own: it can type nothing into root's terminal
    setsid --wait runuser -u "$USER_NAME" -g "$GROUP_NAME" -- env -u TMPDIR "HOME=$STATE" "$@" 9>&-
}

one_at_a_time() { # wait until no other run of this script works on the same system
    [ "$DRY" = no ] || return 0
    if [ -n "$DESTDIR" ]; then
        mkdir -p "$DESTDIR"
        exec 9<"$DESTDIR"
    else
        (umask 077 && : >>"$LOCK") # who can open it can hold it
        exec 9<"$LOCK"
    fi
    flock --nonblock 9 && return
    say "another run of install.sh is at work: waiting until it is done"
    flock 9
}

has_systemd() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

place() { # place MODE FILE TARGET [SCRIPT]: a file, with the paths that were asked for
    printf '   %s\n' "$3"
    [ "$DRY" = no ] || return 0
    mkdir -p "$DESTDIR$(dirname "$3")"
    # By way of marks that no path can hold: neither path is replaced within the other.
    sed -e 's|/srv/xray|@ROOT@|g' -e 's|/opt/xray-watcher|@PREFIX@|g' \
        -e "s|@ROOT@|$ROOT|g" -e "s|@PREFIX@|$PREFIX|g" ${4:+-e "$4"} "$2" >"$DESTDIR$3.new"
    chmod "$1" "$DESTDIR$3.new"
    mv -f "$DESTDIR$3.new" "$DESTDIR$3"
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

apt_install() {
    command -v apt-get >/dev/null 2>&1 || fail "$* is missing, and there is no apt-get to install it."
    run_quietly apt-get update -qq || say "(the package lists could not be renewed)"
    run_quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" ||
        fail "Debian's $* could not be installed. Install it, and run this again."
}

setting() { # the value of a key that is in force, as `check-config` shows it
    as_service "$PROGRAM" check-config --config "$CONFIG" |
        sed -n "s/^$1 .* \"\(.*\)\"\$/\1/p" | head -n 1
}

# -- the steps of an installation -----------------------------------------------------------

pick_python() {
    step "1. Python 3.11 or newer, and room"
    IS_PYTHON_NAMED=yes
    if [ -z "$PYTHON" ]; then
        IS_PYTHON_NAMED=no
        PYTHON=$(find_python)
    fi
    if [ -z "$PYTHON" ]; then
        apt_install python3 python3-venv
        PYTHON=$(find_python)
    fi
    if [ -z "$PYTHON" ]; then
        [ "$DRY" = yes ] || fail "This Debian has no Python 3.11 or newer; name one with --python."
        PYTHON=python3
    elif ! is_new_enough "$PYTHON"; then
        fail "$PYTHON is not a Python 3.11 or newer."
    elif ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
        apt_install python3-venv
    fi
    command -v "$PYTHON" >/dev/null 2>&1 && say "$PYTHON is $("$PYTHON" --version 2>&1)"
    check_room
}

is_usable() { # whether the environment of an earlier run is there and has the Python that is wanted
    # After an upgrade of Debian its Python is another one, which does not see what was installed.
    "$PREFIX/venv/bin/python" -c 'import pip' 2>/dev/null || return 1
    [ "$IS_PYTHON_NAMED" = no ] || [ "$(version_of "$PREFIX/venv/bin/python")" = "$(version_of "$PYTHON")" ]
}

version_of() { "$1" -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null; }

check_room() {
    if is_usable; then
        say "$PREFIX/venv is there: it will be brought up to date"
        return
    fi
    if [ -d "$PREFIX/venv" ]; then
        say "$PREFIX/venv is for another Python: it will be made anew"
        return
    fi
    folder=$PREFIX
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    free_kb=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
    say "$((free_kb / 1000000)) GB are free at $folder"
    if [ "$(uname -m)" = x86_64 ] && [ "$free_kb" -lt $((NEEDED_GB * 1000000)) ]; then
        fail "PyTorch needs $NEEDED_GB GB at $folder. Make room, or choose another --prefix."
    fi
}

install_program() {
    step "2. The program, in an environment of its own: $PREFIX/venv"
    if ! is_usable; then
        run "$PYTHON" -m venv --clear "$PREFIX/venv"
        say "the next takes some minutes: PyTorch is large"
    fi
    # Here and not in /tmp, which Debian 13 has in memory: pip unpacks gigabytes.
    run rm -rf "$PREFIX/tmp"
    run mkdir -p "$PREFIX/tmp"
    with_builder=''
    # First what builds the program: when that is not to be had, an upgrade has changed nothing.
    pip_install --require-hashes --target "$PREFIX/tmp/build" -r "$SOURCE/deploy/locks/build.txt"
    set --
    for part in base $PARTS; do set -- "$@" -r "$SOURCE/deploy/locks/$part.txt"; done
    pip_install --require-hashes "$@"
    with_builder=yes # now alone: what pip sees there it would not install for the program
    pip_install --no-index --no-deps --no-build-isolation "$SOURCE"
    run rm -rf "$PREFIX/tmp"
    run mkdir -p "$LOCAL/bin"
    run ln -sfn "$PROGRAM" "$LOCAL/bin/xray-watcher"
}

pip_install() { # pip_install OPTIONS: what pip complains of is shown, and ends the run where it must
    told=/dev/null
    [ "$DRY" = yes ] || told=$PREFIX/tmp/told
    status=0
    run env "TMPDIR=$PREFIX/tmp" ${with_builder:+"PYTHONPATH=$PREFIX/tmp/build"} \
        "$PREFIX/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" 2>"$told" || status=$?
    cat "$told" >&2
    [ "$status" -ne 0 ] || return 0
    why="pip failed. Is its index, or your mirror in /etc/pip.conf, in reach, and room at $PREFIX?"
    ! grep -q 'DO NOT MATCH THE HASHES' "$told" ||
        why="A package is not the one that this release was made with (deploy/locks), and was not
installed; pip names it above. Run this again; if it stays so, take another index or mirror."
    run rm -rf "$PREFIX/tmp"
    fail "$why"
}

place_files() {
    step "3. Units, user, folders, manual"
    for unit in $UNITS; do
        place 644 "$SOURCE/deploy/systemd/$unit.service" "$LOCAL/lib/systemd/system/$unit.service"
    done
    place 644 "$SOURCE/deploy/sysusers.d/xray-watcher.conf" "$LOCAL/lib/sysusers.d/xray-watcher.conf"
    place 644 "$SOURCE/deploy/tmpfiles.d/xray-watcher.conf" "$LOCAL/lib/tmpfiles.d/xray-watcher.conf"
    for drop_in in gpu shares network; do
        place 644 "$SOURCE/deploy/systemd/examples/$drop_in.conf" "$PREFIX/share/systemd/$drop_in.conf"
    done
    remember_extras
    place 644 "$SOURCE/deploy/man/xray-watcher.1" "$LOCAL/share/man/man1/xray-watcher.1"
    place 644 "$SOURCE/deploy/man/xray-watcher.toml.5" "$LOCAL/share/man/man5/xray-watcher.toml.5"
}

remember_extras() { # for the next run
    say "$PREFIX/share/extras"
    [ "$DRY" = yes ] || printf '%s\n' "$EXTRAS" >"$DESTDIR$PREFIX/share/extras"
}

place_completions() {
    step "4. Completion for bash, zsh and fish"
    place_completion bash "$LOCAL/share/bash-completion/completions/xray-watcher"
    place_completion zsh "$LOCAL/share/zsh/site-functions/_xray-watcher"
    place_completion fish "$LOCAL/share/fish/vendor_completions.d/xray-watcher.fish"
}

place_completion() { # place_completion SHELL TARGET: as the installed program writes it
    say "$2"
    [ "$DRY" = no ] || return 0
    mkdir -p "$(dirname "$2")"
    env "_XRAY_WATCHER_COMPLETE=${1}_source" "$PROGRAM" >"$2.new" 2>/dev/null || {
        rm -f "$2.new"
        say "  (left out: it could not be made for this system's $1)"
        return 0
    }
    mv -f "$2.new" "$2"
}

make_user_and_folders() {
    step "5. User $USER_NAME, group $GROUP_NAME, folders"
    run systemd-sysusers "$LOCAL/lib/sysusers.d/xray-watcher.conf"
    run systemd-tmpfiles --create "$LOCAL/lib/tmpfiles.d/xray-watcher.conf" ||
        say "(some of it could not be made, see above)"
    say "people and modalities that drop images belong in the group: usermod -aG $GROUP_NAME NAME"
}

configure() {
    step "6. Configuration: $CONFIG"
    if [ -e "$DESTDIR$CONFIG" ]; then
        say "kept as it is"
    else
        # The pages are for those who have a token, not for every user of this server.
        place 640 "$SOURCE/config/xray-watcher.toml" "$CONFIG" \
            "s|^#token_file = \"\"|token_file = \"$TOKENS\"|"
        [ -n "$DESTDIR" ] || run chown "root:$GROUP_NAME" "$CONFIG"
    fi
}

import_weights() {
    step "7. The network's weights"
    if [ -z "$WEIGHTS" ]; then
        say "none were given with --weights"
        return
    fi
    # In a folder of root's own: what root writes lies nowhere that the service can write.
    brought=$PREFIX/import
    [ "$DRY" = yes ] || brought=$(mktemp -d "$PREFIX/import.XXXXXX")
    trap 'rm -rf "$brought"' EXIT
    run chgrp "$GROUP_NAME" "$brought"
    run chmod 750 "$brought"
    run install -T -g "$GROUP_NAME" -m 640 "$WEIGHTS" "$brought/weights"
    name=densenet121-res224-chex
    [ "$DRY" = yes ] || name=$(setting model.weights)
    printf '   $ %s\n' "xray-watcher weights import $WEIGHTS --name $name${SHA256:+ --sha256 $SHA256}"
    [ "$DRY" = no ] || return 0
    as_service "$PROGRAM" weights import "$brought/weights" --name "$name" --config "$CONFIG" \
        ${SHA256:+--sha256 "$SHA256"} || fail "The weights were not imported."
    rm -rf "$brought"
    trap - EXIT
}

check() {
    step "8. Check of the configuration, and one drawn image through the whole way"
    printf '   $ xray-watcher check-config --config %s\n' "$CONFIG"
    if [ "$DRY" = no ]; then
        as_service "$PROGRAM" check-config --config "$CONFIG" >/dev/null ||
            fail "Mend $CONFIG, and run this again."
        [ "$(setting root)" = "$ROOT" ] ||
            fail "The units are for $ROOT, and $CONFIG says $(setting root): write root = \"...\" in one line."
        self_test
    fi
    first_token
    place_drop_ins
}

self_test() { # the service's user does all of it: root reads and moves nothing there
    say "$TEST_IMAGE, as the user $USER_NAME, with the built-in simulation:"
    as_service sh -s "$PROGRAM" "$TEST_IMAGE" "$TEST_LABEL" <<'END' || fail "The self-test failed."
set -eu
program=$1 image=$2 label=$3
place=$(mktemp -d /tmp/xray-watcher-self-test.XXXXXX)
trap 'rm -rf "$place"' EXIT
mkdir "$place/inbox"
cat >"$place/config.toml" <<SETTINGS
root = "$place"
state_dir = "$place/state"
[intake]
settle_seconds = 0.5
min_free_bytes = 0
[model]
weights = "phantom"
[log]
level = "warning"
SETTINGS
"$program" phantoms "$place/drawn" --count 4 >/dev/null
mv "$place/drawn/$image" "$place/inbox/"
told=$("$program" run --once --config "$place/config.toml" </dev/null)
printf '   %s\n' "$told"
filed=$(find "$place/classified_images" -type f)
[ -n "$filed" ] || { echo "The self-test's image was not filed." >&2; exit 1; }
grep -q "\"top_label\": *\"$label\"" "$place"/logs/results-*.jsonl ||
    { echo "The self-test's image shows a $label, and that was not found." >&2; exit 1; }
printf '   filed as %s: what was drawn was found\n' "${filed#"$place"/}"
END
}

first_token() { # without one every user of this server could see all pictures
    has_web || return 0
    tokens=$TOKENS
    [ "$DRY" = yes ] || tokens=$(setting web.token_file)
    if [ -z "$tokens" ]; then
        say "the pages are open to every user of this server; token_file = \"$TOKENS\" in [web] closes them"
        return
    fi
    if [ "$DRY" = yes ] || as_service test -e "$tokens"; then
        say "the pages need a token: sudo -u $USER_NAME xray-watcher token NAME --role view"
        return
    fi
    if (exec 8>/dev/tty) 2>/dev/null; then # there it is read once, and written down nowhere
        say "a first token for the pages, shown on the terminal this once:"
        as_service "$PROGRAM" token first --role view --config "$CONFIG" >/dev/tty
    else
        # shellcheck disable=SC2016 # the service's shell puts it in
        as_service sh -c 'umask 077 && set -C && : >"$1"' sh "$tokens"
        say "nobody can see the pages yet: sudo -u $USER_NAME xray-watcher token NAME --role view"
    fi
}

# What the settings need beyond what the units allow: the drop-in is in force while messages or
# pages go to other machines, and taken away when they do not.
place_drop_ins() {
    tells=yes listens=yes
    if [ "$DRY" = no ]; then
        settings=$(as_service "$PROGRAM" check-config --config "$CONFIG")
        tells_others "$settings" || tells=no
        listens_to_others "$settings" || listens=no
    fi
    place_drop_in xray-watcher "$tells"
    place_drop_in xray-watcher-web "$listens"
}

place_drop_in() { # unit, and whether it needs the network
    target=$LOCAL/lib/systemd/system/$1.service.d/network.conf
    if [ "$2" = yes ]; then
        place 644 "$SOURCE/deploy/systemd/examples/network.conf" "$target"
    else
        run rm -f "$target"
    fi
}

tells_others() { # by way of the network, or by a program, which may use it
    printf '%s\n' "$1" | grep -Eq -e '^notify\.(webhook\.url|webhook\.url_file|smtp\.host) .* ".+"$' \
        -e '^notify\.command\.argv .* \[.+\]$'
}

listens_to_others() {
    ! printf '%s\n' "$1" | grep -Eq '^web\.host .* "(127\.[0-9.]+|localhost|::1)"$'
}

start() {
    step "9. Start"
    if [ "$START" = no ]; then
        say "left to you: systemctl enable --now $UNITS"
        return
    fi
    if ! has_systemd; then
        say "systemd does not run here; later: systemctl enable --now $UNITS"
        return
    fi
    run systemctl daemon-reload
    if [ "$DRY" = no ] && ! has_weights; then
        MISSES_WEIGHTS=yes
        say "NOT started: the weights are not installed (see below)"
        return
    fi
    start_unit xray-watcher
    if has_web; then start_unit xray-watcher-web; fi
}

has_weights() {
    name=$(setting model.weights)
    [ "$name" = untrained ] || [ -n "$(setting model.weights_file)" ] ||
        as_service "$PROGRAM" weights verify "$name" --config "$CONFIG" >/dev/null 2>&1
}

has_web() {
    case ,$EXTRAS, in *,web,*) ;; *) return 1 ;; esac
    [ "$DRY" = yes ] || "$PROGRAM" serve --help >/dev/null 2>&1
}

start_unit() {
    run systemctl enable --quiet "$1"
    run systemctl restart "$1" || {
        systemctl --no-pager --lines=20 status "$1" || true
        fail "$1 does not start: see above, and journalctl -u $1."
    }
}

tell() {
    step "Done"
    say "drop images into  $ROOT/inbox"
    say "results           $ROOT/classified_images, $ROOT/logs"
    say "settings          $CONFIG (man xray-watcher.toml), then: systemctl reload xray-watcher"
    say "how it is         sudo -u $USER_NAME xray-watcher status; journalctl -u xray-watcher"
    if has_web; then say "pages             http://127.0.0.1:8080 ([web] in the settings)"; fi
    say "remove            sudo sh deploy/install.sh --uninstall"
    if [ "$MISSES_WEIGHTS" = yes ]; then
        say ""
        say "STILL TO DO: bring the weights, $(setting model.weights), and run this again:"
        say "  sudo sh deploy/install.sh --weights FILE      or, with internet, before that"
        say "  sudo -u $USER_NAME xray-watcher weights fetch $(setting model.weights)"
        say "(a set whose hash the program does not know needs --sha256 HASH too)"
    fi
    say "A research and triage aid, never a diagnosis."
}

# -- the steps of a removal -----------------------------------------------------------------

uninstall() {
    step "1. Stop"
    if has_systemd; then
        for unit in $UNITS; do
            if [ -e "$LOCAL/lib/systemd/system/$unit.service" ]; then
                run systemctl disable --quiet --now "$unit"
            fi
        done
    fi
    step "2. Remove the program and its files"
    for file in bin/xray-watcher lib/systemd/system/xray-watcher.service \
        lib/systemd/system/xray-watcher-web.service lib/sysusers.d/xray-watcher.conf \
        lib/tmpfiles.d/xray-watcher.conf share/man/man1/xray-watcher.1 \
        share/man/man5/xray-watcher.toml.5 share/bash-completion/completions/xray-watcher \
        share/zsh/site-functions/_xray-watcher share/fish/vendor_completions.d/xray-watcher.fish \
        lib/systemd/system/xray-watcher.service.d/network.conf \
        lib/systemd/system/xray-watcher-web.service.d/network.conf; do
        run rm -f "$DESTDIR$LOCAL/$file"
    done
    run rm -rf "$DESTDIR$PREFIX/venv" "$DESTDIR$PREFIX/share" "$DESTDIR$PREFIX/tmp" \
        "$DESTDIR$PREFIX"/import.* "$DESTDIR$CACHE"
    for unit in $UNITS; do
        run rmdir "$DESTDIR$LOCAL/lib/systemd/system/$unit.service.d" 2>/dev/null || true
    done
    run rmdir "$DESTDIR$PREFIX" 2>/dev/null || true
    if has_systemd; then run systemctl daemon-reload; fi
    if [ "$PURGE" = yes ]; then
        step "3. Remove settings, ledger and weights"
        run rm -rf "$DESTDIR$CONFIG_FOLDER" "$DESTDIR$STATE"
        step "Kept: images and records in $ROOT, the user $USER_NAME and the group $GROUP_NAME, who own them"
    else
        step "Kept: images and records in $ROOT, settings in $CONFIG_FOLDER, ledger and weights in $STATE"
        say "and the user $USER_NAME and the group $GROUP_NAME, who own them; --purge removes settings,"
        say "ledger and weights; images and records are never removed by this program"
    fi
}

# -- now ------------------------------------------------------------------------------------

main() { # a function, so that the whole file is read before anything is done
    if [ "$DRY" = yes ]; then
        say "A dry run: nothing is changed."
    elif [ -z "$DESTDIR" ]; then
        [ "$(id -u)" -eq 0 ] || fail "This must be root's: sudo sh deploy/install.sh"
    fi
    one_at_a_time
    if [ "$ACTION" = uninstall ]; then
        uninstall
    elif [ -n "$DESTDIR" ]; then
        place_files
        configure
    else
        install_all
    fi
}

install_all() {
    command -v systemd-sysusers >/dev/null 2>&1 || [ "$DRY" = yes ] ||
        fail "This server has no systemd (apt-get install systemd). For containers: deploy/Dockerfile."
    pick_python
    install_program
    place_files
    place_completions
    make_user_and_folders
    configure
    import_weights
    check
    start
    tell
}

main
exit
