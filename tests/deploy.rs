//! The image and the manifests in `deploy/` agree with the program, with `config/`, and with each other.
//!
//! The manifests are read line by line: they are ours, and keep to one key a line. Whether they are Kubernetes' is for
//! `kubernetes-validate` to say, and `hadolint` speaks of the `Dockerfile`; each is asked where it is installed.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the files says so by panicking")]

use std::{
    fs, io,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use oncegate::{
    cli::run::{self, Start},
    config::{
        self, Config, Loaded, Overrides,
        settled::{Address, StoreKind},
    },
};

/// Beside records and bodies: code, stacks, connections' buffers.
const ROOM_TO_WORK: u64 = 64 << 20;

#[test]
fn the_configurations_are_sound_and_warned_of_only_as_meant() {
    let meant = ["records live in this process only", "two intended, identical requests"];
    for manifest in manifests() {
        for warning in manifest.load().warnings.iter().map(|warning| warning.summary()) {
            assert!(meant.iter().any(|meant| warning.contains(meant)), "{}: {warning}", manifest.name);
        }
    }
}

#[test]
fn the_sidecars_configuration_is_the_example_file_with_its_token() {
    // Outside of a pod nobody has the token: there the line is a comment, so that the file can be checked.
    let embedded = Manifest::read("deploy/sidecar.yaml").embedded();
    let token = embedded.lines().find(|line| line.starts_with("token_file")).unwrap();
    assert_eq!(embedded.replace(token, &format!("# {token}")), read("config/sidecar.toml"));
}

#[test]
fn the_grace_period_is_longer_than_all_that_it_must_hold() {
    for manifest in manifests() {
        let grace = Duration::from_secs(manifest.number("terminationGracePeriodSeconds"));
        let before = Duration::from_secs(manifest.number("seconds"));
        let drain = manifest.config().server.drain_timeout;
        assert!(grace > before + drain, "{}: {grace:?}, {before:?}, {drain:?}", manifest.name);
    }
}

#[test]
fn ports_are_those_of_the_configuration_and_of_the_image() {
    let exposed = instruction("EXPOSE");
    for manifest in manifests() {
        let config = manifest.config();
        let ports = [port(&config.server.listen), port(&config.admin.listen)].map(|port| port.to_string());
        assert_eq!(manifest.all("containerPort"), ports, "{}", manifest.name);
        assert_eq!(exposed, ports.join(" "));
    }
}

#[test]
fn the_service_leads_to_the_guard_and_probes_to_the_admin_port() {
    for manifest in manifests() {
        let [data, admin] = manifest.port_names();
        assert_eq!(manifest.all("targetPort"), [data], "{}", manifest.name);
        let probed: Vec<_> = manifest.all("port").into_iter().filter(|port| port.parse::<u16>().is_err()).collect();
        assert_eq!(probed, [&*admin; 3], "{}", manifest.name);
    }
}

#[test]
fn the_kubelet_reaches_the_admin_port() {
    for manifest in manifests() {
        let Address::Tcp(address) = manifest.config().admin.listen else { panic!("{}", manifest.name) };
        assert!(address.ip().is_unspecified(), "{}: {address}", manifest.name);
    }
}

#[test]
fn probes_ask_for_what_there_is() {
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "token").unwrap();
    for manifest in manifests() {
        let text = manifest.embedded().replace("/etc/oncegate-admin/token", token.path().to_str().unwrap());
        let anywhere = Some("127.0.0.1:0".to_owned());
        let overrides = Overrides { upstream: None, listen: anywhere.clone(), admin: anywhere };
        let loaded = config::parse("oncegate.toml", &text, &overrides, &|_| None).unwrap();
        let running = run::start(Start { loaded, source: None, signals: false }).unwrap();
        let Address::Tcp(admin) = running.admin else { panic!("{}", manifest.name) };
        let paths = manifest.all("path");
        assert_eq!(paths.len(), 3, "{}: {paths:?}", manifest.name);
        for path in paths {
            let answer = get(admin, &path).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {path}: {answer}", manifest.name);
        }
        running.stop();
        assert_eq!(running.wait(), 0);
    }
}

#[test]
fn records_in_memory_are_in_one_process() {
    for manifest in manifests() {
        match manifest.config().store.kind {
            StoreKind::Memory { .. } => {}
            StoreKind::Redis(_) => continue,
        }
        assert_eq!(manifest.all("replicas"), ["1"], "{}", manifest.name);
        assert!(manifest.text.contains("strategy:\n    type: Recreate\n"), "{}", manifest.name);
    }
}

