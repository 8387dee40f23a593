# On a machine of a cloud, as root. $1 make | take, $2 the host key that it shows. Idempotent, whoever else does it.
# make: its next host key, made here, once; prints its public half. take, $3 the public half, $4 who vouches for it:
# that one is in force, and the first one gone. It is written who vouches before it is in force: whoever meets it
# without having written it down finds that. Exits: 0 done, 1 cannot, 3 it is not the key to take.
# shellcheck shell=sh
umask 077
key=/etc/ssh/dstack_host_key run=/run/dstack

half() { # $1 a private key -> the public half
    set -- "$(ssh-keygen -y -f "$1" 2> /dev/null)"
    echo "$1" | cut -d ' ' -f 1,2
}

make() {
    if [ ! -f $key.next ]; then
        if [ -s $key.endorsed ] && [ "$(half $key)" != "$1" ]; then # taken already, and its server was not told
            half $key
            return
        fi
        rm -f $key.$$ $key.$$.pub
        ssh-keygen -q -t ed25519 -N '' -C '' -f $key.$$ > /dev/null || return 1
        ln $key.$$ $key.next 2> /dev/null || [ -f $key.next ] || return 1
        rm -f $key.$$ $key.$$.pub
        sync
    fi
    half $key.next
}

take() { # $2 public half, $3 who vouches
    if [ "$(half $key.next)" = "$2" ]; then
        (umask 022 && echo "$2 $3" > $key.endorsed.new && echo "$2" > $key.pub) && mv -f $key.endorsed.new $key.endorsed || return 1
        sync
        mv -f $key.next $key || [ "$(half $key)" = "$2" ] || return 1
    elif [ "$(half $key)" != "$2" ]; then
        return 3
    fi
    reload || return 1
    shows "$2"
}

reload() { # by a signal where no systemd has begun it, as in a container
    if { read -r server < "$run/sshd.pid"; } 2> /dev/null && kill -HUP "$server"; then return; fi
    systemctl reload ssh.service 2> /dev/null || systemctl reload sshd.service
}

shows() { # $1 public half: waits until its server shows it, 10 s at most
    command -v ssh-keyscan > /dev/null || { sleep 2; return 0; }
    tries=0 port=22
    [ ! -f $run/sshd.port ] || read -r port < $run/sshd.port
    until ssh-keyscan -p "$port" -t ed25519 127.0.0.1 2> /dev/null | grep -qF "$1"; do
        tries=$((tries + 1))
        [ $tries -lt 50 ] || return 1
        sleep 0.2 2> /dev/null || sleep 1
    done
}

verb=$1
shift
$verb "$@"
