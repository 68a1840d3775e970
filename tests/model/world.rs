//! One cell, four requests, their owners, the upstream and an operator: every step that any of them can take.

use std::{cell::OnceCell, fmt, time::Duration};

use oncegate::rule::{
    self, Admission, Answer, Attempt, Cell, Expect, Fingerprint, Loss, OnUnknown, Policy, Record, RouteName,
    UnknownReason, Version,
    policy::{StatusMatch, StatusSet},
};

const REQUESTS: usize = 4;
const LEASE: Duration = Duration::from_secs(15);
/// The token of an answer that an operator gave.
const OPERATOR: u8 = u8::MAX;

/// What the walk may do, how often.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Of each request.
    pub(crate) fingerprints: [u8; REQUESTS],
    /// Swaps whose reply is not what came to pass.
    pub(crate) faults: u8,
    /// Processes that end in mid-work.
    pub(crate) crashes: u8,
    /// Renewals of each owner.
    pub(crate) renewals: u8,
    /// An operator's steps.
    pub(crate) operations: u8,
    pub(crate) on_unknown: OnUnknown,
    pub(crate) mutation: Option<Mutation>,
    /// Settled from the above when first asked for.
    pub(crate) policy: Settled,
}

/// The policy that the real rule is asked by; too long to be shown with a setup.
#[derive(Clone, Default)]
pub(crate) struct Settled(OnceCell<Policy>);

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// A plausible mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    FreeOnLapse,
    LeaseIsExpiry,
    IgnoreFingerprint,
    CountVersions,
    FreeOnLost,
    ReleaseOnBadGateway,
    CompleteOnBadGateway,
    RenewUnchecked,
    SettleUnchecked,
    ClaimUnchecked,
    TakeBackUnchecked,
    SendWhenUncertain,
    WaiterForwards,
    SendAgainWhenLost,
    TellBeforeSettled,
    ForgetOwnRenewal,
}

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// P-1: executed more often than once and for each time that an operator or `on_unknown = "retry"` freed it.
    Twice,
    /// P-2: two clients have different answers to one request.
    TwoAnswers,
    /// P-2: an answer of a request that was not executed.
    NeverExecuted,
    /// P-3: an answer to another request.
    WrongFingerprint,
    /// told while the record still says that the owner is at work, and nobody will settle it.
    ToldUnsettled,
    /// an owner overwrote what somebody else had written, or what was settled.
    Unfenced,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    cell: Option<Held>,
    requests: [Request; REQUESTS],
    executions: u8,
    /// Executions beyond the first that the contract allows: (b) and (c) of P-1.
    excused: u8,
    operated: bool,
    /// The answer that a client was given first.
    answer: Option<u8>,
    faults: u8,
    crashes: u8,
    operations: u8,
}

/// The record in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    version: u8,
    /// Whose claim it is or was: what the store does not know, and the fences must see to.
    holder: u8,
    fingerprint: u8,
    state: State,
    lapsed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    InFlight,
    Completed(u8),
    Unknown,
}

/// A client's request and the process that handles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Request {
    at: At,
    /// The claim, as far as its owner knows.
    version: u8,
    /// A renewal of whose fate it does not know; 0 for none.
    tried: u8,
    draws: u8,
    renewals: u8,
    /// A write that is still on its way to the store.
    late: Option<Write>,
    upstream: Upstream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// Nothing was done yet; the first step is a claim that expects no record.
    Arrived,
    Claiming(Seen),
    /// Somebody else is at work.
    Waiting,
    /// The claim's reply was lost: look again by its version.
    LookingAgain,
    /// The client was told that nothing was sent; the claim, should it be there, goes.
    TakingBack,
    Claimed,
    Sent,
    Ended(End),
    /// The client has its answer; the settlement of this version is tried until it lands.
    Troubled(End, u8),
    Gone,
}

