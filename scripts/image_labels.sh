# shellcheck shell=bash
# Sourced: the labels that every image gets, and the hash of what it is built from.

# macOS has no sha256sum, others have no shasum.
if command -v sha256sum >/dev/null; then SHA256=(sha256sum); else SHA256=(shasum -a 256); fi # Linux

# short_hash: of standard input.
short_hash() { "${SHA256[@]}" | cut -c1-16; }

# image_labels TITLE CRATE: puts the options of `docker build` for OCI's labels of an image into the array `labels`. Its description is that of the crate,
# a folder. The revision is the last commit, with -dirty if files have changed since; there is none outside of a clone.
image_labels() {
    local prefix=org.opencontainers.image description version revision
    description=$(sed -n 's/^description = "\(.*\)"$/\1/p' "$2/Cargo.toml")
    version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
    labels=(
        --label "$prefix.title=$1"
        --label "$prefix.description=$description"
        --label "$prefix.version=$version"
        --label "$prefix.licenses=MIT"
        --label "$prefix.created=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    )
    revision=$(git describe --always --exclude='*' --abbrev=40 --dirty 2>/dev/null) || return 0
    labels+=(--label "$prefix.revision=$revision")
}
