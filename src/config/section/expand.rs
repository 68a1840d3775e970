//! `${NAME}` in a value: what stands for it in the environment, or why nothing does.

use std::borrow::Cow;

use super::{Reader, Span};

impl Reader<'_> {
    /// Replaces `${NAME}` from the environment; `$${` is a literal `${`.
    pub(super) fn expand<'t>(&self, text: &'t str, span: &Span) -> Option<Cow<'t, str>> {
        if !text.contains("${") {
            return Some(Cow::Borrowed(text));
        }
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        let mut whole = true;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(literal) = before.strip_suffix('$') {
                expanded.push_str(literal);
                expanded.push_str("${");
                rest = after;
                continue;
            }
            expanded.push_str(before);
            let Some((name, tail)) = after.split_once('}') else {
                self.error(span, "`${` without its `}`", "", "say ${NAME}, or $${ for a literal ${");
                return None;
            };
            match (self.env)(name) {
                Some(value) => expanded.push_str(&value),
                None if name.is_empty() => {
                    self.error(span, "`${}` without a name", "", "say ${NAME}, or $${ for a literal ${");
                    whole = false;
                }
                None if name.contains("${") => {
                    let help = "say one name, ${NAME}: what stands for it is not looked into; $${ is a literal ${";
                    self.error(span, "`${` within `${…}`", "", help);
                    return None;
                }
                None if name.contains(':') => {
                    let name = name.split(':').next().unwrap_or_default();
                    let help = format!("set {name} where oncegate runs, and say ${{{name}}}");
                    self.error(span, format!("`${{{name}:…}}`: defaults are not supported"), "", help);
                    whole = false;
                }
                None => {
                    self.error(
                        span,
                        format!("the environment has no `{name}`"),
                        "",
                        format!("set {name} where oncegate runs, or write $${{ for a literal ${{"),
                    );
                    whole = false;
                }
            }
            rest = tail;
        }
        expanded.push_str(rest);
        whole.then_some(Cow::Owned(expanded))
    }
}
