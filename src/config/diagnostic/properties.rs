//! What holds of a configuration whatever its text.

use super::{Diagnostic, Errors};
use crate::config::{Overrides, identity_changes, needs_restart, parse, show};

/// A text is a configuration, or is refused with errors that lie in it and can be shown; nothing else.
pub(crate) fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let nine = |name: &str| (name == "NINE").then(|| "9".to_owned());
    match parse("oncegate.toml", text, &Overrides::default(), &nine) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| can_be_shown(warning, text));
            let config = &loaded.config;
            assert!(identity_changes(config, config).is_empty() && needs_restart(config, config).is_empty());
            assert!(show(config).is_object());
        }
        Err(errors) => errors_hold(&errors, text),
    }
}

fn errors_hold(errors: &Errors, text: &str) {
    assert!(errors.iter().next().is_some(), "refused without a reason");
    errors.iter().for_each(|error| can_be_shown(error, text));
    assert!(errors.iter().map(Diagnostic::offset).is_sorted(), "not in the order of the file");
    assert_eq!(errors.to_json().as_array().map(Vec::len), Some(errors.iter().count()));
    assert!(may_be_printed(&errors.render(false)), "{errors:?}");
}

/// Nothing that the file says commands a terminal.
fn may_be_printed(rendered: &str) -> bool {
    !rendered.is_empty() && !rendered.contains(|c: char| c.is_control() && c != '\n')
}

/// Its place lies in the text, between characters, and every way of showing it has its message.
fn can_be_shown(diagnostic: &Diagnostic, text: &str) {
    if let Some((source, span)) = &diagnostic.place {
        assert_eq!(source.text.len(), text.len(), "what is blotted out is as long as before");
        assert!(text.get(span.clone()).is_some(), "{span:?} is no part of the text: {diagnostic:?}");
        let (line, column) = source.position(span.start);
        let shown = text.split('\n').nth(line - 1).expect("the line exists");
        assert!(column <= shown.chars().count() + 1, "column {column} of {shown:?}");
    }
    assert!(!diagnostic.render(true).is_empty());
    let summary = diagnostic.summary();
    assert!(
        !summary.contains(char::is_control) && summary.contains(&diagnostic.message.replace('\n', " ")),
        "{summary}"
    );
    assert_eq!(diagnostic.to_json()["message"], diagnostic.message());
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::config::reference;

    /// Texts that look like a configuration more often than not.
    fn almost_configurations() -> impl Strategy<Value = String> {
        let tables = [
            "[server]",
            "[admin]",
            "[log]",
            "[store]",
            "[store.redis]",
            "[store.memory]",
            "[upstreams.api]",
            "[defaults]",
            "[[routes]]",
            "[routes]",
            "[server.tls]",
            "[upstreams.é]",
            "[upstreams.\"a\\nb\"]",
            "[upstreams.\"\\u001B[1m\"]",
            "[",
            "",
        ];
        let values = [
            "\"1s\"",
            "\"1KiB\"",
            "1",
            "-1",
            "true",
            "[]",
            "[\"header:x\"]",
            "\"${NINE}\"",
            "\"${X\"",
            "{}",
            "{ a = 1 }",
            "\"http://u:p@h:1\"",
            "\"/a/{b}/{*c}\"",
            "\"é\"",
            "'''\n\n'''",
            "\"redis\"",
            "[401, \"503+retry-after\"]",
            "\"json:/a+query:b\"",
            "2026-01-01",
            "0x_",
            "\"\\u00e9",
            "",
        ];
        let keys: Vec<_> = reference().iter().map(|doc| doc.key.to_owned()).collect();
        let key = prop_oneof![4 => select(keys), 1 => "[a-z_.\"é]{0,6}"];
        let line = (key, select(values.to_vec())).prop_map(|(key, value)| format!("{key} = {value}"));
        let line = prop_oneof![2 => select(tables.to_vec()).prop_map(str::to_owned), 5 => line];
        vec(line, 0..9).prop_map(|lines| lines.join("\n"))
    }

    const BASE: &str = "[upstreams.api]\nurl = \"http://h\"\n[defaults]\nscope = \"shared\"\n";

    #[test]
    fn names_do_not_command_a_terminal() {
        hold("[upstreams.\"\\u001B[1m\"]\ntls = 1\n[log]\n\"\\u009b\\r\" = 1\n".as_bytes());
        hold("\"\u{9b}1m\" = 1".as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_text_is_a_configuration_or_has_errors_that_can_be_shown(text in almost_configurations()) {
            hold(text.as_bytes());
            hold(format!("{BASE}{text}").as_bytes());
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}=\"'.,#\n\r a-c0-2é\u{7f}\u{9b}\u{feff}\\\\]{0,40}") {
            hold(text.as_bytes());
        }
    }
}
