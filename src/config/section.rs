//! Walks a parsed file, table by table, and collects every error on the way instead of stopping at the first.
//!
//! A key that is wrong reads as if it were not there; since the file is refused then, no value made up for it is used.

mod expand;
mod hints;

use std::{cell::RefCell, ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    diagnostic::{Diagnostic, Source},
    reference::Table,
    value::Wrong,
    words::{Words, words},
};

/// Where in the text something stands, in bytes.
pub(crate) type Span = Range<usize>;

/// What every table of one file shares.
pub(crate) struct Reader<'a> {
    pub(crate) source: Arc<Source>,
    env: &'a dyn Fn(&str) -> Option<String>,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: Arc<Source>, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { source, env, found: RefCell::default() }
    }

    /// Notes an error or a warning.
    pub(crate) fn push(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    /// Notes an error at a place in the file.
    pub(crate) fn error(&self, span: &Span, message: impl Into<String>, label: &str, help: impl Into<String>) {
        let error = Diagnostic::error(message).at(&self.source, span.clone()).help(help);
        self.push(if label.is_empty() { error } else { error.label(label) });
    }

    /// Notes a warning at a place in the file.
    pub(crate) fn warn(&self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Diagnostic::warning(message).at(&self.source, span.clone()).help(help));
    }

    /// Everything noted, in the order found.
    pub(crate) fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Spot<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// One table of the file.
pub(crate) struct Section<'r, 't> {
    pub(crate) reader: &'r Reader<'r>,
    /// How it is shown: `[server]`, `[upstreams.payments]`.
    pub(crate) title: String,
    /// Its header, or the whole of an inline table.
    pub(crate) span: Span,
    tables: &'static [Table],
    entries: &'t DeTable<'t>,
}

/// One key of a table with its value.
pub(crate) struct Entry<'t> {
    pub(crate) key: &'t str,
    pub(crate) key_span: Span,
    pub(crate) value: &'t Spanned<DeValue<'t>>,
}

impl<'r, 't> Section<'r, 't> {
    /// Begins to read a table that may hold the keys of `tables`; every other key in it is an error.
    pub(crate) fn new(
        reader: &'r Reader<'r>,
        title: impl Into<String>,
        tables: &'static [Table],
        span: Span,
        entries: &'t DeTable<'t>,
    ) -> Self {
        let section = Self { reader, title: title.into(), span, tables, entries };
        for entry in section.entries() {
            if !tables.iter().flat_map(|table| table.keys()).any(|doc| doc.key == entry.key) {
                section.unknown(&entry);
            }
        }
        section
    }

