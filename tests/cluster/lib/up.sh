# Starting the cluster, and telling whether the one that is there is in order.
# shellcheck shell=bash disable=SC2154,SC2164

SYSCTLS=(net.ipv4.ip_forward net.ipv4.conf.all.route_localnet vm.overcommit_memory kernel.panic kernel.panic_on_oops)
# Where containerd, CNI, the kubelet and buildah write whatever they are told.
HOST_FOLDERS=(/etc/cni /run/containerd /var/lib/cni /var/lib/containers/cache /var/lib/kubelet /var/log/containers /var/log/pods)
PORTS=(2379 2380 5000 5001 6443 10250)

kube() { "$BIN/kubectl" --kubeconfig "$DIR/admin.kubeconfig" --request-timeout=10s "$@"; }

ensure_up() {
  if healthy; then return; fi
  tear_down
  local from=$SECONDS
  say "starting"
  start_cluster
  say "up after $((SECONDS - from)) s"
}

# A cluster that an older version of this file started is not in order.
definition() { { cat "$HERE/lib/up.sh"; echo "$BIN $COREDNS $NODE_IP $POD_CIDR $SERVICE_CIDR"; } | sha256sum; }

healthy() {
  [ -f "$DIR/up" ] && [ "$(cat "$DIR/up")" = "$(definition)" ] || return 1
  local pid
  for pid in "$DIR"/pid/*; do
    is_ours "$(cat "$pid")" || { say "$(basename "$pid") is gone"; return 1; }
  done
  curl -fs -m 5 -o /dev/null "http://$REGISTRY/v2/" || return 1
  [ "$(kube get node node0 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" = True ]
}

is_ours() { grep -qzxF "$MARK" "/proc/$1/environ" 2>/dev/null; }

start() { # NAME COMMAND...
  local name=$1
  shift
  # The pid is noted before the program runs: a kill in between leaves nothing that we don't know of.
  # Our own descriptors stay here: a daemon that held them would keep the lock, and the caller's pipe open.
  (
    echo "$BASHPID" >"pid/$name"
    exec env "$MARK" setsid "$@"
  ) >"log/$name.log" 2>&1 </dev/null 3>&- 9>&- &
}

wait_for() { # SECONDS WHAT COMMAND...
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$until" ]; then
      tail -n 5 "$DIR"/log/*.log
      fail "$what: not there in time; the logs are in $DIR/log"
    fi
    sleep 0.2
  done
}

start_cluster() {
  mkdir -p "$DIR"/{pki,log,pid,cni,etcd,registry,work,stamp}
  cd "$DIR"
  refuse_taken_ports
  ulimit -n "$(ulimit -Hn)"
  prepare_host
  certificates
  start_api
  start_registry
  start_containerd
  wait_for 60 "image registry" curl -fs -o /dev/null "http://$REGISTRY/v2/"
  push_pause_image
  wait_for 90 "API server" kube get --raw /readyz
  start_controllers
  start_dns
  start_node
  wait_for 90 "default service account" kube get serviceaccount default
  wait_for 90 "node" kube get node node0
  kube wait --for=condition=Ready node/node0 --timeout=90s --request-timeout=0 >/dev/null || fail "the node is not Ready; see $DIR/log"
  env_line >env.sh
  definition >up
}

refuse_taken_ports() {
  local port
  for port in "${PORTS[@]}"; do
    [ -z "$(ss -Hltn "sport = :$port")" ] || fail "port $port is taken by another program"
  done
}

prepare_host() {
  local folder
  for folder in "${HOST_FOLDERS[@]}"; do [ -e "$folder" ] || echo "$folder"; done >made # 'down' removes these
  sysctl -e "${SYSCTLS[@]}" >sysctl.before 2>/dev/null # as they were; 'down' puts them back
  sysctl -qw net.ipv4.ip_forward=1
  ip address show dev lo | grep -q " $NODE_IP/" || ip address add "$NODE_IP/32" dev lo
}

certificates() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout pki/ca.key -out pki/ca.crt \
    -subj /CN=test-ca -days 365 2>/dev/null
  openssl genrsa -out pki/sa.key 2048 2>/dev/null
  certificate apiserver /CN=kube-apiserver \
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:$NODE_IP,IP:$API_SERVICE"
  certificate admin /O=system:masters/CN=admin DNS:admin
  certificate kubelet /O=system:nodes/CN=system:node:node0 "DNS:node0,IP:$NODE_IP"
  kubeconfig admin
  kubeconfig kubelet
}

certificate() { # NAME SUBJECT SAN
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "pki/$1.key" -out "pki/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 365 -out "pki/$1.crt" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=clientAuth,serverAuth\n' "$3") 2>/dev/null
}

kubeconfig() { # NAME
  cat >"$1.kubeconfig" <<Y
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $DIR/pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $DIR/pki/$1.crt, client-key: $DIR/pki/$1.key}}]
contexts: [{name: test, context: {cluster: test, user: $1}}]
current-context: test
Y
}

start_api() {
  start etcd etcd --data-dir etcd --unsafe-no-fsync --log-level warn --listen-peer-urls http://127.0.0.1:2380 \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
  start apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --advertise-address="$NODE_IP" \
    --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt \
    --service-cluster-ip-range="$SERVICE_CIDR" --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file=pki/sa.key --service-account-signing-key-file=pki/sa.key \
    --kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key \
    --kubelet-preferred-address-types=InternalIP --authorization-mode=Node,RBAC --allow-privileged=true
}

start_registry() {
  cat >registry.yml <<Y
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $DIR/registry}}
http: {addr: $REGISTRY}
Y
  start registry docker-registry serve registry.yml
}

start_containerd() {
  local registry
  for registry in "$REGISTRY" "$LOCKED_REGISTRY"; do
    mkdir -p "certs.d/$registry"
    printf 'server = "http://%s"\n[host."http://%s"]\n' "$registry" "$registry" >"certs.d/$registry/hosts.toml"
  done
  # restrict_oom_score_adj: inside a container or a small VM nobody may lower oom_score_adj, and then no pod would start.
  cat >containerd.toml <<Y
version = 2
root = "$DIR/containerd"
state = "$DIR/containerd-state"
[grpc]
  address = "$DIR/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$DIR/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$REGISTRY/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$DIR/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        Root = "$DIR/runc"
Y
  cat >cni/10-pods.conflist <<Y
{"cniVersion": "0.4.0", "name": "lambent-test", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$DIR/cni-data", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "loopback"}]}
Y
  start containerd containerd -c containerd.toml
}

push_pause_image() {
  cat >work/pause.c <<'C'
#include <signal.h>
#include <unistd.h>
static void end(int s) { _exit(0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }
C
  gcc -static -O2 -s -o work/pause work/pause.c
  push_binary "$REGISTRY/pause:1" work/pause
}

start_controllers() {
  start controller-manager "$BIN/kube-controller-manager" --kubeconfig=admin.kubeconfig --root-ca-file=pki/ca.crt \
    --service-account-private-key-file=pki/sa.key --use-service-account-credentials --leader-elect=false --bind-address=127.0.0.1
  start scheduler "$BIN/kube-scheduler" --kubeconfig=admin.kubeconfig --leader-elect=false --bind-address=127.0.0.1
}

start_dns() {
  local forward=
  if grep -q '^nameserver' /etc/resolv.conf; then forward='forward . /etc/resolv.conf'; fi
  cat >Corefile <<Y
.:53 {
  bind $NODE_IP
  errors
  kubernetes cluster.local {
    kubeconfig $DIR/admin.kubeconfig
  }
  $forward
}
Y
  start coredns "$BIN/coredns" -conf Corefile
}

start_node() {
  # failCgroupV1: a machine may still have the old hierarchy, which this kubelet refuses unless told.
  # A nearly full disk must neither evict pods nor delete images.
  cat >kubelet.yaml <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $DIR/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
maxPods: 500
podLogsDir: $DIR/pod-logs
serializeImagePulls: false
registryPullQPS: 0
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}
clusterDNS: [$NODE_IP]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$DIR/containerd.sock
tlsCertFile: $DIR/pki/kubelet.crt
tlsPrivateKeyFile: $DIR/pki/kubelet.key
Y
  start kubelet "$BIN/kubelet" --config=kubelet.yaml --kubeconfig=kubelet.kubeconfig --hostname-override=node0 \
    --node-ip="$NODE_IP" --root-dir="$DIR/kubelet"
  start kube-proxy "$BIN/kube-proxy" --kubeconfig=admin.kubeconfig --hostname-override=node0 --cluster-cidr="$POD_CIDR" \
    --proxy-mode=iptables --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}
