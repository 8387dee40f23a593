# $1 generation; stdin: the keys of the documents, one a line. Our block of authorized_keys is these, and the rest of the
# file as it was. Exits: 0 done, 74 cannot write, 75 fenced.
# shellcheck shell=sh
umask 077
pass_fence "$1" || exit
file=${HOME:?}/.ssh/authorized_keys
new=$file.dstack.$$
rewrite() {
    mkdir -p "${file%/*}" && true >> "$file" && sed '/^# dstack: begin$/,/^# dstack: end$/d' "$file" &&
        echo '# dstack: begin' && cat && echo '# dstack: end'
}
if ! rewrite > "$new" || ! chmod 600 "$new" || ! mv -f "$new" "$file"; then
    rm -f "$new"
    exit 1
fi
