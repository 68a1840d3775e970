//! Reloads the configuration on SIGHUP and when its file changes; a bad new file changes nothing.
//!
//! The file's content is compared every two seconds: that sees an edit, a rename over it and a ConfigMap's symlink swap
//! alike, which file events do not.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::timeout};

use super::{Doors, Source, environment, told};
use crate::{
    cli::check::moved::moved,
    config::{self, Loaded, settled},
    proxy::{Live, Shared},
    server::Limits,
    store::Store,
    telemetry::metrics::Reloaded,
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
    loop {
        let was_asked = timeout(LOOK, asked.notified()).await.is_ok();
        let now = digest([&source.path]);
        if was_asked || now != seen {
            seen = now;
            let result = reload(&shared, &doors, &source);
            shared.metrics.reloaded(result);
        }
        let live = shared.live.load_full();
        let server = &live.config().server;
        let now = digest(tls_files(server));
        if let (Some(tls), Some(files)) = (&doors.server.tls, &server.tls)
            && (was_asked || now != certificate)
        {
            certificate = now;
            match tls.reload(files) {
                Ok(()) => tracing::info!("the certificate {} was reloaded", files.cert.display()),
                Err(error) => {
                    tracing::error!("the new certificate cannot be used, and the old one stays: {}", told(&error))
                }
            }
        }
    }
}

/// What files hold; one that cannot be read is seen as changed once.
fn digest<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Vec<Option<blake3::Hash>> {
    files.into_iter().map(|path| std::fs::read(path).ok().map(|bytes| blake3::hash(&bytes))).collect()
}

fn tls_files(server: &settled::Server) -> Vec<&PathBuf> {
    server.tls.iter().flat_map(|tls| [&tls.cert, &tls.key].into_iter().chain(&tls.client_ca)).collect()
}

fn reload<S: Store>(shared: &Shared<S>, doors: &Doors, source: &Source) -> Reloaded {
    let path = source.path.display();
    let Loaded { config: new, warnings } = match config::load(&source.path, &source.overrides, &environment) {
        Ok(loaded) => loaded,
        Err(errors) => {
            tracing::error!("the new configuration {path} is bad, and changes nothing:\n{errors}");
            return Reloaded::Failed;
        }
    };
    let live = shared.live.load_full();
    let old = live.config();
    let restart = config::needs_restart(old, &new);
    if !restart.is_empty() {
        tracing::error!(
            "the new configuration {path} changes {}, which needs a restart; nothing is changed",
            restart.join(", ")
        );
        return Reloaded::Refused;
    }
    let changes = config::identity_changes(old, &new);
    if !changes.is_empty() && !new.server.accept_identity_change {
        for change in &changes {
            tracing::error!("the new configuration {path} would put live records out of reach: {change}");
        }
        tracing::error!("nothing is changed; set server.accept_identity_change = true to accept that");
        return Reloaded::Refused;
    }
    let upstreams = match live.upstreams().reloaded(&new.upstreams) {
        Ok(upstreams) => upstreams,
        Err(error) => {
            tracing::error!(
                "the new configuration {path} changes nothing: an upstream cannot be used: {}",
                told(&error)
            );
            return Reloaded::Failed;
        }
    };
    warnings.iter().for_each(|warning| tracing::warn!("{}", warning.summary()));
    changes.iter().for_each(|change| tracing::warn!("accepted: {change}"));
    moved(old, &new).iter().for_each(|moved| tracing::warn!("{moved}"));
    shared.desk.in_flight().bound(new.server.max_in_flight);
    shared.buffered.bound(new.server.max_buffered);
    shared.log.set(&new.log);
    doors.server.limits.store(Arc::new(Limits::from(&new.server)));
    shared.live.store(Arc::new(Live::new(Arc::new(new), upstreams, &shared.metrics)));
    tracing::info!("the configuration {path} was reloaded");
    Reloaded::Ok
}
