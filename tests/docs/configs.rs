//! Every configuration that the documentation shows passes `check`.

use oncegate::config::{self, Overrides};

use super::page::Page;

/// What a fragment leaves out: an upstream, and whose keys they are.
const UPSTREAM: &str = "[upstreams.api]\nurl = \"http://127.0.0.1:9000\"\n";
const SCOPE: &str = "[defaults]\nscope = [\"header:authorization\"]\n";

#[test]
fn every_configuration_passes_check() {
    let mut seen = 0;
    for page in Page::all() {
        for block in page.blocks().iter().filter(|block| block.is("toml")) {
            let mut text = page.text[block.place.clone()].to_owned();
            if block.has("fragment") {
                text = complete(&text);
            }
            let env = |name: &str| Some(name.to_lowercase());
            if let Err(errors) = config::parse("block.toml", &text, &Overrides::default(), &env) {
                panic!("{}:\n{errors}\n{text}", page.name);
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} configurations were found");
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
