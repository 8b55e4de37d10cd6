# Lambent on the cluster: image and chart.
# shellcheck shell=bash disable=SC2154,SC2164

install_lambent() {
  local tag release
  [ -f "$ROOT/charts/lambent/Chart.yaml" ] || fail "there is no charts/lambent"
  rm -rf "$DIR"/work/* # of a run that was killed
  build_rust
  push_lambent
  tag=$(stamp image-lambent)
  push_examples
  release=$tag-$(content_hash "$ROOT/charts/lambent")-$(sha256sum <"$HERE/lib/install.sh" | cut -c 1-12)
  if stamp_is release "$release" && is_available; then return; fi
  say "installing the chart"
  restrict_namespace
  give_node_a_range
  forget_unfinished_release
  upgrade_release "$tag" || { dump; fail "helm could not install the chart"; }
  wait_until_available || { dump; fail "Lambent does not become available"; }
  set_stamp release "$release"
}

restrict_namespace() { # before the first pod: no part of Lambent may need more
  kube create namespace "$NAMESPACE" >/dev/null 2>&1 || :
  kube label --overwrite namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted >/dev/null
}

# As a controller manager does that allocates ranges; what agents tell is checked against it.
give_node_a_range() {
  [ -z "$(kube get node node0 -o 'jsonpath={.spec.podCIDR}')" ] || return 0
  kube patch node node0 --type merge -p "{\"spec\": {\"podCIDR\": \"$POD_CIDR\", \"podCIDRs\": [\"$POD_CIDR\"]}}" >/dev/null
}

upgrade_release() { # TAG
  "$BIN/helm" --kubeconfig "$DIR/admin.kubeconfig" upgrade --install lambent "$ROOT/charts/lambent" \
    --namespace "$NAMESPACE" --create-namespace --timeout 3m \
    --set image.repository="$REGISTRY/lambent" --set-string image.tag="$1" \
    --set gateway.service.type=NodePort --set gateway.service.nodePort="$GATEWAY_PORT" \
    --set gateway.domain=fn.example --set gateway.replicas=2 \
    --set node.enabled=true --set node.runtimeSocket="$DIR/containerd.sock" --set node.mountPropagation=None \
    --set "controller.plainHttpRegistries={$REGISTRY,$LOCKED_REGISTRY}" >/dev/null
}

# A helm that was killed leaves its release locked for ever.
forget_unfinished_release() {
  kube -n "$NAMESPACE" delete secret --ignore-not-found \
    -l 'owner=helm,name=lambent,status in (pending-install,pending-upgrade,pending-rollback)' >/dev/null
}

deployments() { kube -n "$NAMESPACE" get deployments -o name; }

agents() { kube -n "$NAMESPACE-node" "$@"; }

is_available() {
  [ -n "$(deployments)" ] && kube -n "$NAMESPACE" wait deployment --all --for=condition=Available --timeout=1s >/dev/null 2>&1 &&
    agents rollout status daemonset/lambent-node --timeout=1s >/dev/null 2>&1
}

wait_until_available() {
  local deployment
  for deployment in $(deployments); do
    kube -n "$NAMESPACE" rollout status "$deployment" --timeout=120s --request-timeout=0 >/dev/null || return 1
  done
  agents rollout status daemonset/lambent-node --timeout=120s --request-timeout=0 >/dev/null || return 1
  is_available
}

dump() {
  local pod
  kube -n "$NAMESPACE" get pods -o wide || return 0
  kube -n "$NAMESPACE" get events --sort-by=.lastTimestamp | tail -n 30
  for pod in $(kube -n "$NAMESPACE" get pods -o name); do
    echo "--- $pod"
    kube -n "$NAMESPACE" logs "$pod" --all-containers --tail=60 || :
    kube -n "$NAMESPACE" logs "$pod" --all-containers --tail=60 --previous 2>/dev/null || :
  done
  agents get pods -o wide
  agents get events --sort-by=.lastTimestamp | tail -n 10
  agents logs daemonset/lambent-node --tail=60 || :
  echo "--- kube-proxy"
  tail -n 20 "$DIR/log/kube-proxy.log" || :
}
