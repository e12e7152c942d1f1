//! Makes cargo rebuild the crate when a migration is added: the macro that embeds them cannot.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
