//! Programs of others that some tests ask, installed by `test.sh` below `target/tools`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Where npm puts what `test.sh` has it install.
const INSTALLED: &str = "target/tools/node_modules/.bin";

/// The program, from there or from the `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(INSTALLED);
    let places = [installed].into_iter().chain(env::split_paths(&path)).map(|directory| directory.join(program));
    places.into_iter().find(|path| path.is_file())
}

/// The program, or the reason why a test cannot say anything: it goes to stderr, and the test passes. In continuous
/// integration, where nobody reads that, it fails.
pub(crate) fn find_or_skip(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        let reason = format!("{program} is not installed; ./test.sh installs it, with npm");
        assert!(env::var_os("CI").is_none_or(|value| value.is_empty()), "{reason}");
        eprintln!("skipped: {reason}");
    }
    found
}
