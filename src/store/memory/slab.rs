//! Entries by number, and lists of them that run through the entries themselves.
//!
//! An entry keeps its number for as long as it lives: lists and pages of records rely on that.

use super::entry::Entry;

/// Names a place in the slab. Never `u32::MAX`, so that a link takes four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Index(std::num::NonZeroU32);

impl Index {
    /// The place with this number, counted from 0.
    pub(super) fn new(number: usize) -> Self {
        let number = u32::try_from(number + 1).expect("a shard holds fewer than 2^32 records");
        Self(std::num::NonZeroU32::new(number).expect("one more than a count is not zero"))
    }

    /// Its number, counted from 0.
    pub(super) fn number(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// An entry's neighbours in a list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Links {
    prev: Option<Index>,
    next: Option<Index>,
}

/// A doubly linked list of entries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    head: Option<Index>,
    tail: Option<Index>,
}

impl List {
    pub(super) fn head(self) -> Option<Index> {
        self.head
    }
}

/// Which of its two links an entry is listed by.
#[derive(Clone, Copy)]
pub(super) enum Chain {
    /// By its next deadline.
    Due,
    /// Among the settled, or among the unknown.
    Order,
}

/// Entries by number.
#[derive(Default)]
pub(super) struct Slab {
    slots: Vec<Option<Box<Entry>>>,
    free: Vec<Index>,
}

impl Slab {
    pub(super) fn get(&self, index: Index) -> &Entry {
        self.slots[index.number()].as_deref().expect("an index is held only while its entry lives")
    }

    pub(super) fn get_mut(&mut self, index: Index) -> &mut Entry {
        self.slots[index.number()].as_deref_mut().expect("an index is held only while its entry lives")
    }

    pub(super) fn insert(&mut self, entry: Box<Entry>) -> Index {
        if let Some(index) = self.free.pop() {
            self.slots[index.number()] = Some(entry);
            return index;
        }
        self.slots.push(Some(entry));
        Index::new(self.slots.len() - 1)
    }

    pub(super) fn remove(&mut self, index: Index) -> Box<Entry> {
        let entry = self.slots[index.number()].take().expect("an index is held only while its entry lives");
        self.free.push(index);
        if self.free.len() == self.slots.len() {
            *self = Self::default();
        }
        entry
    }

    /// Bytes it takes beside the entries.
    pub(super) fn bytes(&self) -> u64 {
        (self.slots.capacity() * size_of::<Option<Box<Entry>>>() + self.free.capacity() * size_of::<Index>()) as u64
    }

    /// Bytes that one more entry would add, beside itself.
    pub(super) fn growth(&self) -> u64 {
        let is_full = self.free.is_empty() && self.slots.len() == self.slots.capacity();
        if is_full { (self.slots.capacity().max(4) * size_of::<Option<Box<Entry>>>()) as u64 } else { 0 }
    }

    /// The entries whose numbers are in this range; the end of the slab is reached where `None` comes.
    pub(super) fn range(&self, from: usize, to: usize) -> Option<impl Iterator<Item = (Index, &Entry)>> {
        let slots = self.slots.get(from..)?;
        (!slots.is_empty()).then(|| {
            let named = slots.iter().take(to - from).enumerate();
            named.filter_map(move |(at, slot)| slot.as_deref().map(|entry| (Index::new(from + at), entry)))
        })
    }

    fn links(&mut self, chain: Chain, index: Index) -> &mut Links {
        let entry = self.get_mut(index);
        match chain {
            Chain::Due => &mut entry.due,
            Chain::Order => &mut entry.order,
        }
    }

    pub(super) fn next(&self, chain: Chain, index: Index) -> Option<Index> {
        match chain {
            Chain::Due => self.get(index).due.next,
            Chain::Order => self.get(index).order.next,
        }
    }

    /// Adds an entry at a list's end.
    pub(super) fn append(&mut self, chain: Chain, list: &mut List, index: Index) {
        *self.links(chain, index) = Links { prev: list.tail, next: None };
        match list.tail {
            Some(tail) => self.links(chain, tail).next = Some(index),
            None => list.head = Some(index),
        }
        list.tail = Some(index);
    }

    /// Takes an entry out of the list that it is in.
    pub(super) fn unlink(&mut self, chain: Chain, list: &mut List, index: Index) {
        let Links { prev, next } = std::mem::take(self.links(chain, index));
        match prev {
            Some(prev) => self.links(chain, prev).next = next,
            None => list.head = next,
        }
        match next {
            Some(next) => self.links(chain, next).prev = prev,
            None => list.tail = prev,
        }
    }
}
