# Number of times that a guest goes on in another process at most.
most=${NERITE_TEST_SNAPSHOTS:-2}

# goes_on VMM HOST GUEST TEXT [ACCELS]: lets a guest go on in one process after the other, from when
# it has printed TEXT until it ends. HOST has the options of each process, GUEST those of the first
# and the image; ACCELS are the accelerators, one process after the other, and again from the
# beginning. Prints the whole output; the status is that of the guest.
goes_on() {
    vmm=$1 host=$2 text=$4 accels=${5:-} count=0
    set -- $3
    while :; do
        rm -f socket
        accel=${accels%% *}
        accels="${accels#* } $accel"
        "$vmm" run --api-socket socket -o "out.$count" ${accel:+--accel $accel} $host "$@" &
        pid=$!
        [ "$count" = "$most" ] && break
        until [ -S socket ] || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
        until cat out.* | grep -q "$text" || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
        # Moments that have nothing to do with those of the guest.
        sleep "$(awk "BEGIN { srand($pid); print 0.02 + 0.6 * rand() }")"
        # It has ended by itself.
        "$vmm" ctl socket snapshot --stop "saved.$count" >report 2>refusal || break
        wait $pid
        code=$?
        [ $code = 143 ] || break
        rm -rf "saved.$((count - 1))"
        set -- --restore "saved.$count" --verify
        count=$((count + 1))
    done
    [ "${code:-143}" = 143 ] && { wait $pid; code=$?; }
    for part in $(seq 0 "$count"); do cat "out.$part"; done
    echo "host: it went on $count times, and ended with $code"
    [ "$count" = 0 ] && cat refusal
    return $code
}