/// [`Expect`], small and hashable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Seen {
    Absent,
    Version(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// 200
    Answered,
    /// 401, of `release_on`.
    Refused,
    /// 502, of `unknown_on`.
    BadGateway,
    Lost,
    NeverSent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Upstream {
    Idle,
    /// It has the request, and may act upon it at any time, or never.
    Holds,
    Acted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Write {
    kind: Kind,
    by: u8,
    expect: Seen,
    version: u8,
    next: Option<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Claim,
    Renew,
    Settle,
    TakeBack,
}

/// What becomes of a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The reply says what came to pass.
    Replied,
    /// `StoreError::Refused`: nothing was written, and it says so.
    Refused,
    /// `StoreError::Unknown`, and it was done.
    ReplyLost,
    /// `StoreError::Unknown`, and it never will be.
    Lost,
    /// `StoreError::Unknown`, and it will be done some time.
    Late,
}

const DELIVERIES: [Delivery; 5] =
    [Delivery::Replied, Delivery::Refused, Delivery::ReplyLost, Delivery::Lost, Delivery::Late];

/// One step of one of them; the number is the request's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Claim(usize, Delivery),
    Look(usize),
    LookAgain { request: usize, answered: bool },
    TakeBack(usize, Delivery),
    Send(usize),
    Act(usize),
    Renew(usize, Delivery),
    End(usize, End),
    Settle(usize, Delivery),
    Land(usize),
    Crash(usize),
    Lapse,
    Forget,
    Resolve,
}

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self {
            cell: None,
            requests: [Request::arrived(); REQUESTS],
            executions: 0,
            excused: 0,
            operated: false,
            answer: None,
            faults: setup.faults,
            crashes: setup.crashes,
            operations: setup.operations,
        }
    }

    /// Every step that can be taken now.
    pub(crate) fn steps(&self, setup: &Setup) -> Vec<Step> {
        let mut steps = Vec::with_capacity(32);
        for (i, request) in self.requests.iter().enumerate() {
            self.steps_of(setup, i, request, &mut steps);
        }
        if let Some(held) = self.cell {
            if held.state == State::InFlight && !held.lapsed {
                steps.push(Step::Lapse);
            }
            if self.operations > 0 {
                steps.push(Step::Forget);
                if held.reads_unknown() {
                    steps.push(Step::Resolve);
                }
            }
        }
        steps
    }

    fn steps_of(&self, setup: &Setup, i: usize, request: &Request, steps: &mut Vec<Step>) {
        let deliveries = |steps: &mut Vec<Step>, step: fn(usize, Delivery) -> Step| {
            let possible = |delivery: &Delivery| match delivery {
                Delivery::Replied => true,
                Delivery::Refused | Delivery::ReplyLost | Delivery::Lost => self.faults > 0,
                Delivery::Late => self.faults > 0 && request.late.is_none(),
            };
            steps.extend(DELIVERIES.into_iter().filter(possible).map(|delivery| step(i, delivery)));
        };
        let mut can_crash = true;
        match request.at {
            At::Arrived => {
                // Equal requests arrive in their order: any other order is the same walk under other names.
                let earlier = (0..i)
                    .find(|j| setup.fingerprints[*j] == setup.fingerprints[i] && self.requests[*j].at == At::Arrived);
                if earlier.is_none() {
                    deliveries(steps, Step::Claim);
                }
                can_crash = false;
            }
            At::Claiming(_) => {
                deliveries(steps, Step::Claim);
                can_crash = false;
            }
            At::Waiting => {
                if self.cell.is_none_or(|held| held.state != State::InFlight || held.lapsed) {
                    steps.push(Step::Look(i));
                }
                can_crash = false;
            }
            At::LookingAgain => {
                steps.push(Step::LookAgain { request: i, answered: true });
                if self.faults > 0 {
                    steps.push(Step::LookAgain { request: i, answered: false });
                }
            }
            At::TakingBack => deliveries(steps, Step::TakeBack),
            At::Claimed => steps.extend([Step::Send(i), Step::End(i, End::NeverSent)]),
            At::Sent => {
                let ends: &[End] = match request.upstream {
                    Upstream::Idle => &[End::Lost],
                    Upstream::Holds => &[End::Lost, End::BadGateway, End::Refused],
                    Upstream::Acted => &[End::Lost, End::BadGateway, End::Answered],
                };
                steps.extend(ends.iter().map(|end| Step::End(i, *end)));
                if request.renewals < setup.renewals && request.tried == 0 {
                    deliveries(steps, Step::Renew);
                }
            }
            At::Ended(_) | At::Troubled(..) => deliveries(steps, Step::Settle),
            At::Gone => can_crash = false,
        }
        if can_crash && self.crashes > 0 {
            steps.push(Step::Crash(i));
        }
        if request.upstream == Upstream::Holds {
            steps.push(Step::Act(i));
        }
        if request.late.is_some() {
            steps.push(Step::Land(i));
        }
    }

    /// The world after a step.
    pub(crate) fn after(&self, setup: &Setup, step: Step) -> Result<Self, Broken> {
        let mut world = self.clone();
        world.take(setup, step)?;
        for request in &mut world.requests {
            if request.at == At::Gone {
                let Request { late, upstream, .. } = *request;
                *request = Request { at: At::Gone, late, upstream, ..Request::arrived() };
            }
        }
        Ok(world)
    }

    fn take(&mut self, setup: &Setup, step: Step) -> Result<(), Broken> {
        match step {
            Step::Claim(i, delivery) => self.claim(setup, i, delivery),
            Step::Look(i) => {
                if setup.mutation == Some(Mutation::WaiterForwards) && self.cell.is_none() {
                    self.requests[i].at = At::Claimed;
                    return Ok(());
                }
                self.decide(setup, i, self.cell)
            }
            Step::LookAgain { request, answered } => {
                self.faults -= u8::from(!answered);
                let mine = answered && self.cell.is_some_and(|held| held.version == self.requests[request].version);
                self.requests[request].at = if mine { At::Claimed } else { At::TakingBack };
                Ok(())
            }
            Step::TakeBack(i, delivery) => {
                let expect = Seen::Version(self.requests[i].version);
                let write = Write { kind: Kind::TakeBack, by: id(i), expect, version: 0, next: None };
                if let Reply::Done | Reply::Stale(_) = self.swap(setup, write, delivery)? {
                    self.requests[i].at = At::Gone;
                }
                Ok(())
            }
            Step::Send(i) => {
                self.requests[i].at = At::Sent;
                self.requests[i].upstream = Upstream::Holds;
                Ok(())
            }
            Step::Act(i) => {
                self.requests[i].upstream = Upstream::Acted;
                self.executions += 1;
                if self.executions > 1 + self.excused { Err(Broken::Twice) } else { Ok(()) }
            }
            Step::Renew(i, delivery) => self.renew(setup, i, delivery),
            Step::End(i, end) => self.end(setup, i, end),
            Step::Settle(i, delivery) => self.settle(setup, i, delivery),
            Step::Land(i) => {
                let write = self.requests[i].late.take().expect("a step of a late write");
                self.apply(setup, write).map(|_| ())
            }
            Step::Crash(i) => {
                self.crashes -= 1;
                self.requests[i].at = At::Gone;
                Ok(())
            }
            Step::Lapse => {
                if setup.mutation == Some(Mutation::LeaseIsExpiry) {
                    self.cell = None;
                } else if let Some(held) = &mut self.cell {
                    held.lapsed = true;
                }
                Ok(())
            }
            Step::Forget => {
                self.operations -= 1;
                self.excused += 1;
                self.operated = true;
                self.cell = None;
                Ok(())
            }
            Step::Resolve => {
                self.operations -= 1;
                self.operated = true;
                if let Some(held) = &mut self.cell {
                    let version = if counts(setup) { held.version + 1 } else { 1 };
                    *held = Held { version, state: State::Completed(OPERATOR), lapsed: false, ..*held };
                }
                Ok(())
            }
        }
    }

    fn claim(&mut self, setup: &Setup, i: usize, delivery: Delivery) -> Result<(), Broken> {
        // The first claim is sent without a look: of a new key it is right.
        let expect = if let At::Claiming(expect) = self.requests[i].at { expect } else { Seen::Absent };
        let version = self.draw(setup, i, expect);
        let write = Write { kind: Kind::Claim, by: id(i), expect, version, next: Some(State::InFlight) };
        match self.swap(setup, write, delivery)? {
            Reply::Done => {
                self.requests[i].version = version;
                self.requests[i].at = At::Claimed;
            }
            Reply::Stale(cell) => {
                self.requests[i].draws -= 1;
                return self.decide(setup, i, cell);
            }
            Reply::Refused => self.requests[i].at = At::Gone,
            Reply::Unknown => {
                self.requests[i].version = version;
                let sends = setup.mutation == Some(Mutation::SendWhenUncertain);
                self.requests[i].at = if sends { At::Claimed } else { At::LookingAgain };
            }
        }
        Ok(())
    }

    /// What the request does, given what the store knows: the rule's own words.
    fn decide(&mut self, setup: &Setup, i: usize, cell: Option<Held>) -> Result<(), Broken> {
        let own = setup.fingerprints[i];
        let fingerprint = match cell {
            Some(held) if setup.mutation == Some(Mutation::IgnoreFingerprint) => held.fingerprint,
            Some(_) | None => own,
        };
        let real = cell.map(Held::cell);
        let admission = match cell {
            Some(held) if held.lapsed && setup.mutation == Some(Mutation::FreeOnLapse) => {
                Admission::Claim { expect: Expect::Version(version_of(held.version)) }
            }
            Some(_) | None => rule::admit(setup.policy(), real.as_ref(), fingerprint_of(fingerprint)),
        };
        self.requests[i].at = match admission {
            Admission::Claim { expect: Expect::Absent } => At::Claiming(Seen::Absent),
            Admission::Claim { expect: Expect::Version(version) } => At::Claiming(Seen::Version(version.0[0])),
            Admission::Busy { .. } => At::Waiting,
            Admission::Mismatch | Admission::Unknown => At::Gone,
            Admission::Replay(token) => {
                if cell.is_none_or(|held| held.fingerprint != own) {
                    return Err(Broken::WrongFingerprint);
                }
                self.tell(setup, i, *token)?;
                At::Gone
            }
        };
        Ok(())
    }

    fn renew(&mut self, setup: &Setup, i: usize, delivery: Delivery) -> Result<(), Broken> {
        let expect = Seen::Version(self.requests[i].version);
        let version = self.draw(setup, i, expect);
        self.requests[i].renewals += 1;
        let write = Write { kind: Kind::Renew, by: id(i), expect, version, next: Some(State::InFlight) };
        match self.swap(setup, write, delivery)? {
            Reply::Done => self.requests[i].version = version,
            // Fenced: the exchange goes on, and its settlement will find out in turn.
            Reply::Stale(_) | Reply::Refused => {}
            Reply::Unknown => self.requests[i].tried = version,
        }
        Ok(())
    }

    fn end(&mut self, setup: &Setup, i: usize, end: End) -> Result<(), Broken> {
        let request = &mut self.requests[i];
        if end == End::Lost && setup.mutation == Some(Mutation::SendAgainWhenLost) {
            request.upstream = Upstream::Holds;
            return Ok(());
        }
        if end == End::Refused {
            request.upstream = Upstream::Idle;
        }
        request.at = At::Ended(end);
        if setup.mutation == Some(Mutation::TellBeforeSettled) { self.tell_own(setup, i, end) } else { Ok(()) }
    }

    fn settle(&mut self, setup: &Setup, i: usize, delivery: Delivery) -> Result<(), Broken> {
        let expect = Seen::Version(self.requests[i].version);
        let (end, version, told) = if let At::Troubled(end, version) = self.requests[i].at {
            (end, version, true)
        } else if let At::Ended(end) = self.requests[i].at {
            (end, self.draw(setup, i, expect), false)
        } else {
            unreachable!("only what has ended is settled")
        };
        let next = match end {
            End::Lost if setup.mutation == Some(Mutation::FreeOnLost) => None,
            End::Answered | End::Refused | End::BadGateway | End::Lost | End::NeverSent => {
                let fingerprint = fingerprint_of(setup.fingerprints[i]);
                rule::settle(setup.policy(), fingerprint, end.attempt(id(i))).map(State::of)
            }
        };
        let write = Write { kind: Kind::Settle, by: id(i), expect, version, next };
        let reply = self.swap(setup, write, delivery)?;
        let request = &mut self.requests[i];
        let knows_its_own = setup.mutation != Some(Mutation::ForgetOwnRenewal) && request.tried != 0;
        match reply {
            Reply::Stale(Some(held)) if knows_its_own && held.version == request.tried => {
                // The renewal had landed after all; the record is still its owner's.
                request.version = request.tried;
                request.tried = 0;
                return Ok(());
            }
            Reply::Done | Reply::Stale(_) => request.at = At::Gone,
            Reply::Refused | Reply::Unknown => request.at = At::Troubled(end, version),
        }
        if told { Ok(()) } else { self.tell_own(setup, i, end) }
    }

    /// The owner's client is told how it ended.
    fn tell_own(&mut self, setup: &Setup, i: usize, end: End) -> Result<(), Broken> {
        let troubled = matches!(self.requests[i].at, At::Troubled(..));
        if !troubled && self.cell.is_some_and(|held| held.holder == id(i) && held.state == State::InFlight) {
            return Err(Broken::ToldUnsettled);
        }
        if end == End::Answered { self.tell(setup, i, id(i)) } else { Ok(()) }
    }

    /// A client is given an answer as the outcome of its request.
    fn tell(&mut self, setup: &Setup, i: usize, token: u8) -> Result<(), Broken> {
        if token != OPERATOR {
            let from = usize::from(token);
            if setup.fingerprints[from] != setup.fingerprints[i] {
                return Err(Broken::WrongFingerprint);
            }
            if self.requests[from].upstream != Upstream::Acted {
                return Err(Broken::NeverExecuted);
            }
        }
        let first = *self.answer.get_or_insert(token);
        let excused = self.excused > 0 || self.operated;
        if first != token && !excused { Err(Broken::TwoAnswers) } else { Ok(()) }
    }

    /// Names a write: drawn, so that no two writes ever have the same name.
    fn draw(&mut self, setup: &Setup, i: usize, expect: Seen) -> u8 {
        self.requests[i].draws += 1;
        match expect {
            Seen::Absent if counts(setup) => 1,
            Seen::Version(version) if counts(setup) => version + 1,
            Seen::Absent | Seen::Version(_) => 16 * (id(i) + 1) + self.requests[i].draws,
        }
    }

    fn swap(&mut self, setup: &Setup, write: Write, delivery: Delivery) -> Result<Reply, Broken> {
        self.faults -= u8::from(delivery != Delivery::Replied);
        match delivery {
            Delivery::Replied => return self.apply(setup, write),
            Delivery::Refused => return Ok(Reply::Refused),
            Delivery::ReplyLost => {
                self.apply(setup, write)?;
            }
            Delivery::Lost => {}
            Delivery::Late => self.requests[usize::from(write.by)].late = Some(write),
        }
        Ok(Reply::Unknown)
    }

    /// The store's one atomic step.
    fn apply(&mut self, setup: &Setup, write: Write) -> Result<Reply, Broken> {
        let Write { kind, by, expect, version, next } = write;
        if next.is_some() && self.cell.is_some_and(|held| held.version == version && held.holder == by) {
            return Ok(Reply::Done);
        }
        let unchecked = setup.mutation
            == Some(match kind {
                Kind::Claim => Mutation::ClaimUnchecked,
                Kind::Renew => Mutation::RenewUnchecked,
                Kind::Settle => Mutation::SettleUnchecked,
                Kind::TakeBack => Mutation::TakeBackUnchecked,
            });
        let found = match (expect, self.cell) {
            (Seen::Absent, None) => true,
            (Seen::Version(expected), Some(held)) => held.version == expected,
            (Seen::Absent, Some(_)) | (Seen::Version(_), None) => false,
        };
        if !found && !unchecked {
            return Ok(Reply::Stale(self.cell));
        }
        let fenced = match (kind, self.cell) {
            (Kind::Claim, None) => true,
            (Kind::Claim, Some(held)) => held.reads_unknown(),
            (Kind::Renew | Kind::Settle | Kind::TakeBack, Some(held)) => {
                held.holder == by && held.state == State::InFlight
            }
            (Kind::Renew | Kind::Settle | Kind::TakeBack, None) => false,
        };
        if !fenced {
            return Err(Broken::Unfenced);
        }
        if kind == Kind::Claim && self.cell.is_some() && setup.on_unknown == OnUnknown::Retry {
            self.excused += 1;
        }
        let fingerprint = setup.fingerprints[usize::from(by)];
        self.cell = next.map(|state| Held { version, holder: by, fingerprint, state, lapsed: false });
        Ok(Reply::Done)
    }
}

