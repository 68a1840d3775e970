//! `oncegate demo`: a payments API that loses a third of its answers, with and without Oncegate before it.
//!
//! Thirty customers pay one charge each, first directly, then through a real Oncegate in this process. The API, its luck
//! and the client are the same both times: all luck is drawn from `--seed`, by customer and by how often that customer
//! was charged, so the table can be had again.

mod api;
mod client;
mod front;
mod report;

use std::{io, net::SocketAddr, process::ExitCode, time::Duration};

use tokio::task::JoinSet;

use self::{
    api::Api,
    client::{Payment, Receipt},
    front::Front,
    report::{Progress, Tally},
};
use super::{Exit, Failure, put, say};
use crate::clock;

/// Arguments of `oncegate demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What all luck is drawn from: the same seed gives the same table
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Leave the proxy and the API up afterwards, and print curl lines to try
    #[arg(long)]
    keep_running: bool,
}

const PAYMENTS: usize = 30;
/// Between two customers.
const PACE: Duration = Duration::from_millis(50);

/// Luck that can be had again: a number for each question, drawn from the seed.
#[derive(Debug, Clone, Copy)]
struct Luck {
    seed: u64,
}

impl Luck {
    fn draw(self, what: &str, who: &str, nth: usize) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_be_bytes()).update(what.as_bytes()).update(b"\0");
        hasher.update(who.as_bytes()).update(b"\0").update(&nth.to_be_bytes());
        let mut number = [0; 8];
        hasher.finalize_xof().fill(&mut number);
        u64::from_be_bytes(number)
    }
}

/// Runs the demo; exits 1 if Oncegate let a double charge through, or a payment fall by the wayside.
pub fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return no_start(&error).report(),
    };
    match runtime.block_on(demo(args)) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

fn no_start(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Unavailable,
        "the demo cannot start",
        error.to_string(),
        "free a port on 127.0.0.1 and try again",
    )
}

async fn demo(args: &Args) -> Result<Exit, Failure> {
    let luck = Luck { seed: args.seed };
    say(format_args!(
        "A payments API charges, then loses a third of its answers. {PAYMENTS} customers pay\n\
         once each; their client retries up to 3 times with the same Idempotency-Key.\n\
         . charged once   2 charged twice   l settled late   ? no answer\n"
    ));

    let start_api = || async move { Api::start(luck).await.map_err(|error| no_start(&error)) };
    let api = start_api().await?;
    let direct = half("without Oncegate", &api, api.address, luck).await;
    drop(api);

    let api = start_api().await?;
    let front = Front::start(api.address).await?;
    let through = half("with Oncegate", &api, front.address, luck).await;

    let mut shown = put(format_args!("\n{}", report::table(PAYMENTS, args.seed, &direct, &through)));
    if args.keep_running && shown.is_ok() {
        let to_try = report::to_try(api.address, front.address, front.admin(), front.token_file());
        shown = put(format_args!("\n{to_try}"));
        // Without signals it can only be killed; waiting for ever is then as good.
        let _ = tokio::signal::ctrl_c().await;
    }
    front.stop().await;
    shown?;
    Ok(if through.is_sound(PAYMENTS) { Exit::Ok } else { Exit::Failure })
}

/// All customers pay, at an even pace; each is a client of its own.
async fn half(title: &str, api: &Api, server: SocketAddr, luck: Luck) -> Tally {
    let begun = clock::now();
    let progress = Progress::begin(title);
    let mut clients = JoinSet::new();
    for (nth, payment) in payments(luck).into_iter().enumerate() {
        clients.spawn(async move {
            tokio::time::sleep(PACE * u32::try_from(nth).expect("a few payments")).await;
            let receipt = client::pay(server, &payment, luck).await;
            (payment, receipt)
        });
    }
    let mut ends: Vec<(Payment, Receipt)> = Vec::with_capacity(PAYMENTS);
    while let Some(end) = clients.join_next().await {
        let (payment, receipt) = end.expect("a client does not panic");
        progress.ended(receipt, api.books().charges.get(&payment.customer).map_or(0, Vec::len));
        ends.push((payment, receipt));
    }
    progress.end(begun.elapsed());
    Tally::of(&ends, &api.books())
}

/// One payment for each customer, of 5.00 to 204.99.
fn payments(luck: Luck) -> Vec<Payment> {
    (1..=PAYMENTS)
        .map(|nth| {
            let customer = format!("customer-{nth:02}");
            let cents = 500 + luck.draw("amount", &customer, 0) % 20_000;
            let key = format!("{:016x}{:016x}", luck.draw("key", &customer, 0), luck.draw("key", &customer, 1));
            Payment { customer, cents, key }
        })
        .collect()
}
