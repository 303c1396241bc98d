//! What `--version` says: which build this is, as `build.rs` has found out. Whoever answers or stores a version elsewhere
//! gives its number alone, which is the same for every build of it.

/// The number alone.
pub(super) const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// One line, for `-V`.
pub(super) const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TIDEMARK_BUILD_COMMIT"), ")");

/// A fact on each line, for `--version`.
pub(super) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("TIDEMARK_BUILD_COMMIT"),
    "\ntarget: ",
    env!("TIDEMARK_BUILD_TARGET"),
    "\nprofile: ",
    env!("TIDEMARK_BUILD_PROFILE"),
    "\nfeatures: ",
    env!("TIDEMARK_BUILD_FEATURES"),
    "\nrustc: ",
    env!("TIDEMARK_BUILD_RUSTC")
);