#[test]
fn the_gateways_replicas_share_their_records_and_differ_in_nothing_else() {
    let gateway = Manifest::read("deploy/gateway.yaml");
    let (_, shared) = gateway.text.split_once("  name: oncegate-redis\n").unwrap();
    let shared = Manifest { name: gateway.name.clone(), text: shared.to_owned() };
    let store = shared.config().store;
    let StoreKind::Redis(redis) = store.kind else { panic!("not shared") };
    assert!(redis.encrypt && redis.password_file.is_some());
    assert!(store.secret_file.is_some(), "without it, ids are keyed with a public key");
    assert_eq!(shared.load().warnings.iter().filter(|warning| warning.summary().contains("Redis")).count(), 0);
    let others = |manifest: &Manifest| {
        let text = manifest.embedded();
        let lines = text.lines().map(|line| line.split(" #").next().unwrap().trim_end());
        let mut inside = false;
        let others = lines.filter(|line| {
            if line.starts_with('[') {
                inside = line.starts_with("[store");
            }
            !inside && !line.is_empty() && !line.starts_with('#')
        });
        others.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(others(&shared), others(&gateway));
}

#[test]
fn the_memory_limit_is_above_what_the_configuration_may_take() {
    for manifest in manifests() {
        let config = manifest.config();
        let max_bytes = match config.store.kind {
            StoreKind::Memory { max_bytes } => max_bytes,
            StoreKind::Redis(redis) => redis.settle_backlog,
        };
        let needed = max_bytes + max_bytes / 4 + config.server.max_buffered + ROOM_TO_WORK;
        let limits = manifest.all("memory");
        let [request, limit] = &limits[..2] else { panic!("{limits:?}") };
        assert_eq!(request, limit, "{}: what is not reserved may be missing", manifest.name);
        assert!(bytes(limit) >= needed, "{}: {limit} is less than {needed} bytes", manifest.name);
    }
}

#[test]
fn the_image_is_named_by_its_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("Dockerfile").contains(&format!("org.opencontainers.image.version=\"{version}\"")));
    for manifest in manifests() {
        let images = manifest.all("image");
        assert!(images.contains(&format!("oncegate:{version}")), "{}: {images:?}", manifest.name);
        assert!(images.iter().all(|image| is_fixed(image)), "{}: {images:?}", manifest.name);
    }
}

#[test]
fn the_image_is_built_by_the_compiler_that_the_crate_asks_for() {
    let base = instruction("FROM");
    assert!(base.starts_with(&format!("rust:{}.", env!("CARGO_PKG_RUST_VERSION"))), "{base}");
    assert!(is_fixed(base.split(' ').next().unwrap()), "{base}");
}

#[test]
fn the_image_holds_the_program_alone() {
    let text = read("Dockerfile");
    let (_, last) = text.rsplit_once("\nFROM ").unwrap();
    assert!(last.starts_with("scratch\n"), "{last}");
    assert!(!last.contains("\nRUN "), "{last}");
    assert_eq!(instruction("STOPSIGNAL"), "SIGTERM");
    assert_eq!(instruction("ENTRYPOINT"), "[\"/oncegate\"]");
}

#[test]
fn the_process_has_no_rights_that_it_does_not_need() {
    let user = instruction("USER");
    let (user, group) = user.split_once(':').unwrap();
    for manifest in manifests() {
        assert_eq!(manifest.all("runAsUser"), [user], "{}", manifest.name);
        assert_eq!(manifest.all("runAsGroup"), [group], "{}", manifest.name);
        assert_eq!(manifest.all("runAsNonRoot"), ["true"], "{}", manifest.name);
        assert_eq!(manifest.all("readOnlyRootFilesystem"), ["true"], "{}", manifest.name);
        let containers = manifest.all("image").len();
        assert_eq!(manifest.all("allowPrivilegeEscalation"), vec!["false"; containers], "{}", manifest.name);
        assert_eq!(manifest.all("drop"), vec!["[\"ALL\"]"; containers], "{}", manifest.name);
        assert!(manifest.text.contains("seccompProfile:\n          type: RuntimeDefault\n"), "{}", manifest.name);
    }
}

#[test]
fn a_reload_sees_a_changed_configuration() {
    for manifest in manifests() {
        assert_eq!(manifest.all("subPath"), [""; 0], "{}: a file mounted so never changes", manifest.name);
        assert!(manifest.all("mountPath").contains(&"/etc/oncegate".to_owned()), "{}", manifest.name);
        assert_eq!(manifest.all("args"), ["[\"run\", \"-c\", \"/etc/oncegate/oncegate.toml\"]"], "{}", manifest.name);
    }
}

#[test]
fn no_secret_is_in_a_manifest() {
    for manifest in manifests() {
        assert!(!manifest.all("kind").contains(&"Secret".to_owned()), "{}", manifest.name);
    }
}

