#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a guest. Runs the steps one after another, leaves what each printed in /out, and sends
# /out to the host as one tar over the second serial port. It judges nothing: judge.py does.
# The console, the first serial port, says how far it is.
export PATH=/bin
/bin/busybox --install -s /bin 2> /dev/null
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
# No tracefs and no debugfs: Firewatch needs neither.
mkdir -p /dev/shm /var/cache
ip link set lo up
hostname guest

seconds() { cut -d' ' -f1 /proc/uptime; }
say() { echo "FIREWATCH $*" > /dev/console; }
say userspace "$(uname -r)" "$(seconds)"

# step NAME COMMAND…: its output in /out/NAME.txt, its exit code on the console; ended when it hangs.
step() {
  local name=$1 before=$(seconds)
  shift
  timeout -s KILL 240 "$@" > "/out/$name.txt" 2>&1
  say step "$name" $? "$before" "$(seconds)"
}

# record NAME HZ COMMAND…: a profile of a command that ends by itself.
record() {
  local name=$1 hz=$2
  shift 2
  step "$name" firewatch record --hz "$hz" -o "/out/$name.pb.gz" -- "$@"
}

# watch NAME PROGRAM ARGUMENT…: in the cgroup that the agent samples. The process is called so, which
# is how its samples are told apart.
watch() {
  local name=$1
  ln -sf "$2" "/bin/$name"
  shift 2
  step "watched_$name" sh -c 'echo $$ > /sys/fs/cgroup/watched/cgroup.procs; exec "$@"' - "/bin/$name" "$@"
}

roots() {
  wget -q -O - http://127.0.0.1:7172/metrics | sed -n 's/^firewatch_stack_ends_total{reason="root"} //p'
}

# warm NAME PROGRAM ARGUMENT…: again and again, 20 times at most, until its samples are whole. What
# takes time is reading the kernel's names and building tables, by emulated and sanitized code.
warm() {
  local name=$1 round=0 before
  shift
  while [ $round -lt 20 ]; do
    before=$(roots)
    watch "warm_$name" "$@"
    usleep 1500000  # its samples wait for a second in the kernel
    [ $(($(roots) - ${before:-0})) -ge 10 ] && break
    round=$((round + 1))
  done
}

# Without a small quarantine the heap alone is over the limit on memory, and tables are put out.
export ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=1:malloc_context_size=2 UBSAN_OPTIONS=print_stacktrace=1
step doctor firewatch doctor

. /etc/workloads
recorded

# The agent, with a server that is not there. It samples only what is watched: tables of its own
# libraries, built by emulated and sanitized code, would take it a minute.
mkdir /sys/fs/cgroup/watched
before=$(seconds)
# The limit on memory is for a heap without AddressSanitizer's: below it, tables would be put out.
firewatch-agent --modules cpu --cgroup /sys/fs/cgroup/watched --hz 49 --window 2s --memory-limit 1GiB --log-level warn \
  --server 127.0.0.1:1 --http 127.0.0.1:7172 --spool /tmp/spool --cache /tmp/cache \
  --record-events /tmp/events > /out/agent.txt 2>&1 &
agent=$!
tries=0
# It answers before its programs are loaded; their maps have a size then.
while [ $tries -lt 100 ] && ! wget -q -O - http://127.0.0.1:7172/metrics 2> /dev/null |
  grep -q '^firewatch_sampler_bpf_map_bytes [1-9]'; do
  tries=$((tries + 1))
  usleep 200000
done
say step agent_start $([ $tries -lt 100 ]; echo $?) "$before" "$(seconds)"
[ $tries -eq 100 ] || watched
step metrics wget -q -O - http://127.0.0.1:7172/metrics
before=$(seconds)
kill -TERM $agent
wait $agent
say step agent $? "$before" "$(seconds)"
gzip -1 -c /tmp/events > /out/events.gz

# The other modules, with their real programs; what this kernel lacks they say themselves.
mkdir -p /run
mount -t bpf bpf /sys/fs/bpf
# A pair of interfaces, one end in a namespace of its own; without its module, the loopback.
if insmod "/lib/modules/$(uname -r)/veth.ko" && ip link add fw0 type veth; then
  unshare -n sleep 1000 &
  peer=$!
  usleep 500000
  interface=fw0 mode=native near=10.9.0.1 far="nsenter -t $peer -n"
  ip link set veth0 netns $peer
  $far ip addr add 10.9.0.2/24 dev veth0
  $far ip link set veth0 up
  ip addr add $near/24 dev fw0
  ip link set fw0 up
else
  interface=lo mode=generic near=127.0.0.1 far=
fi
printf 'rules:\n  - {name: pings, match: {protocol: icmp, icmp_type: echo-request}, action: drop}\n' > /tmp/rules.yaml
firewatch-agent --modules network,enforce --server 127.0.0.1:1 --http 127.0.0.1:7173 --spool /tmp/spool2 \
  --cache /tmp/cache > /out/modules_agent.txt 2>&1 &
modules=$!
tries=0
# Until the firewall answers, or its module has said why not.
while [ $tries -lt 50 ] && ! firewatch xdp list --agent 127.0.0.1:7173 > /dev/null 2>&1; do
  tries=$((tries + 1))
  usleep 200000
done
$far ping -c 3 -W 1 $near > /out/ping_before.txt 2>&1
firewatch xdp load /tmp/rules.yaml --interface $interface --mode $mode --agent 127.0.0.1:7173 > /out/xdp_load.txt 2>&1
$far ping -c 3 -W 1 $near > /out/ping_dropped.txt 2>&1
wget -q -O /out/modules.json http://127.0.0.1:7173/status
firewatch connections -o json --agent 127.0.0.1:7173 > /out/connections.json 2>&1
firewatch xdp stats --json --agent 127.0.0.1:7173 > /out/xdp_stats.json 2>&1
firewatch xdp unload --interface $interface --agent 127.0.0.1:7173 > /out/xdp_unload.txt 2>&1
$far ping -c 3 -W 1 $near > /out/ping_after.txt 2>&1
kill -TERM $modules
wait $modules

# Left out: what expects a share of the ticks that a CPU's time explains (the emulator's CPU stands
# still, unseen by the guest, while the machine does something else), what expects tables within half
# a second, and long ones that have little to do with the kernel.
step tests agent_cpu_bpf_test --gtest_output=json:/out/tests.json --gtest_filter=-\
SamplerTest.FollowsChildrenAndGrandchildrenFromTheirStart:\
SamplerTest.StopHandsOutWhatNobodyWasWokenFor:SamplerTest.WaitFd*:\
TableMapsTest.ManyTablesStayBelowTheCap:WholeStacksBpfTest.*

FIREWATCH_KERNEL_PAIRS=1000 step enforce_tests agent_enforce_bpf_test --gtest_output=json:/out/enforce_tests.json

dmesg | tail -c 20000 > /out/dmesg.txt
say sending
stty -F /dev/ttyS1 raw
tar cz -C /out . > /dev/ttyS1
say done
poweroff -f