/// What the owner hears of a swap.
enum Reply {
    Done,
    Stale(Option<Held>),
    Refused,
    Unknown,
}

impl Setup {
    fn policy(&self) -> &Policy {
        self.policy.0.get_or_init(|| self.settled())
    }

    fn settled(&self) -> Policy {
        let mut policy = Policy { on_unknown: self.on_unknown, ..Policy::default() };
        if self.mutation == Some(Mutation::ReleaseOnBadGateway) {
            policy.release_on = [401, 502].map(StatusMatch::any).into_iter().collect();
        }
        if self.mutation == Some(Mutation::CompleteOnBadGateway) {
            policy.unknown_on = StatusSet::default();
        }
        policy
    }
}

impl Request {
    fn arrived() -> Self {
        Self { at: At::Arrived, version: 0, tried: 0, draws: 0, renewals: 0, late: None, upstream: Upstream::Idle }
    }
}

impl End {
    fn attempt(self, token: u8) -> Attempt<u8> {
        let answered = |status| Attempt::Answered(Answer { status, retry_after: false, response: token });
        match self {
            Self::Answered => answered(200),
            Self::Refused => answered(401),
            Self::BadGateway => answered(502),
            Self::Lost => Attempt::Lost(Loss::Broken),
            Self::NeverSent => Attempt::NeverSent,
        }
    }
}

