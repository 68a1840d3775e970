//! One server.

use std::{ops::Deref, sync::Arc};

use super::{Options, Server, options::Common, server::Role};

/// One server that holds data; what it can do is in [`Server`].
#[derive(Debug)]
pub(crate) struct Single {
    server: Server,
    common: Arc<Common>,
}

impl Single {
    pub(crate) fn start(options: Options) -> Self {
        let common = Arc::new(Common::new(options));
        Self { server: Server::start(&common, Role::Data { replica_of: None }), common }
    }

    /// The lines of `[store.redis]` that name it.
    pub(crate) fn toml(&self) -> String {
        self.toml_by(&self.url())
    }

    /// The same by another URL: that of a relay before it.
    pub(crate) fn toml_by(&self, url: &str) -> String {
        format!("url = \"{url}\"\n{}", self.common.credentials_toml())
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }
}

impl Deref for Single {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
