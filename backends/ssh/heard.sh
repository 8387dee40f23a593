# $1 our folder, $2 project, $3… instance ids. Their end was told, and is written down: the words of it go, and with the
# last one our folder. What is another project's word stays.
# shellcheck shell=sh
base=${HOME:?}/$1 project=$2
shift 2
for id in "$@"; do
    if grep -qsx "$project" "$base/ended-$id"; then rm -f "$base/ended-$id" || exit 1; fi
done
rmdir "$base" "${base%/*}" 2>/dev/null
exit 0
