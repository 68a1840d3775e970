//! A page of the documentation: its fenced blocks, its generated parts, and writing it anew.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// How what is generated is brought up to date.
pub(crate) const BLESS: &str = "ONCEGATE_BLESS=1 cargo test --test docs -- --test-threads 1";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Markdown file.
#[derive(Debug)]
pub(crate) struct Page {
    /// Below the repository's root.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// The words after the fence: the language, then what a test does with it.
    pub(crate) info: Vec<String>,
    /// Where its content stands in the page.
    pub(crate) place: Range<usize>,
}

impl Block {
    pub(crate) fn is(&self, language: &str) -> bool {
        self.info.first().is_some_and(|word| word == language)
    }

    pub(crate) fn has(&self, mark: &str) -> bool {
        self.info.iter().skip(1).any(|word| word == mark)
    }
}

impl Page {
    pub(crate) fn read(name: &str) -> Self {
        let text = fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), text }
    }

    /// Every page there is, those outside of the book too.
    pub(crate) fn all() -> Vec<Self> {
        let mut found = vec![root().join("README.md"), root().join("SECURITY.md"), root().join("CONTRIBUTING.md")];
        collect(&root().join("docs"), &mut found);
        let names = found.iter().map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        names.map(|name| Self::read(&name)).collect()
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut open, mut at) = (Vec::new(), None::<Block>, 0);
        for line in self.text.split_inclusive('\n') {
            let end = at + line.len();
            if let Some(info) = line.strip_prefix("```") {
                match open.take() {
                    Some(mut block) => {
                        block.place.end = at;
                        blocks.push(block);
                    }
                    None => {
                        open =
                            Some(Block { info: info.split_whitespace().map(str::to_owned).collect(), place: end..end });
                    }
                }
            }
            at = end;
        }
        assert!(open.is_none(), "{}: a block is not closed", self.name);
        blocks
    }

    /// The lines outside of blocks, with their numbers.
    pub(crate) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            let fence = line.starts_with("```");
            inside ^= fence;
            (!inside && !fence).then_some((index + 1, line))
        })
    }

    /// What stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->` is `expected`, or becomes it.
    pub(crate) fn generated(mut self, part: &str, expected: &str) {
        let (begin, end) = (format!("<!-- generated: {part} -->\n"), format!("<!-- end: {part} -->\n"));
        let missing = || panic!("{} has no part {begin}…{end}", self.name);
        let from = self.text.find(&begin).unwrap_or_else(missing) + begin.len();
        let to = from + self.text[from..].find(&end).unwrap_or_else(missing);
        let expected = format!("\n{}\n\n", expected.trim());
        self.expect(from..to, &expected);
        self.write();
    }

    /// That part of the page is `expected`, or becomes it.
    #[track_caller]
    pub(crate) fn expect(&mut self, place: Range<usize>, expected: &str) {
        if blessing() {
            self.text.replace_range(place, expected);
            return;
        }
        let found = &self.text[place];
        if found != expected {
            let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
            panic!(
                "{} is not what it should be; write it anew: {BLESS}\nfirst difference: {differs:#?}\n\
                 === found\n{found}\n=== expected\n{expected}",
                self.name
            );
        }
    }

    pub(crate) fn write(&self) {
        if blessing() {
            fs::write(root().join(&self.name), &self.text).unwrap();
        }
    }
}

pub(crate) fn blessing() -> bool {
    std::env::var_os("ONCEGATE_BLESS").is_some_and(|value| value == "1")
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}
