//! Reloads the configuration on SIGHUP and when its file changes; a bad new file changes nothing.
//!
//! The file's content is compared every two seconds: that sees an edit, a rename over it and a ConfigMap's symlink swap
//! alike, which file events do not.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::timeout};

use super::{Doors, Source, environment};
use crate::{
    cli::check::moved::moved,
    config::{self, Loaded, settled},
    proxy::{Live, Shared},
    server::{Limits, Tls},
    store::Store,
    telemetry::{causes, metrics::Reloaded},
};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(2);

/// Runs until it is dropped. `asked` wakes it for a reload that was asked for.
pub(super) async fn watch<S: Store>(shared: Arc<Shared<S>>, doors: Doors, source: Option<Source>, asked: Arc<Notify>) {
    let Some(source) = source else {
        loop {
            asked.notified().await;
            tracing::warn!("there is nothing to reload: no configuration file was named");
        }
    };
    let mut seen = digest([&source.path]);
    let mut certificate = digest(tls_files(&shared.live.load().config().server));
    let mut wrong = None;
    loop {
        let was_asked = timeout(LOOK, asked.notified()).await.is_ok();
        let now = digest([&source.path]);
        let changed = was_asked || now != seen;
        seen = now;
        // What is wrong may be in a file that the configuration names, and be put right there.
        if changed || wrong.is_some() {
            let result = match reload(&shared, &doors, &source) {
                Ok(files) => {
                    wrong = None;
                    certificate = files;
                    Some(Reloaded::Ok)
                }
                Err(NotReloaded::Refused(reasons)) => {
                    wrong = None;
                    reasons.iter().for_each(|reason| tracing::error!("{reason}"));
                    Some(Reloaded::Refused)
                }
                Err(NotReloaded::Failed(why)) if !changed && wrong.as_ref() == Some(&why) => None,
                Err(NotReloaded::Failed(why)) => {
                    tracing::error!("{why}");
                    wrong = Some(why);
                    Some(Reloaded::Failed)
                }
            };
            result.into_iter().for_each(|result| shared.metrics.reloaded(result));
        }
        if let Some(result) = certificates(&shared.live.load().config().server, &doors, &mut certificate) {
            shared.metrics.reloaded(result);
        }
    }
}

/// Takes up certificates whose files changed.
fn certificates(server: &settled::Server, doors: &Doors, seen: &mut Digest) -> Option<Reloaded> {
    let (tls, files) = doors.server.tls.as_ref().zip(server.tls.as_ref())?;
    let now = digest(tls_files(server));
    if now == *seen {
        return None;
    }
    *seen = now;
    match tls.reload(files) {
        Ok(()) => {
            tracing::info!("the certificate {} was reloaded", files.cert.display());
            Some(Reloaded::Ok)
        }
        Err(error) => {
            tracing::error!("the new certificate cannot be used, and the old one stays: {}", causes(&error));
            Some(Reloaded::Failed)
        }
    }
}

/// What files held.
type Digest = Vec<Option<blake3::Hash>>;

/// What files hold; one that cannot be read is seen as changed once.
fn digest<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Digest {
    files.into_iter().map(|path| std::fs::read(path).ok().map(|bytes| blake3::hash(&bytes))).collect()
}

fn tls_files(server: &settled::Server) -> Vec<&PathBuf> {
    server.tls.iter().flat_map(|tls| [&tls.cert, &tls.key].into_iter().chain(&tls.client_ca)).collect()
}

/// Why a new configuration is not taken up.
enum NotReloaded {
    /// It, or a file that it names, cannot be used.
    Failed(String),
    /// It is sound, and not for a running process.
    Refused(Vec<String>),
}

/// What its certificate files held comes back.
fn reload<S: Store>(shared: &Shared<S>, doors: &Doors, source: &Source) -> Result<Digest, NotReloaded> {
    let path = source.path.display();
    let failed = |what: &str, error: &dyn std::error::Error| {
        NotReloaded::Failed(format!("the new configuration {path} changes nothing: {what}: {}", causes(error)))
    };
    let Loaded { config: new, warnings } =
        config::load(&source.path, &source.overrides, &environment).map_err(|errors| {
            NotReloaded::Failed(format!("the new configuration {path} is bad, and changes nothing:\n{errors}"))
        })?;
    let live = shared.live.load_full();
    let old = live.config();
    let restart = config::needs_restart(old, &new);
    if !restart.is_empty() {
        let restart = restart.join(", ");
        return Err(NotReloaded::Refused(vec![format!(
            "the new configuration {path} changes {restart}, which needs a restart; nothing is changed"
        )]));
    }
    let changes = config::identity_changes(old, &new);
    if !changes.is_empty() && !new.server.accept_identity_change {
        let out_of_reach =
            |change| format!("the new configuration {path} would put live records out of reach: {change}");
        let mut reasons: Vec<_> = changes.iter().map(out_of_reach).collect();
        reasons.push("nothing is changed; set server.accept_identity_change = true to accept that".to_owned());
        return Err(NotReloaded::Refused(reasons));
    }
    // Before they are read: what changes meanwhile is looked at again.
    let files = digest(tls_files(&new.server));
    let tls = match doors.server.tls.as_ref().zip(new.server.tls.as_ref()) {
        Some((tls, files)) => {
            let fitting = Tls::look(files).map_err(|error| failed("clients cannot be served by TLS", &error))?;
            Some((tls, fitting))
        }
        None => None,
    };
    // Last of what may fail: it takes up the upstreams' certificates.
    let upstreams =
        live.upstreams().reloaded(&new.upstreams).map_err(|error| failed("an upstream cannot be used", &error))?;
    // From here on all of it is taken up.
    if let Some((tls, fitting)) = tls {
        tls.change(fitting);
    }
    warnings.iter().for_each(|warning| tracing::warn!("{}", warning.summary()));
    changes.iter().for_each(|change| tracing::warn!("accepted: {change}"));
    moved(old, &new).iter().for_each(|moved| tracing::warn!("{moved}"));
    shared.desk.in_flight().bound(new.server.max_in_flight);
    shared.buffered.bound(new.server.max_buffered);
    shared.answers.bound(new.server.max_buffered);
    shared.log.set(&new.log);
    doors.server.limits.store(Arc::new(Limits::from(&new.server)));
    shared.live.store(Arc::new(Live::new(Arc::new(new), upstreams, &shared.metrics)));
    tracing::info!("the configuration {path} was reloaded");
    Ok(files)
}
