//! Every configuration that the documentation shows passes `check`, and guards what it seems to guard.

use oncegate::{
    config::{
        self, Config, Overrides,
        settled::{HostPattern, PathPattern, Segment},
    },
    proxy::routes::Routes,
    rule::policy::OnDuplicate,
};

use super::page::Page;

/// What a fragment leaves out: an upstream, and whose keys they are.
const UPSTREAM: &str = "[upstreams.api]\nurl = \"http://127.0.0.1:9000\"\n";
const SCOPE: &str = "[defaults]\nscope = [\"header:authorization\"]\n";

#[test]
fn every_configuration_passes_check() {
    let seen = each_configuration(|_, _| ());
    assert!(seen > 10, "only {seen} configurations were found");
}

/// `/orders/{*rest}` is not for `/orders`: whoever copies it without a word on that guards everything but what makes an
/// order.
#[test]
fn what_stands_before_a_rest_looks_for_the_same_key() {
    each_configuration(|place, config| {
        let routes = Routes::new(config);
        for route in &config.routes {
            let PathPattern { text, segments } = &route.path;
            let (HostPattern::Any, [.., _, Segment::Rest(_)]) = (&route.host, &segments[..]) else { continue };
            let before = text.rsplit_once('/').unwrap().0;
            let meets = routes.find("", before, &http::Method::POST).map(|route| &route.policy.key);
            assert_eq!(meets, Some(&route.policy.key), "{place}: {text}, and POST {before}");
        }
    });
}

/// A failed delivery that is recorded as the outcome would be acknowledged when it comes again, and so be lost.
#[test]
fn what_acknowledges_duplicates_lets_failed_ones_run_again() {
    let mut seen = 0;
    each_configuration(|place, config| {
        for route in config.routes.iter().filter(|route| route.policy.on_duplicate == OnDuplicate::Ack) {
            assert!(route.policy.release_on.holds(500, false), "{place}: {}", route.name);
            seen += 1;
        }
    });
    assert!(seen >= 4, "only {seen} such routes were found");
}

/// Calls `look` with each configuration of the documentation and of `config/`, and says how many there are.
fn each_configuration(mut look: impl FnMut(&str, &Config)) -> usize {
    let mut seen = 0;
    let files = std::fs::read_dir("config").unwrap().map(|file| {
        let path = file.unwrap().path();
        (path.display().to_string(), std::fs::read_to_string(path).unwrap())
    });
    for (place, text) in files {
        let loaded = config::parse(&place, &text, &Overrides::default(), &|name| Some(name.to_lowercase())).unwrap();
        look(&place, &loaded.config);
    }
    for page in Page::all() {
        for block in page.blocks().iter().filter(|block| block.is("toml")) {
            let mut text = page.text[block.place.clone()].to_owned();
            if block.has("fragment") {
                text = complete(&text);
            }
            let env = |name: &str| Some(name.to_lowercase());
            match config::parse("block.toml", &text, &Overrides::default(), &env) {
                Ok(loaded) => look(&page.name, &loaded.config),
                Err(errors) => panic!("{}:\n{errors}\n{text}", page.name),
            }
            seen += 1;
        }
    }
    seen
}

/// A fragment with what it leaves out.
fn complete(fragment: &str) -> String {
    let has = |table: &str| fragment.contains(table);
    let lacks = |text: &'static str, is_there: bool| if is_there { "" } else { text };
    let upstream = lacks(UPSTREAM, has("[upstreams."));
    let scope = lacks(SCOPE, has("[defaults]"));
    // Keys without a table are policy.
    if fragment.trim_start().starts_with('[') || fragment.trim_start().starts_with('#') {
        format!("{upstream}{scope}{fragment}")
    } else {
        let scope = lacks("scope = [\"header:authorization\"]\n", fragment.contains("scope ="));
        format!("{upstream}[defaults]\n{scope}{fragment}")
    }
}