#[test]
fn the_token_comes_from_a_secret_that_the_manifest_says_how_to_make() {
    for manifest in manifests() {
        let token = manifest.config().admin.token_file.unwrap();
        let mount = token.parent().unwrap().to_str().unwrap().to_owned();
        assert!(manifest.all("mountPath").contains(&mount), "{}: {mount}", manifest.name);
        let secret = &manifest.all("secretName")[0];
        let make = format!("kubectl create secret generic {secret} --from-literal=token=");
        assert!(manifest.text.contains(&make), "{}: {make}", manifest.name);
        assert!(manifest.all("fsGroup").contains(&"65532".to_owned()), "{}: it cannot be read", manifest.name);
    }
}

#[test]
fn the_pages_say_how_to_ask_the_binary_of_each_manifests_pod() {
    let binary = instruction("ENTRYPOINT").trim_matches(['[', '"', ']']).to_owned();
    let page = read("docs/deployment.md").replace("\\\n  ", "");
    for manifest in manifests() {
        let (_, deployment) = manifest.text.split_once("\nkind: Deployment\n").unwrap();
        let name = deployment.lines().find_map(|line| line.strip_prefix("  name: ")).unwrap();
        let ask = format!(
            "kubectl exec deploy/{name} -c oncegate -- {binary} records list --state unknown -c /etc/oncegate/oncegate.toml"
        );
        assert!(page.contains(&ask), "{}: {ask}", manifest.name);
        assert!(manifest.all("name").contains(&"oncegate".to_owned()), "{}: no such container", manifest.name);
    }
}

#[test]
fn kubernetes_knows_every_field() {
    let files = manifests().into_iter().map(|manifest| manifest.name);
    lint("kubernetes-validate", ["--strict".to_owned()].into_iter().chain(files));
}

#[test]
fn the_dockerfile_has_no_warnings() {
    lint("hadolint", ["Dockerfile".to_owned()]);
}

/// A manifest of Kubernetes, as text.
struct Manifest {
    name: String,
    text: String,
}

fn manifests() -> Vec<Manifest> {
    let files = fs::read_dir(root().join("deploy")).unwrap().map(|entry| entry.unwrap().file_name());
    let manifests: Vec<_> = files.map(|file| Manifest::read(&format!("deploy/{}", file.to_str().unwrap()))).collect();
    assert!(manifests.len() >= 2, "the manifests are in deploy/");
    manifests
}

impl Manifest {
    fn read(name: &str) -> Self {
        Self { name: name.to_owned(), text: read(name) }
    }

    /// The configuration in its ConfigMap.
    fn embedded(&self) -> String {
        let (_, after) = self.text.split_once("\n  oncegate.toml: |\n").unwrap();
        let lines = after.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
        lines.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
    }

    fn load(&self) -> Loaded {
        let loaded = config::parse("/etc/oncegate/oncegate.toml", &self.embedded(), &Overrides::default(), &|_| None);
        loaded.unwrap_or_else(|errors| panic!("{}: {errors}", self.name))
    }

    fn config(&self) -> Config {
        self.load().config
    }

    /// What stands after this key, wherever it stands, in order.
    fn all(&self, key: &str) -> Vec<String> {
        let lines = self.text.lines().map(|line| line.trim_start().trim_start_matches("- "));
        let values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        values.map(|value| value.trim_matches('"').to_owned()).collect()
    }

    /// What stands after this key, which stands once.
    fn number(&self, key: &str) -> u64 {
        let values = self.all(key);
        let [value] = &values[..] else { panic!("{}: {key}: {values:?}", self.name) };
        value.parse().unwrap()
    }

    /// The names of Oncegate's own ports: for requests, and for operators.
    fn port_names(&self) -> [String; 2] {
        let (before, _) = self.text.split_once("startupProbe:").unwrap();
        let (_, ports) = before.rsplit_once(" ports:\n").unwrap();
        let names = ports.lines().filter_map(|line| line.trim_start().strip_prefix("- name: "));
        names.map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
    }
}

/// What the first instruction of this kind in the `Dockerfile` says.
fn instruction(name: &str) -> String {
    let text = read("Dockerfile");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// Whether the tag says one version.
fn is_fixed(image: &str) -> bool {
    image.rsplit_once(':').is_some_and(|(_, tag)| tag.starts_with(|c: char| c.is_ascii_digit()))
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Tcp(address) => address.port(),
        Address::Unix(path) => panic!("{}", path.display()),
    }
}

/// Bytes of `512Mi` or `1Gi`.
fn bytes(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.len() - 2);
    let shift = match unit {
        "Mi" => 20,
        "Gi" => 30,
        other => panic!("{other}"),
    };
    number.parse::<u64>().unwrap() << shift
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Runs a linter that finds nothing; one that is not installed is left out.
fn lint(program: &str, arguments: impl IntoIterator<Item = String>) {
    match Command::new(program).args(arguments).current_dir(root()).output() {
        Ok(output) => assert!(output.status.success(), "{program}: {output:?}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => eprintln!("skipped: {program} is not installed"),
        Err(error) => panic!("{program}: {error}"),
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
