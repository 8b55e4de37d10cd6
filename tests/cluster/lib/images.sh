# Images: Lambent's own, the examples', and any static binary.
# shellcheck shell=bash disable=SC2154,SC2164

storage() { # its own store, so that 'down' removes it
  local command=$1
  shift
  buildah --root "$DIR/buildah" --runroot "$DIR/buildah-run" --storage-driver vfs "$command" "$@"
}

build_and_push() { # CONTEXT IMAGE...: CONTEXT/Containerfile under each of these names
  local context=$1 image=$2 name arguments=()
  shift
  ! grep -q '^ARG BASE' "$context/Containerfile" || arguments=(--build-arg "BASE=$REGISTRY/python-base:1")
  # The fixed time makes the same content the same digest.
  storage bud --isolation chroot --quiet --timestamp 0 --tls-verify=false "${arguments[@]}" \
    -f "$context/Containerfile" -t "$image" "$context" >/dev/null
  for name in "$@"; do storage push --quiet --tls-verify=false "$image" "docker://$name"; done
  storage rmi "$image" >/dev/null
}

work_dir() { mktemp -d -p "$DIR/work"; }

push_binary() { # IMAGE BINARY
  local context
  context=$(work_dir)
  install -m 755 "$2" "$context/app"
  printf 'FROM scratch\nCOPY app /app\nENTRYPOINT ["/app"]\n' >"$context/Containerfile"
  build_and_push "$context" "$1"
  rm -rf "$context"
}

content_hash() { # FOLDER
  (cd "$1" && find . -type f -perm /111 -printf 'x %p\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum) |
    sha256sum | cut -c 1-12
}

stamp() { cat "$DIR/stamp/$1" 2>/dev/null || :; }
stamp_is() { [ "$(stamp "$1")" = "$2" ]; }
set_stamp() { echo "$2" >"$DIR/stamp/$1"; }

# Cargo compiles dependencies anew for another choice of packages, as their features may differ:
# the images and the end-to-end tests are built with the same one.
rust_packages() {
  printf -- '-p lambent -p lambent-tests'
  rust_examples | xargs -r printf ' -p %s'
}

rust_examples() {
  local manifest
  for manifest in "$ROOT"/examples/*/Cargo.toml; do
    if [ -f "$manifest" ]; then package_name "$manifest"; fi
  done
}

build_rust() {
  local packages binaries
  read -ra packages <<<"$(rust_packages)"
  read -ra binaries <<<"--bin lambent $(rust_examples | xargs -r printf -- '--bin %s ')"
  (cd "$ROOT" && cargo build --release --target "$RUST_TARGET" "${packages[@]}" "${binaries[@]}")
}

package_name() { sed -n 's/^name *= *"\(.*\)"/\1/p' "$1" | head -n 1; }

built() { echo "$CARGO_TARGET_DIR/$RUST_TARGET/release/$1"; }

push_lambent() { # its tag is in the stamp; LAMBENT_BINARY names another binary than that of the tests
  local context tag
  context=$(work_dir)
  cp "$ROOT/deploy/Containerfile" /etc/ssl/certs/ca-certificates.crt "$context"
  cp "${LAMBENT_BINARY:-$(built lambent)}" "$context/lambent"
  tag=$(content_hash "$context")
  push_if_changed "$context" lambent "$tag"
  rm -rf "$context"
}

push_if_changed() { # CONTEXT NAME TAG: also under the fixed tag 1
  if stamp_is "image-$2" "$3"; then return; fi
  say "image $2"
  build_and_push "$1" "$REGISTRY/$2:$3" "$REGISTRY/$2:1"
  set_stamp "image-$2" "$3"
}

push_examples() {
  local example
  push_python_base
  for example in "$ROOT"/examples/*/; do
    if [ -f "$example/Containerfile" ]; then push_example "${example%/}"; fi
  done
}

push_example() { # FOLDER
  local context tag
  context=$(work_dir)
  cp -R "$1/." "$context"
  if [ -f "$1/Cargo.toml" ]; then cp "$(built "$(package_name "$1/Cargo.toml")")" "$context/app"; fi
  tag=$(content_hash "$context")
  if grep -q '^ARG BASE' "$1/Containerfile"; then tag=$(echo "$tag $(stamp image-python-base)" | sha256sum | cut -c 1-12); fi
  push_if_changed "$context" "$(basename "$1")" "$tag"
  rm -rf "$context"
}

push_python_base() {
  grep -qs '^ARG BASE' "$ROOT"/examples/*/Containerfile || return 0
  local context tag
  tag=$("$HERE/python-base" version)
  if stamp_is image-python-base "$tag"; then return; fi
  context=$(work_dir)
  "$HERE/python-base" build "$context"
  push_if_changed "$context" python-base "$tag"
  rm -rf "$context"
}