impl State {
    fn of(record: Record<u8>) -> Self {
        match record {
            Record::InFlight { .. } => Self::InFlight,
            Record::Completed { response, .. } => Self::Completed(response),
            Record::Unknown { .. } => Self::Unknown,
        }
    }
}

impl Held {
    fn reads_unknown(self) -> bool {
        match self.state {
            State::InFlight => self.lapsed,
            State::Completed(_) => false,
            State::Unknown => true,
        }
    }

    /// The cell as a store would return it.
    fn cell(self) -> Cell<u8> {
        let fingerprint = fingerprint_of(self.fingerprint);
        let record = match self.state {
            State::InFlight => Record::InFlight { fingerprint, lease: LEASE, running: Duration::ZERO },
            State::Completed(response) => Record::Completed { fingerprint, response },
            State::Unknown => Record::Unknown { fingerprint, reason: UnknownReason::Lost, status: None },
        };
        let age = if self.lapsed { LEASE } else { Duration::ZERO };
        Cell { version: version_of(self.version), age, left: LEASE, route: RouteName("route".into()), record }
    }
}

fn counts(setup: &Setup) -> bool {
    setup.mutation == Some(Mutation::CountVersions)
}

fn id(i: usize) -> u8 {
    u8::try_from(i).expect("there are four")
}

fn version_of(version: u8) -> Version {
    Version([version; 16])
}

fn fingerprint_of(fingerprint: u8) -> Fingerprint {
    Fingerprint([fingerprint; 32])
}
