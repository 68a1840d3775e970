//! What is wrong with a file, or worth a word: each with its place and the remedy.
//!
//! A [`Diagnostic`] owns what it needs to be shown: as rustc shows an error ([`Diagnostic::render`]), in one line for the
//! log ([`Diagnostic::summary`]), and for scripts ([`Diagnostic::to_json`]). None of them shows the user information of a
//! URL, and messages never repeat a value: it may hold a secret that came from the environment.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

/// Columns that renderings keep to where they can.
const COLUMNS: usize = 79;

/// A text that diagnostics point into: a file, or the value of a flag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    name: String,
    text: String,
}

impl Source {
    /// A text and the name it is shown under. User information of URLs is blotted out: it may hold a password.
    pub(crate) fn new(name: &str, text: &str) -> Arc<Self> {
        // Of control characters the renderer shows all but these, which some terminals obey. The dot is as long.
        let text = text.replace(|c| matches!(c, '\u{80}'..='\u{9f}'), "\u{b7}");
        Arc::new(Self { name: name.to_owned(), text: blot_user_information(&text) })
    }

    /// Line and column, both from 1, the column in characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// Replaces what stands between `://` and `@` by as many bytes of `*`, so that offsets stay true.
fn blot_user_information(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        shown.push_str(head);
        let end = tail.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '/' | ',')).unwrap_or(tail.len());
        let user = tail[..end].rfind('@').unwrap_or(0);
        shown.extend(std::iter::repeat_n('*', user));
        rest = &tail[user..];
    }
    shown.push_str(rest);
    shown
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted; an operator should know.
    Warning,
}

/// One thing that is wrong, or worth a word.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    label: Option<String>,
    help: Option<String>,
    place: Option<(Arc<Source>, Range<usize>)>,
}

/// What does not stop a configuration from being used.
pub type Warning = Diagnostic;

impl Diagnostic {
    /// An error without a place.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: harmless(message), label: None, help: None, place: None }
    }

    /// A warning without a place.
    pub(crate) fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// With these bytes of a text as its place.
    pub(crate) fn at(mut self, source: &Arc<Source>, span: Range<usize>) -> Self {
        self.place = Some((Arc::clone(source), span));
        self
    }

    /// With a word beside the caret.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(harmless(label));
        self
    }

    /// With the remedy.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(harmless(help));
        self
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The remedy.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// File, line and column, both from 1; `None` where the whole file, or no file, is meant.
    #[must_use]
    pub fn position(&self) -> Option<(&str, usize, usize)> {
        let (source, span) = self.place.as_ref()?;
        let (line, column) = source.position(span.start);
        Some((&source.name, line, column))
    }

    /// The flag whose value is wrong, where it is none of a file's.
    pub(crate) fn flag(&self) -> Option<&str> {
        self.place.as_ref().map(|(source, _)| &*source.name).filter(|name| name.starts_with("--"))
    }

    /// Everything in one line, for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut summary = String::new();
        if let Some((file, line, column)) = self.position() {
            summary.push_str(&format!("{file}:{line}:{column}: "));
        }
        summary.push_str(&self.message);
        for more in [&self.label, &self.help].into_iter().flatten() {
            summary.push_str("; ");
            summary.push_str(more);
        }
        summary.replace('\n', " ")
    }

    /// As rustc shows an error: the line itself with a caret, and the remedy.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(COLUMNS);
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        // It stands behind "warning: ".
        let title = level.primary_title(wrap(&self.message, COLUMNS - 9));
        let mut group = match &self.place {
            Some((source, span)) => {
                let annotation = AnnotationKind::Primary.span(span.clone()).label(self.label.as_deref());
                title.element(Snippet::source(&source.text).path(&source.name).annotation(annotation))
            }
            None => Group::with_title(title),
        };
        if let Some(help) = &self.help {
            // The words stand behind "   = help: ".
            group = group.element(Level::HELP.message(wrap(help, COLUMNS - 16)));
        }
        renderer.render(&[group])
    }

    /// For scripts.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "severity": match self.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "message": self.message,
        });
        if let Some((file, line, column)) = self.position() {
            value["file"] = file.into();
            value["line"] = line.into();
            value["column"] = column.into();
        }
        if let Some(label) = &self.label {
            value["label"] = label.as_str().into();
        }
        if let Some(help) = &self.help {
            value["help"] = help.as_str().into();
        }
        value
    }

    fn offset(&self) -> usize {
        self.place.as_ref().map_or(usize::MAX, |(_, span)| span.start)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// A text without control characters, which names in the file may hold and a terminal would obey. Line feeds stay.
fn harmless(text: impl Into<String>) -> String {
    let text = text.into();
    let obeyed = |c: char| c.is_control() && c != '\n';
    if text.contains(obeyed) { text.replace(obeyed, "\u{fffd}") } else { text }
}

/// Breaks a text at spaces into lines of at most `columns` columns, where it can.
pub(crate) fn wrap(text: &str, columns: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut width = 0;
    // `key = value` stays on one line.
    let text = text.replace(" = ", "\u{a0}=\u{a0}");
    for word in text.split(' ') {
        let word_width = word.width();
        if width > 0 {
            let breaks = width + 1 + word_width > columns;
            wrapped.push(if breaks { '\n' } else { ' ' });
            width = if breaks { 0 } else { width + 1 };
        }
        wrapped.push_str(word);
        width += word_width;
    }
    wrapped.replace('\u{a0}', " ")
}

/// Everything that is wrong with a configuration: never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(Vec<Diagnostic>);

impl Errors {
    /// The errors, in the order of the file. `None` when there are none.
    pub(crate) fn new(mut errors: Vec<Diagnostic>) -> Option<Self> {
        errors.sort_by_key(Diagnostic::offset);
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// The errors, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// All of them as rustc shows errors, and their number.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let mut text: String = self.0.iter().map(|error| error.render(colour) + "\n\n").collect();
        let count = self.0.len();
        text.push_str(&match count {
            1 => "1 error; the configuration is not usable".to_owned(),
            _ => format!("{count} errors; the configuration is not usable"),
        });
        text
    }

    /// For scripts: a list of objects with `severity`, `message`, `file`, `line`, `column`, `label`, `help`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.0.iter().map(Diagnostic::to_json).collect()
    }
}

impl From<Diagnostic> for Errors {
    fn from(error: Diagnostic) -> Self {
        Self(vec![error])
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Errors {}
