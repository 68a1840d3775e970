//! Open files and secret files.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use super::Report;
use crate::config::{Config, settled::StoreKind};

/// Sockets for listening, the admin port, the store, logs, name look-ups.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Compares the limit of open files with what the configuration lets Oncegate open.
pub(super) fn descriptors(config: &Config, report: &mut Report) {
    const SUBJECT: &str = "file descriptors";
    let upstreams: usize = config.upstreams.iter().map(|upstream| upstream.max_connections).sum();
    let wanted = (config.server.max_connections + upstreams) as u64 + DESCRIPTORS_BESIDE;
    match open_files_max() {
        Ok(None) => report.ok(SUBJECT, "no limit"),
        Ok(Some(limit)) if limit >= wanted => report.ok(SUBJECT, format!("limit {limit}, at most {wanted} are needed")),
        Ok(Some(limit)) => report.warning(
            SUBJECT,
            format!("limit {limit}, but connections of clients and upstreams can need {wanted}"),
            format!("raise it (ulimit -n {wanted}, or LimitNOFILE={wanted} in the unit), or lower max_connections"),
        ),
        Err(error) => report.warning(
            SUBJECT,
            format!("the limit cannot be read: {error}"),
            format!("see that it is at least {wanted}"),
        ),
    }
}

/// The soft limit of this process; `None` where there is none.
fn open_files_max() -> io::Result<Option<u64>> {
    // The system call would need unsafe code; Linux tells it as text too.
    let limits = fs::read_to_string("/proc/self/limits")?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match soft {
        Some("unlimited") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(io::Error::other),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Looks at each file that must stay secret.
pub(super) fn secrets(config: &Config, report: &mut Report) {
    let password = match &config.store.kind {
        StoreKind::Redis(redis) => redis.password_file.as_deref(),
        StoreKind::Memory { .. } => None,
    };
    let files = [
        ("store.secret_file", config.store.secret_file.as_deref()),
        ("store.redis.password_file", password),
        ("admin.token_file", config.admin.token_file.as_deref()),
        ("server.tls.key", config.server.tls.as_ref().map(|tls| tls.key.as_path())),
    ];
    for (subject, path) in files {
        if let Some(path) = path {
            secret(subject, path, report);
        }
    }
}

pub(super) fn secret(subject: &str, path: &Path, report: &mut Report) {
    let shown = path.display();
    match fs::read(path).and_then(|content| Ok((content, fs::metadata(path)?))) {
        Err(error) => {
            report.failure(subject, format!("{shown} cannot be read: {error}"), "make it readable for this user")
        }
        Ok((content, _)) if content.trim_ascii().is_empty() => {
            report.failure(subject, format!("{shown} is empty"), format!("fill it: openssl rand -hex 32 > {shown}"));
        }
        Ok((_, metadata)) => {
            let mode = metadata.permissions().mode() & 0o777;
            // Kubernetes mounts secrets 0440 for a group of their own: reading by the group is no leak by itself.
            if mode & 0o037 == 0 {
                report.ok(subject, format!("{shown} has mode {mode:04o}"));
            } else {
                let who = if mode & 0o007 == 0 { "changed by its group" } else { "used by everyone on this machine" };
                report.warning(
                    subject,
                    format!("{shown} has mode {mode:04o}: it can be {who}"),
                    format!("chmod 600 {shown}"),
                );
            }
        }
    }
}