    /// Every key with its value.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'t>> + use<'t> {
        self.entries.iter().map(|(key, value)| Entry { key: key.get_ref(), key_span: key.span(), value })
    }

    fn unknown(&self, entry: &Entry<'_>) {
        let Entry { key, key_span, value } = entry;
        let (label, help) = hints::suggest(key, hints::holds_table(value.get_ref()), self.tables, &self.title);
        self.reader.error(key_span, format!("unknown key `{}` in {}", key.escape_debug(), self.title), &label, help);
    }

    /// The key's value, if it is there.
    pub(crate) fn get(&self, key: &'static str) -> Option<Entry<'t>> {
        debug_assert!(
            self.tables.iter().flat_map(|table| table.keys()).any(|doc| doc.key == key),
            "{key} is missing from the reference of {}",
            self.title
        );
        self.entries().find(|entry| entry.key == key)
    }

    /// Where the key stands, for errors about it; the table's header where it is left out.
    pub(crate) fn place(&self, key: &'static str) -> Span {
        self.get(key).map_or_else(|| self.span.clone(), |entry| entry.value.span())
    }

    fn wrong_type(&self, entry: &Entry<'_>, value: &Spanned<DeValue<'_>>, expected: &str, help: &str) {
        let message = format!("`{}` takes {expected}, not {}", entry.key, hints::type_name(value.get_ref()));
        self.reader.error(&value.span(), message, "", help);
    }

    /// Reads a text, given in quotes.
    pub(crate) fn read<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<Spot<T>> {
        let entry = self.get(key)?;
        let (expected, help) = hints::expected(key, self.tables);
        self.text(&entry, entry.value, expected, &help, parse)
    }

    fn text<T>(
        &self,
        entry: &Entry<'_>,
        value: &Spanned<DeValue<'_>>,
        expected: &str,
        help: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Spot<T>> {
        let span = value.span();
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(entry, value, expected, help);
            return None;
        };
        let text = self.reader.expand(text, &span)?;
        match parse(&text) {
            Ok(value) => Some(Spot { value, span }),
            Err(Wrong { message, help }) => {
                self.reader.error(&span, format!("`{}`: {message}", entry.key), "", help);
                None
            }
        }
    }

    /// Reads one of the words of `W`.
    pub(crate) fn choice<W: Words>(&self, key: &'static str) -> Option<Spot<W>> {
        self.read(key, |text| {
            let found = W::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
            found.ok_or_else(|| hints::choice(&words::<W>(), text))
        })
    }

    /// Reads a whole number within the bounds of the reference; from the environment it comes as text.
    pub(crate) fn integer(&self, key: &'static str) -> Option<Spot<u64>> {
        let entry = self.get(key)?;
        let (min, max) = hints::bounds(key, self.tables);
        let help = format!("say a whole number {}", hints::between(min, max));
        let span = entry.value.span();
        let number = match entry.value.get_ref() {
            DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix()).ok(),
            DeValue::String(text) if text.contains("${") => self.reader.expand(text, &span)?.parse().ok(),
            DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                self.wrong_type(&entry, entry.value, "a whole number", &help);
                return None;
            }
        };
        match number.and_then(|number| u64::try_from(number).ok()).filter(|number| (min..=max).contains(number)) {
            Some(value) => Some(Spot { value, span }),
            None => {
                self.reader.error(&span, format!("`{key}` is out of range"), "", help);
                None
            }
        }
    }

    /// Reads `true` or `false`; from the environment it comes as text.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<Spot<bool>> {
        let entry = self.get(key)?;
        let span = entry.value.span();
        let value = match entry.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(text) if text.contains("${") => self.reader.expand(text, &span)?.parse().ok(),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        if value.is_none() {
            self.wrong_type(&entry, entry.value, "true or false", "say true or false, without quotes");
        }
        value.map(|value| Spot { value, span })
    }

    /// Reads a list of texts. Every wrong element is an error of its own.
    pub(crate) fn list<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Spot<Vec<Spot<T>>>> {
        let Spot { value, span } = self.elements(key, parse)?;
        Some(Spot { value: value.into_iter().collect::<Option<_>>()?, span })
    }

    /// The same with the wrong elements in their places, as `None`, for what can be said of the others all the same.
    pub(crate) fn elements<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Spot<Vec<Option<Spot<T>>>>> {
        let entry = self.get(key)?;
        let (expected, help) = hints::expected(key, self.tables);
        let DeValue::Array(items) = entry.value.get_ref() else {
            self.wrong_type(&entry, entry.value, expected, &help);
            return None;
        };
        let value = items.iter().map(|item| self.text(&entry, item, "texts", &help, &parse)).collect();
        Some(Spot { value, span: entry.value.span() })
    }

    /// Reads a list of statuses, each a number or a text.
    pub(crate) fn statuses<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Spot<Vec<Spot<T>>>> {
        let entry = self.get(key)?;
        let (expected, help) = hints::expected(key, self.tables);
        let DeValue::Array(items) = entry.value.get_ref() else {
            self.wrong_type(&entry, entry.value, expected, &help);
            return None;
        };
        let read: Vec<_> = items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Integer(number) => match parse(&number.to_string()) {
                    Ok(value) => Some(Spot { value, span: item.span() }),
                    Err(Wrong { message, help }) => {
                        self.reader.error(&item.span(), format!("`{key}`: {message}"), "", help);
                        None
                    }
                },
                DeValue::String(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => self.text(&entry, item, "statuses", &help, &parse),
            })
            .collect();
        let value = read.into_iter().collect::<Option<_>>()?;
        Some(Spot { value, span: entry.value.span() })
    }

    /// Whether the key's value is a text, as against a list.
    pub(crate) fn is_text(&self, key: &'static str) -> bool {
        self.get(key).is_some_and(|entry| matches!(entry.value.get_ref(), DeValue::String(_)))
    }

    /// Reads a table that stands under a key of this one.
    pub(crate) fn table(&self, key: &'static str, tables: &'static [Table], title: impl Into<String>) -> Option<Self> {
        let (entry, title) = (self.get(key)?, title.into());
        let help = format!("write its keys below {title}");
        self.table_or(&entry, tables, title, &help)
    }

    /// The table that an entry holds; `help` is the remedy where it holds something else.
    pub(crate) fn table_or(
        &self,
        entry: &Entry<'t>,
        tables: &'static [Table],
        title: impl Into<String>,
        help: &str,
    ) -> Option<Self> {
        match entry.value.get_ref() {
            DeValue::Table(entries) => Some(Section::new(self.reader, title, tables, entry.value.span(), entries)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                self.wrong_type(entry, entry.value, "a table", help);
                None
            }
        }
    }

    /// The entries of a table whose keys are names.
    pub(crate) fn named_tables(&self, entry: &Entry<'t>) -> Option<Vec<Entry<'t>>> {
        let DeValue::Table(entries) = entry.value.get_ref() else {
            self.wrong_type(entry, entry.value, "tables", "give each a name: [upstreams.payments]");
            return None;
        };
        let named = |(key, value): (&'t Spanned<DeString<'t>>, &'t Spanned<DeValue<'t>>)| Entry {
            key: key.get_ref(),
            key_span: key.span(),
            value,
        };
        Some(entries.iter().map(named).collect())
    }

    /// Reads a list of tables: `[[routes]]`.
    pub(crate) fn tables(&self, key: &'static str, tables: &'static [Table]) -> Vec<Self> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        let help = format!("begin each with its own header: [[{key}]]");
        let DeValue::Array(items) = entry.value.get_ref() else {
            self.reader.error(&entry.key_span, format!("`{key}` is a list of tables"), "", help);
            return Vec::new();
        };
        let section = |item: &'t Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::Table(entries) => {
                Some(Section::new(self.reader, format!("[[{key}]]"), tables, item.span(), entries))
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                self.wrong_type(&entry, item, "tables", &help);
                None
            }
        };
        items.iter().filter_map(section).collect()
    }
}
