//! The accept loop of one worker.

use std::{io, time::Duration};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{
    Handler, Listener, Shared, TurnedAway,
    connection::{self, Permit},
    listener::Registered,
    stream::Stream,
};

/// The first pause when file descriptors or memory are short; each further failure doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest: a descriptor that became free is used within a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Serves clients on `listener` until `stop` is cancelled and every connection accepted here, tunnels included, has
/// ended. From then on idle connections close, and busy ones close after the answer under way.
///
/// # Errors
/// The listener cannot be registered with the runtime this runs in. What goes wrong with one connection is not an error
/// of the server.
///
/// # Cancel safety
/// Dropping the future stops the accepting; connections that were accepted go on, in tasks of the runtime.
pub async fn serve<H: Handler>(
    listener: Listener,
    handler: H,
    shared: Shared,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = listener.register()?;
    let connections = TaskTracker::new();
    // A token of this worker's own: its connections look at it often, and other workers' need not wait for its lock.
    let stop = stop.child_token();
    stop.run_until_cancelled(accept(&listener, &connections, &handler, &shared, &stop)).await;
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn accept<H: Handler>(
    listener: &Registered,
    connections: &TaskTracker,
    handler: &H,
    shared: &Shared,
    stop: &CancellationToken,
) {
    let mut pause = PAUSE_MIN;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                pause = PAUSE_MIN;
                greet(stream, connections.token(), handler, shared, stop);
            }
            // The client hung up while it was queued; the next one is waiting.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // The socket stays ready, so trying again at once would spin. One line for each shortage.
                if pause == PAUSE_MIN {
                    tracing::error!(%error, "cannot accept connections; pausing until there is room again");
                }
                tokio::time::sleep(pause).await;
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
    }
}

fn greet<H: Handler>(stream: Stream, token: TaskTrackerToken, handler: &H, shared: &Shared, stop: &CancellationToken) {
    let limits = shared.limits.load_full();
    match Permit::take(&shared.connections, limits.max_connections, token) {
        Some(permit) => {
            let tls = shared.tls.clone();
            tokio::spawn(connection::serve(stream, permit, handler.clone(), tls, limits, stop.clone()));
        }
        None => {
            let why = TurnedAway::MaxConnections;
            connection::turn_away(stream, why, shared.tls.is_some(), &shared.connections, handler);
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
