# Ending what the cluster started, whatever state it is in, and nothing else.
# shellcheck shell=bash disable=SC2154,SC2164

tear_down() {
  if [ ! -e "$DIR" ] && [ -z "$(our_processes)" ]; then return; fi
  say "taking down what is left in $DIR"
  cd /
  end_processes
  unmount_all
  remove_cgroups
  remove_network
  restore_host
  rm -rf "$DIR"
}

our_processes() { # the daemons, and containerd's shims, which inherit its environment
  grep -lzxF "$MARK" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 | grep -vx "$BASHPID" || :
}

pod_cgroups() { find /sys/fs/cgroup -depth -type d -path '*/kubepods*' 2>/dev/null || :; }

pod_processes() { # containers outlive their shims
  local group
  pod_cgroups | while read -r group; do cat "$group/cgroup.procs" 2>/dev/null || :; done | sort -un
}

end_processes() {
  local pids
  for _ in {1..50}; do
    thaw_pods
    pids=$(our_processes; pod_processes)
    [ -n "$pids" ] || return 0
    # -9: kube-apiserver drains for 13 s on SIGTERM, and the rest has nothing to save.
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null || :
    sleep 0.1
  done
  fail "these processes don't end: ${pids//$'\n'/ }"
}

thaw_pods() { # a frozen process doesn't die
  local group
  pod_cgroups | while read -r group; do
    if [ -f "$group/freezer.state" ]; then echo THAWED >"$group/freezer.state" || :; fi
    if [ -f "$group/cgroup.freeze" ]; then echo 0 >"$group/cgroup.freeze" || :; fi
  done 2>/dev/null
}

unmount_all() {
  local mount
  awk -v dir="$DIR/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do
    umount -l "$mount" || :
  done
}

remove_cgroups() {
  local group
  pod_cgroups | while read -r group; do rmdir "$group" || :; done
}

remove_network() {
  local namespace table rules
  for namespace in $(ip netns list | awk '/^cni-/ {print $1}'); do
    ip netns delete "$namespace" || : # takes its veth pair along
  done
  ip link delete cni0 2>/dev/null || :
  ip address delete "$NODE_IP/32" dev lo 2>/dev/null || :
  for table in iptables ip6tables; do
    rules=$("$table-save" 2>/dev/null || :)
    if [[ $rules =~ KUBE-|CNI- ]]; then
      grep -vE 'KUBE-|CNI-' <<<"$rules" | "$table-restore"
    fi
  done
}

restore_host() {
  local folder
  if [ -s "$DIR/sysctl.before" ]; then sysctl -q -p "$DIR/sysctl.before" || :; fi
  rm -rf /var/lib/cni/results/lambent-test-*
  if [ -f "$DIR/made" ]; then
    while read -r folder; do rm -rf --one-file-system "$folder"; done <"$DIR/made"
  fi
  rmdir --ignore-fail-on-non-empty /run/netns /var/lib/containers 2>/dev/null || :
}
