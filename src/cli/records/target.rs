//! Where the admin API is, and what opens it: from the flags, else from the configuration, else the defaults.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    client::{Client, Place},
    say,
};
use crate::{
    cli::{ConfigFlag, Exit, Failure, environment},
    config::{self, Overrides, settled::Address},
};

/// Where an Oncegate without a configuration serves operators.
const DEFAULT: &str = "127.0.0.1:9464";

/// Which Oncegate is asked.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Target {
    /// Where its admin API is, e.g. --admin 127.0.0.1:9464 or unix:/run/admin.sock
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,

    /// Holds the token, e.g. --token-file /etc/oncegate/admin.token; none for unix:
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigFlag,
}

impl Target {
    /// The flags as they were given, for a command that is to ask the same Oncegate: to be put after it, in a shell.
    pub(super) fn given(&self) -> String {
        let Self { admin, token_file, config } = self;
        let file = |path: &PathBuf| path.to_string_lossy().into_owned();
        let flags = [
            ("--admin", admin.clone()),
            ("--token-file", token_file.as_ref().map(file)),
            ("-c", config.given().map(file)),
        ];
        flags.into_iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(&value?)))).collect()
    }

    /// # Errors
    ///
    /// The configuration is bad, the token cannot be read, or the address is none.
    pub(super) fn client(self) -> Result<Client, Failure> {
        let Self { admin, token_file, config } = self;
        // Whoever names the address means no other Oncegate than that; a configuration in the environment is not it.
        let needs_config = config.is_given() || admin.is_none();
        let named = config.path().filter(|_| needs_config);
        let configured = named.map(|path| configured(&path)).transpose()?;
        let place = match (admin, &configured) {
            (Some(text), _) => place(&text)?,
            (None, Some(admin)) => reachable(&admin.listen),
            (None, None) => place(DEFAULT)?,
        };
        let token_file = token_file.or_else(|| configured.and_then(|admin| admin.token_file));
        let token = match (&place, token_file) {
            // Its owner needs none there.
            (Place::Unix(_), _) | (Place::Tcp(_), None) => None,
            (Place::Tcp(_), Some(file)) => Some(token(&file)?),
        };
        Ok(Client::new(place, token))
    }
}

/// A word that a shell reads as it is.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn configured(path: &std::path::Path) -> Result<config::settled::Admin, Failure> {
    match config::load_alone(path, &Overrides::default(), &environment) {
        Ok(loaded) => Ok(loaded.config.admin),
        Err(errors) => {
            say(errors.render(true));
            Err(Failure::new(
                Exit::Config,
                "the configuration is bad",
                "the admin API's address and token stand in it",
                "mend it, or name them with --admin and --token-file",
            ))
        }
    }
}

fn place(text: &str) -> Result<Place, Failure> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Place::Unix(path.into()));
    }
    let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Place::Tcp(text.to_owned())),
        Some(_) | None => Err(Failure::new(
            Exit::Usage,
            format!("{text:?} is no address of an admin API"),
            "",
            "say HOST:PORT, such as 127.0.0.1:9464, or unix:PATH",
        )),
    }
}

/// The address to connect to for one to listen on: "any address" is this machine's own.
fn reachable(listen: &Address) -> Place {
    match listen {
        Address::Unix(path) => Place::Unix(path.clone()),
        Address::Tcp(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
            };
            Place::Tcp(SocketAddr::new(ip, address.port()).to_string())
        }
    }
}

fn token(file: &std::path::Path) -> Result<String, Failure> {
    let unusable = |why: String| {
        Failure::new(
            Exit::Failure,
            format!("the token file {} cannot be used", file.display()),
            why,
            "name one that this user may read with --token-file",
        )
    };
    let text = fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    match text.trim() {
        "" => Err(unusable("it is empty".to_owned())),
        token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token.to_owned()),
        _ => Err(unusable("it holds more than one word of visible ASCII".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        assert_eq!(place("127.0.0.1:9464").unwrap(), Place::Tcp("127.0.0.1:9464".into()));
        assert_eq!(place("http://[::1]:9464/").unwrap(), Place::Tcp("[::1]:9464".into()));
        assert_eq!(place("unix:/run/a.sock").unwrap(), Place::Unix("/run/a.sock".into()));
        for bad in ["", "9464", ":9464", "localhost", "localhost:port", "https://localhost"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_given_is_repeated_as_a_shell_reads_it() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            target: Target,
        }
        let given = |words: &[&str]| {
            let line = [&["records"], words].concat();
            <Line as clap::Parser>::parse_from(line).target.given()
        };
        assert_eq!(given(&[]), "");
        assert_eq!(given(&["-c", "my file.toml"]), " -c 'my file.toml'");
        let both = ["--token-file", "it's", "--admin", "[::1]:9464"];
        assert_eq!(given(&both), " --admin '[::1]:9464' --token-file 'it'\\''s'");
    }

    #[test]
    fn any_address_is_reached_on_this_machine() {
        let reached = |text: &str| reachable(&Address::Tcp(text.parse().unwrap()));
        assert_eq!(reached("0.0.0.0:1"), Place::Tcp("127.0.0.1:1".into()));
        assert_eq!(reached("[::]:1"), Place::Tcp("[::1]:1".into()));
        assert_eq!(reached("10.0.0.7:1"), Place::Tcp("10.0.0.7:1".into()));
    }
}
