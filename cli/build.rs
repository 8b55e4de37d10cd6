//! How the binary is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A program that may be loaded anywhere has some 100,000 addresses to be changed when it starts. Packed, their
    // list takes 36 KB instead of 2.3 MB, all of which would be read into each process.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
