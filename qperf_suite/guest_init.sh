#!/bin/sh
# First process of every guest: mounts, loads modules, then serves commands on a serial line.
# A request is one line, "run SECONDS LENGTH BASE64"; the answer is "STATUS BYTES BYTES", stdout,
# stderr.  A serial line may lose bytes of a request: one that is not whole is answered "again".
# The kernel hands "agent=DEVICE" of its command line over as an environment variable.
export PATH=/bin:/usr/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
while read -r module; do insmod "$module"; done </etc/modules
ip link set lo up

stty raw -echo <"/dev/$agent"
exec <"/dev/$agent" >"/dev/$agent"
echo READY
while read -r verb seconds length encoded; do
    if [ "$verb" != run ] || [ "${#encoded}" != "$length" ]; then
        echo again
        continue
    fi
    {
        # busybox prefers its own ping, which knows no fractions of a second.
        echo 'ping() { /usr/bin/ping "$@"; }'
        echo "$encoded" | base64 -d
    } >/run/command
    # A session of its own, so that everything a command left behind dies with its timeout.
    setsid sh -c 'echo $$ >/run/session; exec timeout -s KILL "$0" sh /run/command' "$seconds" \
        </dev/null >/run/stdout 2>/run/stderr
    status=$?
    [ $status -lt 128 ] || kill -KILL "-$(cat /run/session)" 2>/dev/null
    echo "$status $(stat -c %s /run/stdout) $(stat -c %s /run/stderr)"
    cat /run/stdout /run/stderr
done
poweroff -f
