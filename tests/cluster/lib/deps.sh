# What the machine must have: Debian's packages, the Rust target, Kubernetes' binaries.
# shellcheck shell=bash disable=SC2154,SC2164

PACKAGES=(
  containerd runc containernetworking-plugins etcd-server docker-registry buildah
  iptables conntrack iproute2 socat ethtool procps
  curl ca-certificates openssl gcc libc6-dev musl-tools
  python3-minimal libpython3-stdlib # the files of the base image for Python examples
)

install_packages() {
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
    stop_services_of "${missing[@]}"
  fi
  command -v cargo >/dev/null || fail "Rust is missing: install it with rustup"
  install_rust_target
}

# Debian starts what it installs; these would sit on the cluster's ports.
stop_services_of() {
  [ -d /run/systemd/system ] || return 0
  local package
  for package in "$@"; do
    case $package in
      etcd-server) systemctl disable --now etcd ;;
      docker-registry) systemctl disable --now docker-registry ;;
    esac
  done
}

install_rust_target() {
  command -v rustup >/dev/null || return 0
  cd "$ROOT" # rust-toolchain.toml says which toolchain
  rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install >&2
  rustup target list --installed | grep -qx "$RUST_TARGET" || rustup target add "$RUST_TARGET" >&2
}

build_binaries() {
  local missing=() name n=0
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl helm coredns; do
    [ -x "$BIN/$name" ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v go >/dev/null || fail "Go is missing; the cluster's binaries are built from their Go modules"
  say "building ${#missing[@]} binaries into $BIN (all 8 take about 15 min on 2 cores, once)"
  mkdir -p "$BIN"
  rm -rf "$BIN/unfinished"
  for name in "${missing[@]}"; do
    n=$((n + 1))
    say "building $name ($n of ${#missing[@]})"
    build_binary "$name"
    mv "$BIN/unfinished/$name" "$BIN/$name"
  done
  rm -rf "$BIN/unfinished"
}

build_binary() {
  local version=k8s.io/component-base/version minor=${KUBERNETES#v1.}
  case $1 in
    helm) go_install "helm.sh/helm/v3/cmd/helm@$HELM" ;;
    coredns) go_install "github.com/coredns/coredns@$COREDNS" ;;
    *)
      (cd "$HERE/binaries" && go build -trimpath -o "$BIN/unfinished/" \
        -ldflags "-s -w -X $version.gitVersion=$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=${minor%.*}" \
        "k8s.io/kubernetes/cmd/$1")
      ;;
  esac
}

go_install() { (cd / && GOBIN=$BIN/unfinished go install -trimpath -ldflags '-s -w' "$1"); }
