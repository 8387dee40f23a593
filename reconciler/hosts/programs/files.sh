# $1 list | pack, $2 job. list: the paths of the job's files, NUL between them; pack: those named so on stdin, as a tar.
# shellcheck shell=sh
cd "jobs/$2/work" 2>/dev/null || exit 0
case $1 in
    list) find . \( -type f -o -type l \) -print0 ;;
    pack)
        if tar --version 2>/dev/null | grep -q GNU; then
            tar -cf - --null --no-recursion --no-unquote -T -
            [ $? -le 1 ] # 1: a file changed while it was read
        else
            xargs -0 tar -cf - # several tars in a row where the names are many
        fi
        ;;
esac
