//! What the demo shows: a mark for each payment as it ends, then both halves side by side.

use std::{collections::BTreeMap, io::Write as _, net::SocketAddr, path::Path, time::Duration};

use clap::builder::styling::{AnsiColor, Style};

use super::{
    api::{Books, Lost},
    client::{End, Payment, Receipt},
};
use crate::config::settled::Address;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const HELD: Style = AnsiColor::Yellow.on_default().bold();
const WIDTH: usize = 17;

/// Prints a mark for each payment that ends, on stderr: it is progress, not the result, and its order is that of events.
pub(super) struct Progress;

impl Progress {
    /// Begins the line of a half.
    pub(super) fn begin(title: &str) -> Self {
        let mut stderr = anstream::stderr().lock();
        let _ = write!(stderr, "{title:<WIDTH$} ").and_then(|()| stderr.flush());
        Self
    }

    /// A payment ended: charged once, more often (the figure says how often), or left without an answer.
    pub(super) fn ended(&self, receipt: Receipt, charges: usize) {
        let (style, mark) = match (charges, receipt.end) {
            (2.., _) => (BAD, char::from_digit(u32::try_from(charges.min(9)).expect("one digit"), 10).unwrap_or('9')),
            (0 | 1, End::Held | End::Nothing) => (HELD, '?'),
            (0 | 1, End::SettledLate) => (GOOD, 'l'),
            (0 | 1, End::Answered) => (GOOD, '.'),
        };
        let mut stderr = anstream::stderr().lock();
        // Progress that cannot be shown is no reason to stop.
        let _ = write!(stderr, "{style}{mark}{style:#}").and_then(|()| stderr.flush());
    }

    /// Ends the line.
    pub(super) fn end(self, took: Duration) {
        let _ = writeln!(anstream::stderr(), "  {:.1} s", took.as_secs_f64());
    }
}

/// What one half came to.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    attempts: usize,
    received: usize,
    lost: Lost,
    customers_charged: usize,
    charged_twice: usize,
    cents_too_much: u64,
    settled_late: usize,
    held: usize,
    unanswered: usize,
}

impl Tally {
    /// Whether everyone was charged, and nobody twice.
    pub(super) fn is_sound(&self, payments: usize) -> bool {
        self.customers_charged == payments && self.charged_twice == 0
    }

    /// Compares what the clients were told with what the API charged.
    pub(super) fn of(ends: &[(Payment, Receipt)], books: &Books) -> Self {
        let Books { charges, lost } = books;
        let mut tally = Self { lost: *lost, received: charges.values().map(Vec::len).sum(), ..Self::default() };
        let due: BTreeMap<_, _> = ends.iter().map(|(payment, _)| (&payment.customer, payment.cents)).collect();
        for (customer, cents) in due {
            let taken = charges.get(customer).map_or(&[][..], Vec::as_slice);
            tally.customers_charged += usize::from(!taken.is_empty());
            tally.charged_twice += usize::from(taken.len() > 1);
            tally.cents_too_much += taken.iter().sum::<u64>().saturating_sub(cents);
        }
        for (_, receipt) in ends {
            tally.attempts += receipt.attempts;
            match receipt.end {
                End::Answered => {}
                End::SettledLate => tally.settled_late += 1,
                End::Held => tally.held += 1,
                End::Nothing => tally.unanswered += 1,
            }
        }
        tally
    }
}

/// The table: one row a figure, one column a half.
pub(super) fn table(payments: usize, seed: u64, direct: &Tally, through: &Tally) -> String {
    let money = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let lost = |lost: Lost| format!("{} ({}, {}, {})", lost.total(), lost.late, lost.reset, lost.cut);
    let count = |count: usize| count.to_string();
    let mut text = format!(
        "{:<42}{:>19}{:>17}\n",
        format!("{payments} payments, seed {seed}"),
        "without Oncegate",
        "with Oncegate"
    );
    let mut row = |what: &str, [direct, through]: [String; 2], bad: [bool; 2]| {
        let paint = |cell: String, bad: bool, width: usize| {
            let style = if bad { BAD } else { Style::new() };
            format!("{style}{cell:>width$}{style:#}")
        };
        let line = format!("{what:<42}{}{}\n", paint(direct, bad[0], 19), paint(through, bad[1], 17));
        text.push_str(&line);
    };
    let of = |figure: fn(&Tally) -> usize| [figure(direct), figure(through)];
    let plain = [false, false];

    row("requests sent by the clients", of(|tally| tally.attempts).map(count), plain);
    row("answers lost (late, reset, cut)", [lost(direct.lost), lost(through.lost)], plain);
    row("charges made", of(|tally| tally.received).map(count), of(|tally| tally.received).map(|made| made > payments));
    row("customers charged", of(|tally| tally.customers_charged).map(count), plain);
    let twice = of(|tally| tally.charged_twice);
    row("customers charged twice or more", twice.map(count), twice.map(|twice| twice > 0));
    let excess = [direct.cents_too_much, through.cents_too_much];
    row("money taken too much", excess.map(money), excess.map(|cents| cents > 0));
    row("answers settled late, given to a retry", of(|tally| tally.settled_late).map(count), plain);
    row("customers told \"unknown\", held for you", of(|tally| tally.held).map(count), plain);
    row("customers left without any answer", of(|tally| tally.unanswered).map(count), plain);
    text
}

/// What to try while both stay up.
pub(super) fn to_try(api: SocketAddr, front: SocketAddr, admin: &Address, token_file: &Path) -> String {
    let token = token_file.display();
    let pay = |key: &str, more: &str| {
        format!(
            "  curl -i http://{front}/v1/charges {more}-H 'Idempotency-Key: {key}' \\\n    \
             -H 'Authorization: Bearer me' -d '{{\"customer\": \"me\", \"amount\": 1999}}'\n"
        )
    };
    format!(
        "Oncegate is at http://{front}, the API at http://{api}, until Ctrl-C.\n\n\
         Pay. Pay again, with the same key: the answer comes out of the record.\n{}\n\
         Lose the answer after charging (reset, cut, late), and try again.\n{}\n\
         See what was charged, and what Oncegate knows.\n  \
         curl http://{api}/v1/charges\n  \
         curl http://{admin}/metrics\n  \
         curl http://{admin}/records -H \"Authorization: Bearer $(cat {token})\"\n",
        pay("mine-1", ""),
        pay("mine-2", "-H 'Demo-Lose: reset' "),
    )
}
