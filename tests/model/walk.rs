//! A breadth-first walk over every state that can be reached, with the shortest way to a broken promise.

use std::{collections::HashSet, fmt};

use super::world::{Broken, Setup, Step, World};

/// The shortest way to a broken promise.
pub(crate) struct Counterexample {
    pub(crate) broken: Broken,
    steps: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}:", self.broken)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

/// Visits every state; how many there are, or how a promise was broken.
pub(crate) fn walk(setup: &Setup) -> Result<usize, Counterexample> {
    let first = World::new(setup);
    let mut seen = HashSet::from([first.clone()]);
    // Each state with the one it was first reached from, for the way back.
    let mut states = vec![(first, 0_usize)];
    let mut at = 0;
    while let Some((world, _)) = states.get(at) {
        let world = world.clone();
        for step in world.steps(setup) {
            match world.after(setup, step) {
                Ok(next) => {
                    if seen.insert(next.clone()) {
                        states.push((next, at));
                    }
                }
                Err(broken) => return Err(Counterexample { broken, steps: way(setup, &states, at, step) }),
            }
        }
        at += 1;
    }
    Ok(states.len())
}

fn way(setup: &Setup, states: &[(World, usize)], last: usize, step: Step) -> Vec<String> {
    let mut steps = vec![format!("{step:?}")];
    let mut at = last;
    while at != 0 {
        let (world, from) = &states[at];
        let before = &states[*from].0;
        let step =
            before.steps(setup).into_iter().find(|step| before.after(setup, *step).is_ok_and(|next| next == *world));
        steps.extend(step.map(|step| format!("{step:?}")));
        at = *from;
    }
    steps.reverse();
    steps
}
