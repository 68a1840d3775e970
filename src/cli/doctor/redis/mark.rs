//! Whose records a server holds: where replicas with another id key left their mark, `run` would exit (contract: R-5).

use redis::{RedisResult, aio::MultiplexedConnection, cmd};

use super::{remedy, told};
use crate::{
    cli::doctor::Report,
    config::{secrets, settled::Store},
    rule::identity::IdKey,
    store::redis::{is_marked_by, mark_keys},
};

pub(super) async fn examine(
    store: &Store,
    prefix: &str,
    subject: &str,
    master: &mut MultiplexedConnection,
    report: &mut Report,
) {
    let id_key = match store.secret_file.as_deref().map(secrets::read) {
        None => IdKey::fixed(),
        Some(Ok(secrets)) => IdKey::from_secret(secrets.id_key()),
        // The file is looked at by itself, and that finding says what is wrong with it.
        Some(Err(_)) => return,
    };
    match found(prefix, master).await {
        Err(error) => report.failure(subject, format!("its mark cannot be read: {}", told(&error)), remedy(&error)),
        Ok(None) => report.ok(subject, format!("holds no records under {prefix:?} yet")),
        Ok(Some(mark)) if is_marked_by(&mark, &id_key) => report.ok(subject, "the records in it are under this id key"),
        Ok(Some(_)) => {
            let keyed = if store.secret_file.is_some() { "another store.secret_file" } else { "a store.secret_file" };
            report.failure(
                subject,
                format!("the records under {prefix:?} are keyed by {keyed}: their ids would never meet, and `run` exits"),
                "give this replica the file of the others, whose last line keys the ids; or set another store.redis.prefix",
            );
        }
    }
}

/// The server's mark, if it has one.
async fn found(prefix: &str, master: &mut MultiplexedConnection) -> RedisResult<Option<Vec<u8>>> {
    for key in mark_keys(prefix) {
        match cmd("GET").arg(key).query_async(master).await {
            // A slot of another node: this one's mark lies in the first bucket that it serves.
            Err(error) if error.redirect_node().is_some() => {}
            answer => return answer,
        }
    }
    Ok(None)
}
