//! `oncegate explain`: what would happen to a request, and why. It sends nothing and asks no store.
//!
//! It calls the same functions as the proxy. Keys and scope values go no further than into them: what is shown is where
//! they came from, how long they are, and whether they are there.

mod finding;
mod show;

use std::{fs, path::PathBuf, process::ExitCode};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use self::finding::Request;
use super::{ConfigFlag, Exit, Failure, args, environment, put};
use crate::config::{self, Overrides};

/// Arguments of `oncegate explain`.
#[derive(Debug, Clone, clap::Args)]
#[command(override_usage = "oncegate explain [OPTIONS] FILE METHOD URL\n       \
                            oncegate explain [OPTIONS] -c FILE METHOD URL")]
pub struct Args {
    /// The configuration, the request's method, and its URL; no FILE with -c or ONCEGATE_CONFIG
    #[arg(value_name = "FILE|METHOD|URL", num_args = 2..=3, required = true)]
    words: Vec<String>,

    #[command(flatten)]
    config: ConfigFlag,

    /// A field of the request, e.g. -H 'Idempotency-Key: order-1'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// The request's body, e.g. --data '{"amount": 1999}' or --data @body.json
    #[arg(long, value_name = "TEXT|@FILE")]
    data: Option<String>,

    /// Print JSON for scripts, e.g. --json | jq .guarded
    #[arg(long)]
    json: bool,
}

/// Explains; exits 78 when the configuration is bad.
pub fn run(args: Args) -> ExitCode {
    explain(args).unwrap_or_else(|failure| failure.report())
}

fn explain(args: Args) -> Result<ExitCode, Failure> {
    let Args { words, config, headers, data, json } = args;
    let (file, method, url) = split(words, config)?;
    let request = request(&method, &url, &headers, data)?;
    let loaded = match config::load_alone(&file, &Overrides::default(), &environment) {
        Ok(loaded) => loaded,
        Err(errors) => return super::refuse_config(&errors, json),
    };
    let finding = finding::find(&loaded.config, &request);
    match json {
        true => put(format_args!("{:#}\n", show::json(&finding)))?,
        false => put(show::text(&request, &finding))?,
    }
    Ok(Exit::Ok.into())
}

/// `FILE METHOD URL`, or `METHOD URL` when the file is named elsewhere.
fn split(words: Vec<String>, config: ConfigFlag) -> Result<(PathBuf, String, String), Failure> {
    match <[String; 3]>::try_from(words) {
        Ok([_, _, _]) if config.is_given() => {
            Err(usage("the configuration is named twice", "name it once: FILE, or -c FILE"))
        }
        Ok([file, method, url]) => Ok((file.into(), method, url)),
        Err(words) => match <[String; 2]>::try_from(words) {
            Ok([file, method]) if !config.is_given() && !is_method(&file) && is_method(&method) => Err(usage(
                "there is no URL",
                "write FILE METHOD URL, as in: oncegate.toml POST http://api.example.com/v1/charges",
            )),
            Ok([method, url]) => Ok((config.path().ok_or_else(args::no_file)?, method, url)),
            Err(_) => unreachable!("clap takes two words or three"),
        },
    }
}

/// Whether a word is likelier a method than a file or a URL.
fn is_method(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

fn usage(what: impl Into<String>, remedy: &str) -> Failure {
    Failure::new(Exit::Usage, what, "", remedy)
}

fn request(method: &str, url: &str, fields: &[String], data: Option<String>) -> Result<Request, Failure> {
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| {
        usage(
            format!("{method:?} is not a method"),
            "write FILE METHOD URL, as in: oncegate.toml POST http://api.example.com/v1/charges",
        )
    })?;
    let url =
        parsed_url(&method, url).ok_or_else(|| usage(format!("{url:?} is not a URL"), "write http://HOST/PATH"))?;
    let mut headers = HeaderMap::new();
    for field in fields {
        let (name, value) = parsed(field).ok_or_else(|| {
            // Only the name: the value may be a secret.
            let name = field.split(':').next().unwrap_or_default();
            usage(format!("the field {name:?} cannot be read"), "write -H 'Name: value'")
        })?;
        headers.append(name, value);
    }
    let authority = url.authority().map(|authority| {
        let authority = authority.as_str();
        authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned()
    });
    let host = match headers.get(header::HOST).and_then(|host| host.to_str().ok()) {
        Some(host) => host.to_owned(),
        None => {
            authority.ok_or_else(|| usage("the URL has no host", "write http://HOST/PATH, or add -H 'Host: HOST'"))?
        }
    };
    let body = match data {
        None => Vec::new(),
        Some(data) => match data.strip_prefix('@') {
            None => data.into_bytes(),
            Some(path) => fs::read(path).map_err(|error| {
                Failure::new(
                    Exit::Failure,
                    format!("{path} cannot be read"),
                    error.to_string(),
                    "name a file after the @",
                )
            })?,
        },
    };
    Ok(Request { method, host, path: url.path().to_owned(), query: url.query().map(str::to_owned), headers, body })
}

/// A URL, a path alone, or what `CONNECT` takes: the parser would have a single word for a host.
fn parsed_url(method: &Method, text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let whole = matches!(url.scheme_str(), Some("http" | "https"));
    let path = url.authority().is_none();
    (whole || path || *method == Method::CONNECT).then_some(url)
}

fn parsed(field: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = field.split_once(':')?;
    Some((name.parse().ok()?, value.trim().parse().ok()?))
}
