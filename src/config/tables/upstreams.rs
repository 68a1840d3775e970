//! Reads `[upstreams.*]`.

use toml::de::DeTable;

use crate::config::{
    files::Purpose,
    reference::Table,
    section::{Section, Spot},
    settled::{Upstream, UpstreamTarget, UpstreamTls, UpstreamUrl},
    value::{self, Wrong},
};

use super::{FileNames, count};

/// `[upstreams.*]`, by name in alphabetical order; one that is broken too, so that routes find it.
pub(crate) fn upstreams(section: &Section<'_, '_>, files: &mut FileNames<'_>) -> Vec<Upstream> {
    const HELP: &str = "name the upstream: [upstreams.payments], and below it url = \"http://127.0.0.1:9000\"";
    let named = section.get("upstreams").and_then(|entry| section.named_tables(&entry)).unwrap_or_default();
    let read = named.into_iter().map(|entry| {
        if value::line(entry.key).is_err() {
            section.reader.error(&entry.key_span, "an upstream without a name", "", "say [upstreams.payments]");
        }
        let table = section.table_or(&entry, &[Table::Upstream], format!("[upstreams.{}]", entry.key), HELP);
        table.map_or_else(|| Upstream::new(entry.key, Vec::new()), |table| upstream(entry.key, &table, files))
    });
    let mut read: Vec<_> = read.collect();
    read.sort_by(|one, other| one.name.cmp(&other.name));
    read
}

fn upstream(name: &str, section: &Section<'_, '_>, files: &mut FileNames<'_>) -> Upstream {
    let mut upstream = Upstream::new(name, Vec::new());
    let url = section.read("url", value::upstream_url);
    let urls = section.list("urls", value::upstream_url);
    certifiable(section, url.iter().chain(urls.iter().flat_map(|urls| &urls.value)));
    match (section.get("url").is_some(), section.get("urls").is_some()) {
        (true, true) => {
            section.reader.error(
                &section.place("urls"),
                format!("`url` and `urls` in {}", section.title),
                "",
                "give one of them",
            );
        }
        (false, false) => {
            let message = format!("{} without `url`", section.title);
            section.reader.error(&section.span, message, "", "say where it is: url = \"http://127.0.0.1:9000\"");
        }
        (true, false) | (false, true) => {}
    }
    if let Some(urls) = urls {
        if urls.value.is_empty() {
            section.reader.error(
                &urls.span,
                "`urls` is empty",
                "",
                "name at least one: urls = [\"http://127.0.0.1:9000\"]",
            );
        }
        upstream.urls.extend(urls.value.into_iter().map(|url| url.value));
    }
    upstream.urls.extend(url.map(|url| url.value));
    set!(upstream.connect_timeout, section.read("connect_timeout", value::timeout));
    set!(upstream.queue_timeout, section.read("queue_timeout", value::duration));
    set!(upstream.max_connections, section.integer("max_connections").map(count));
    set!(upstream.max_idle_guarded, section.read("max_idle_guarded", value::duration));
    set!(upstream.http2, section.boolean("http2"));
    set!(upstream.host, section.choice("host"));
    if let Some(tls) = section.table("tls", &[Table::UpstreamTls], format!("{} tls", section.title)) {
        if !upstream.urls.is_empty() && upstream.urls.iter().all(|url| !url.tls) {
            let help = "say url = \"https://…\", or leave tls out";
            section.reader.error(&section.place("tls"), "`tls` for an upstream that is not https", "", help);
        }
        let ca = files.read(&tls, "ca", Purpose::Certificates);
        let (cert, key) = files.read_pair(&tls).unzip();
        let server_name = tls.read("server_name", server_name).map(|name| name.value);
        upstream.tls = UpstreamTls { ca, cert, key, server_name };
    }
    upstream
}

/// Each https url has a name that a certificate can have, or one is given.
fn certifiable<'a>(section: &Section<'_, '_>, urls: impl Iterator<Item = &'a Spot<UpstreamUrl>>) {
    let names = |tls: &DeTable<'_>| tls.keys().any(|key| key.get_ref() == "server_name");
    let named = section.get("tls").is_some_and(|tls| tls.value.get_ref().as_table().is_some_and(names));
    for Spot { value: url, span } in urls.filter(|url| url.value.tls && !named) {
        let UpstreamTarget::Tcp(host, _) = &url.target else { continue };
        if server_name(host).is_err() {
            let help = "mend the name, or say in tls which one the certificate has: server_name = \"api.internal\"";
            section.reader.error(span, "an https URL whose host no certificate can have", "", help);
        }
    }
}

fn server_name(text: &str) -> Result<String, Wrong> {
    match rustls_pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => value::wrong("not a name that a certificate can have", "say \"api.internal\""),
    }
}
