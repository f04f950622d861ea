# SPDX-License-Identifier: Apache-2.0
# The TCP probe in a guest, with answers that judge_network.py knows: connections over a loopback
# that loses packets, one to a port where nobody listens, one without a route. Needs the agent's
# module `network` on port 7173; leaves what it and the kernel counted in /out.

retransmitted() { sed -n '/^Tcp: [0-9]/s/ /\n/gp' /proc/net/snmp | sed -n 13p; }

# Prints what happened; the kernel's count of retransmits last.
network_traffic() {
  local loss=no
  if [ -f "/modules/$(uname -r)/sch_netem.ko" ] && [ -x /bin/tc ]; then
    insmod "/modules/$(uname -r)/sch_netem.ko" && /usr/bin/tc qdisc add dev lo root netem loss 5% && loss=yes
  fi
  echo "loss $loss"
  workload_tcp serve 81 100000 0 > /dev/null &
  local server=$!
  usleep 500000
  timeout 60 workload_tcp dial 127.0.0.1 81 40
  [ $loss = yes ] && /usr/bin/tc qdisc del dev lo root
  workload_tcp dial 127.0.0.1 9 3   # nobody listens
  workload_tcp dial 192.0.2.1 80 2  # no route
  usleep 2000000  # what was lost is sent again
  kill $server
  echo "retransmitted $(retransmitted)"
}

# A report lies between two equal counts: nothing was sent again since, and what is shown is all.
network_step() {
  network_traffic > /out/network_traffic.txt 2>&1
  local before after tries
  for tries in 1 2 3 4 5; do
    before=$(retransmitted)
    usleep 6000000  # a report
    wget -q -O /out/network_metrics.txt http://127.0.0.1:7173/metrics
    after=$(retransmitted)
    echo "retransmitted $after" >> /out/network_traffic.txt
    [ "$before" = "$after" ] && break
  done
}
