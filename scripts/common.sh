# Sourced by the other scripts: finds what is missing on a fresh Debian machine and installs it.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

# Runs a command as root: directly, or through sudo if it asks for no password or can ask for one.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        return 1
    fi
}

# install_packages NAME...: installs Debian packages, or says which ones a person has to install.
install_packages() {
    if command -v apt-get >/dev/null; then
        say "installing: $*"
        if as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; then
            return 0
        fi
        say "could not install $*; as root, run: apt-get update && apt-get install $*"
    else
        say "please install the equivalent of these Debian packages: $*"
    fi
    return 1
}

# need_disk GIB: says so where the builds of a cold checkout will not fit; what is there already counts.
need_disk() {
    local folder=${CARGO_TARGET_DIR:-target} free used=0
    [ ! -d "$folder" ] || used=$(du -sk "$folder" | cut -f1)
    free=$( (df -Pk "$folder" 2>/dev/null || df -Pk .) | awk 'NR == 2 { print $4 }')
    if [ $((free + used)) -lt $(($1 * 1024 * 1024)) ]; then
        say "the builds need about $1 GiB in $folder, and $((free / 1024 / 1024)) GiB are free: they may fail for lack of space"
    fi
}

# A compiler that links a program: Rust links with it, and the TLS crate has C parts.
c_compiler_works() {
    local out status=0
    out=$(mktemp) || return 1
    printf 'int main(void) { return 0; }\n' | cc -x c - -o "$out" 2>/dev/null || status=1
    rm -f "$out"
    return "$status"
}

# What the tests of the GPU backends need on a machine of Debian: a software adapter of Vulkan.
prepare_software_adapter() {
    local icds=(/usr/share/vulkan/icd.d/lvp_icd*.json)
    if [ "$(uname -s)" != Linux ] || { [ -e "${icds[0]}" ] && ldconfig -p | grep -q 'libvulkan\.so\.1'; }; then
        return 0
    fi
    # The suite says what is missing: it fails in CI and skips elsewhere.
    install_packages mesa-vulkan-drivers libvulkan1 || true
}

# What a build with the feature `mpi` needs, and what starts it.
prepare_mpi() {
    local missing=()
    if ! command -v mpicc >/dev/null || ! command -v mpirun >/dev/null; then
        missing+=(libopenmpi-dev openmpi-bin)
    fi
    ldconfig -p 2>/dev/null | grep -q 'libclang\(-[0-9]*\)\?\.so' || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        missing+=(libclang-dev)
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
}

# What every build needs. Cargo is not installed behind anybody's back.
prepare_build() {
    if ! command -v cargo >/dev/null && [ -r "$HOME/.cargo/env" ]; then
        # shellcheck disable=SC1091
        . "$HOME/.cargo/env"
    fi
    if ! command -v cargo >/dev/null; then
        say "cargo is missing: install Rust from https://rustup.rs (rust-toolchain.toml picks the version)"
        return 1
    fi
    local missing=()
    c_compiler_works || missing+=(build-essential)
    if [ -e /etc/debian_version ] && [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then
        missing+=(ca-certificates)
    fi
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
}
