#!/bin/busybox sh
# The first process of a guest of `cargo xtask vm`. In: the kernel's command line (vm.steps, a list
# with commas; vm.cgroups, v1 or v2). Out: lines on the console, each step between `vm: begin STEP`
# and `vm: end STEP CODE`. Ends by switching the machine off.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=0
export LEASE_WATCHDOG_BIN=/bin/lease-watchdog
# Properties are proven where a machine is quick; in a guest a few cases tell a kernel that differs.
export PROPTEST_CASES=4

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t tracefs trace /sys/kernel/tracing
mkdir -p /dev/shm /run/lock
mount -t tmpfs shm /dev/shm
ip link set lo up
ulimit -n 4096
hostname guest
printf '127.0.0.1 localhost guest\n' >/etc/hosts
printf 'root:x:0:0:root:/root:/bin/sh\n' >/etc/passwd
for module in /modules/*.ko; do
    [ -e "$module" ] && insmod "$module"
done

parameter() { sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }

cgroups() {
    mount -t tmpfs cgroups /sys/fs/cgroup
    for controller in cpu,cpuacct freezer blkio; do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
    done
}
case $(parameter vm.cgroups) in
v1) cgroups ;;
*) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
esac

step() {
    name=$1
    shift
    echo "vm: begin $name"
    "$@" 2>&1
    echo "vm: end $name $?"
}

# What the demo has said so far.
said=/tmp/said

# The wall's clock goes an hour on and a day back, again and again.
jump() {
    while :; do
        for seconds in 3600 -86400 82800; do
            sleep 1.3
            date -s "@$(($(date +%s) + seconds))" >>/tmp/jumps
        done
    done
}

# Who takes the CPU in real time, at this priority, once everybody is there.
hog() {
    until grep -q demo_lease_seen $said; do sleep 0.5; done
    exec chrt -f "$1" sh -c 'while :; do :; done'
}

# The demo, and what goes on meanwhile; the first argument shows afterwards that it did.
demo_under() {
    proof=$1
    shift
    : >$said
    "$@" &
    meanwhile=$!
    lease-watchdog demo --json >$said
    code=$?
    cat $said
    "$proof" || code=99
    kill -9 $meanwhile
    return $code
}

jumped() {
    jumps=$(wc -l </tmp/jumps)
    echo "the wall's clock has jumped $jumps times"
    [ "$jumps" -ge 6 ]
}

# It has run for seconds (the 14th word: ticks of 10 ms).
hogged() {
    ticks=$(cut -d ' ' -f 14 "/proc/$meanwhile/stat")
    echo "the hog has run for $ticks ticks, priority $(cut -d ' ' -f 40 "/proc/$meanwhile/stat")"
    [ "$ticks" -gt 500 ]
}

# Plays the faults that only guests can have, once more, and gives their recordings away as text.
record() {
    /tests/faults --record /tmp/recorded --only disk-suspended --only disk-delayed --only loss
    code=$?
    for file in /tmp/recorded/*; do
        echo "file $(basename "$file")"
        base64 "$file"
    done
    echo "file"
    return $code
}

echo "vm: kernel $(uname -r)"
for name in $(parameter vm.steps | tr , ' '); do
    case $name in
    doctor) step doctor lease-watchdog doctor --json ;;
    probes) step probes lease-watchdog probes --json ;;
    demo) step demo lease-watchdog demo --json ;;
    clock-jumps) step clock-jumps demo_under jumped jump ;;
    real-time-hog) step real-time-hog demo_under hogged hog 1 ;;
    faults) step faults /tests/faults --stories --only disk-suspended --only disk-delayed --only loss ;;
    record) step record record ;;
    tests) step tests /tests/kernel --test-threads=1 --show-output $(parameter vm.filter) ;;
    *) step "$name" false ;;
    esac
done
echo "vm: done"
poweroff -f
