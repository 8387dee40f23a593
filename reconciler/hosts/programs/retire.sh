# $1 generation. From now on nothing starts, and each supervisor ends its job when it wakes up. Exits: 0 done, 74 cannot write, 75 fenced.
# shellcheck shell=sh
umask 077
pass_fence "$1" || exit
true > ending
