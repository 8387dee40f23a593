# The supervisor's half for what a person works in: who is attached, its Python, and what they changed.
# shellcheck shell=sh
# shellcheck disable=SC1091,SC2034,SC2154

watch_activity() { # a byte more in `active`, a key pressed in an attached terminal, or a session that has none
    [ "$inactivity" -gt 0 ] || return 0
    mark=$(wc -c < active 2>/dev/null || echo 0)
    each_attached mark_session
    [ "$mark" = "$active" ] || active_at=$up active=$mark warned=''
    idle=$((up - active_at))
    if [ "$idle" -ge "$inactivity" ]; then
        cause=inactivity:$inactivity
    elif [ -z "$warned" ] && [ $((inactivity - idle)) -le "$warning" ]; then
        warned=1 left=$((inactivity - idle))
        warn "nobody has been active for $(in_minutes $idle): this ends in $(in_minutes $left), unless somebody is"
    fi
}

in_minutes() { if [ "$1" -ge 120 ]; then echo "$(($1 / 60)) minutes"; else echo "$1 s"; fi; }

each_attached() { # $1 what to do with each session that lives: $2 is its terminal, or `-`
    for one in attached/*; do
        { read -r since tty < "$one"; } 2>/dev/null || continue
        read_start "${one#attached/}"
        if [ -n "$born" ] && [ "$born" = "$since" ]; then "$1" "$tty"; else rm -f "$one"; fi
    done
}

mark_session() { # reading from a terminal moves its access time
    if [ "$1" = - ]; then mark="$mark $up"; else mark="$mark $(stat -c %X "$1" 2>/dev/null)"; fi
}

warn() { # in the log, and wherever somebody may see it
    words=$1
    note "$words"
    each_attached tell_session
}

tell_session() { [ "$1" = - ] || { printf '\r\n[dstack] %s\r\n' "$words" > "$1"; } 2>/dev/null; }

find_uv() { # uv: also where its installer puts it, which no shell without a terminal has on PATH
    for uv in "$(command -v uv)" "${HOME-}/.local/bin/uv" "${HOME-}/.cargo/bin/uv"; do
        [ ! -x "$uv" ] || return 0
    done
    return 1
}

make_python() { # a virtual environment of the asked version, on PATH and beside the files; the log says how it failed
    version=${python%"${python#?}"}.${python#?}
    if [ ! -x venv/bin/python ]; then
        rm -rf venv
        program=$(command -v "python$version") || program=
        if [ -n "$program" ] && "$program" -m venv venv > venv.log 2>&1; then
            :
        elif find_uv; then
            "$uv" venv --seed --python "$version" venv || return 1
        else
            cat venv.log 2>/dev/null
            echo "[dstack] Python $version is not to be had on this host: it has ${program:-no python$version}" \
                "${program:+without the module venv, }and no uv. Install python$version (with venv) or uv there," \
                "or name an \`image\`."
            return 1
        fi
        "venv/bin/python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$version" || return 1
    fi
}

take_environment() { # $1 claim, $2 working folder, $3 hostfile, $4 venv or "": no variable of ours may be trusted after this
    . ./env
    command export DSTACK_CLAIM="$1" DSTACK_WORKING_DIR="$2" DSTACK_MPI_HOSTFILE="$3"
    [ -z "$4" ] || command export VIRTUAL_ENV="$4" PATH="$4/bin:$PATH"
}

baseline() { # git, with what the files were at first as its HEAD: nothing of whoever's configuration
    tree=$1
    shift
    GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git --git-dir="$here/baseline" --work-tree="$tree" \
        -c core.hooksPath=/dev/null -c core.excludesFile=/dev/null -c safe.directory='*' -c user.name=dstack \
        -c user.email=dstack@localhost -c commit.gpgsign=false -c gc.auto=0 "$@"
}

restore_artifacts() { # $1 the files as they came: what the last attempt left is put over them
    read -r last < restored
    if [ ! -f restore.tar.gz ]; then
        echo "[dstack] the artifacts of attempt $last are not in the store any more: this attempt begins without them"
        return
    fi
    tar -xzf restore.tar.gz -C "$1" || { echo "[dstack] the artifacts of attempt $last could not be unpacked"; return 1; }
    [ "$keep_changes" = 0 ] || rm -rf "$1/dstack-changes" # made anew at its end
    echo "[dstack] the artifacts of attempt $last were put back"
}

begin_changes() { # $1 the files as they came
    if ! command -v git > /dev/null; then
        echo '[dstack] this host has no git: what is changed here will not be kept as a diff'
    elif ! { baseline "$1" init -q && baseline "$1" add -A -f && baseline "$1" commit -q --allow-empty -m start; } 2>&1; then
        rm -rf baseline
    fi
}

end_changes() { # the difference, and what is new, as files that are collected: at most `changes_limit` KiB of each
    kept=$here/work/dstack-changes
    [ -d baseline ] || return 0
    rm -rf "$kept" && mkdir -p "$kept" || return 0
    (cd work && keep_diff && keep_new) 2>> "$kept/notes.txt"
    for file in "$kept"/*; do
        [ -s "$file" ] || [ -d "$file" ] || rm -f "$file"
    done
    rmdir "$kept" 2>/dev/null # where nothing was changed
    [ ! -d "$kept" ] || note "what was changed is kept as the artifacts dstack-changes: $(cd "$kept" && echo *)"
}

keep_diff() {
    baseline . diff --binary HEAD -- . ':(exclude)dstack-changes' > "$kept/changes.patch"
    size=$(du -k "$kept/changes.patch" | { read -r size _ && echo "$size"; })
    [ "${size:-0}" -gt "$changes_limit" ] || return 0
    rm -f "$kept/changes.patch"
    echo "the diff has $size KiB, more than $changes_limit: it is not kept" >&2
}

keep_new() { # by the names that git's rules do not leave out
    baseline . ls-files --others --exclude-standard -z -- . ':(exclude)dstack-changes' > "$here/new"
    [ -s "$here/new" ] || return 0
    tr '\0' '\n' < "$here/new" > "$kept/untracked.txt"
    size=$(xargs -0 du -k -- < "$here/new" | { sum=0
        while read -r one _; do sum=$((sum + one)); done
        echo $sum
    })
    if [ "$size" -gt "$changes_limit" ]; then
        echo "the new files have $size KiB, more than $changes_limit: only their names are kept." \
            "Name what you need in \`artifacts\`." >&2
        return
    fi
    # shellcheck disable=SC2016  # for the shell that takes the names
    xargs -0 sh -c 'for file; do
        case $file in */*) mkdir -p "$0/${file%/*}" ;; *) mkdir -p "$0" ;; esac && { ln "$file" "$0/$file" 2>/dev/null || cp -p -P "$file" "$0/$file"; }
    done' "$kept/untracked" < "$here/new"
}
