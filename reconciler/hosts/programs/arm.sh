# $1 generation; stdin: what arms the dead-man timer of a machine of a cloud, for root. Exits: 0 it is armed, and has
# asked once; 74 cannot write, 75 fenced; otherwise it is not.
# shellcheck shell=sh
umask 077
pass_fence "$1" || exit
program=$(cat)
if [ "$(id -u)" = 0 ]; then exec sh -c "$program"; fi
exec sudo -n sh -c "$program"
